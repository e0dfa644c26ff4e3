// Studies out of an archive: C-FIND and C-GET (PS3.4 annex C, Study Root).
#ifndef GVSL_INGEST_DICOM_FETCH_H_
#define GVSL_INGEST_DICOM_FETCH_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ingest/dicom_tls.h"

namespace gvsl {

struct DicomPeer {
  std::string ae_title, host;
  int port = 0;
};

// Of "AET@HOST:PORT"; INVALID_ARGUMENT for anything else.
absl::StatusOr<DicomPeer> ParseDicomPeer(const std::string& text);

struct FetchOptions {
  DicomPeer peer;
  std::string ae_title = "GVSL";  // ours
  DicomTlsOptions tls;
  int acse_timeout_s = 10;
  int dimse_timeout_s = 300;  // of silence: an archive may have to look on its tapes
};

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
// UNAVAILABLE where the peer is not reached or breaks off; FAILED_PRECONDITION where it refuses us
// or offers no C-GET; NOT_FOUND where it has no such series; ABORTED where it could not send all.
// What came until then is in `folder`.
FetchedStudy FetchStudy(const FetchOptions& options, const std::string& study_instance_uid,
                        const std::string& folder, const FetchProgress& progress);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_FETCH_H_
