// Studies out of an archive: C-FIND, and C-GET or C-MOVE (PS3.4 annex C, Study Root).
#ifndef GVSL_INGEST_DICOM_FETCH_H_
#define GVSL_INGEST_DICOM_FETCH_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "ingest/dicom_peer.h"

namespace gvsl {

// Told of each instance that came.
using FetchProgress = std::function<void(int64_t instances)>;

struct FetchedStudy {
  int64_t instances = 0;  // that came, also before a failure
  absl::Status status;
};

// Asks the peer for the CT, MR and PET series of a study, and gets those images that can form
// volumes into files of `folder`, in the encoding that the peer has them in. One instance is in
// memory at a time.
//
// With `move_to`, an AE title that the peer knows, nothing comes here: the peer sends the series
// there by C-MOVE, all of their images, and `folder` stays empty.
//
// UNAVAILABLE where the peer is not reached or breaks off; FAILED_PRECONDITION where it refuses us
// or offers no C-GET or C-MOVE; NOT_FOUND where it has no such series; ABORTED where it could not
// send all. What came until then is in `folder`.
FetchedStudy FetchStudy(const ScuOptions& options, const std::string& study_instance_uid,
                        const std::string& folder, const std::string& move_to,
                        const FetchProgress& progress);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_FETCH_H_
