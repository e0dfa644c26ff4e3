// One object into an archive: C-STORE as a user (PS3.4 annex B).
#ifndef GVSL_INGEST_DICOM_STORE_H_
#define GVSL_INGEST_DICOM_STORE_H_

#include "absl/status/status.h"
#include "ingest/dicom_peer.h"

class DcmDataset;

namespace gvsl {

// Sends a dataset, in an association of its own; the peer has it whole, or not at all. Values that
// are in files are streamed. OK where the peer answered success, or a warning that it has changed
// attributes. UNAVAILABLE: the peer is not reached, breaks off or is full (A7xxH);
// FAILED_PRECONDITION: it refuses us, this class of objects, or this object.
absl::Status StoreDataset(const ScuOptions& options, DcmDataset* dataset);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_STORE_H_
