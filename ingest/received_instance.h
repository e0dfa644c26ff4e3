// Files on their way into the spool.
#ifndef GVSL_INGEST_RECEIVED_INSTANCE_H_
#define GVSL_INGEST_RECEIVED_INSTANCE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "ingest/spool.h"

namespace gvsl {

// What a C-STORE command said of the dataset that followed it.
struct StoreRequest {
  std::string sop_class_uid, sop_instance_uid;
  int64_t dataset_bytes = 0;  // that came
};

// Looks at the Part 10 file `path`, which DCMTK wrote while it received, and keeps it in the spool;
// otherwise it is gone. Returns a C-STORE status (PS3.4 B.2.3): 0000H success, A700H out of
// resources, A900H dataset and command differ, C000H cannot be understood.
uint16_t KeepReceived(Spool& spool, const std::string& path, const StoreRequest& request);

// Keeps a copy of any DICOM file in the spool; the file stays. INVALID_ARGUMENT where it is none,
// or names no instance, study and series, or is larger than `max_bytes`;
// RESOURCE_EXHAUSTED or UNAVAILABLE where it could not be read or written now. No message names the
// file, as its name may be the patient's.
absl::Status KeepCopy(Spool& spool, const std::string& path, int64_t max_bytes);

}  // namespace gvsl

#endif  // GVSL_INGEST_RECEIVED_INSTANCE_H_
