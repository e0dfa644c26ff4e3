// Another DICOM application, that we ask or report to.
#ifndef GVSL_INGEST_DICOM_PEER_H_
#define GVSL_INGEST_DICOM_PEER_H_

#include <string>

#include "absl/status/statusor.h"
#include "ingest/dicom_tls.h"

namespace gvsl {

struct DicomPeer {
  std::string ae_title, host;
  int port = 0;

  std::string Text() const;  // "AET@HOST:PORT"
};

// Of "AET@HOST:PORT"; INVALID_ARGUMENT for anything else.
absl::StatusOr<DicomPeer> ParseDicomPeer(const std::string& text);

// Of an association that we ask for.
struct ScuOptions {
  DicomPeer peer;
  std::string ae_title = "GVSL";  // ours
  DicomTlsOptions tls;
  int acse_timeout_s = 10;
  int dimse_timeout_s = 300;  // of silence: an archive may have to look on its tapes
};

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_PEER_H_
