// TLS of DICOM associations (PS3.15 annex B.9, the BCP 195 profile).
#ifndef GVSL_INGEST_DICOM_TLS_H_
#define GVSL_INGEST_DICOM_TLS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

class DcmTransportLayer;

namespace gvsl {

// PEM files. All or none: both sides show a certificate.
struct DicomTlsOptions {
  std::string key_file;          // the private key, without a passphrase
  std::string certificate_file;  // with its chain
  std::string trusted_file;      // certificates of the authorities that peers' ones must come from
  bool wanted() const { return !key_file.empty(); }
};

enum class DicomRole { kAcceptor, kRequestor };

// INVALID_ARGUMENT names the file that cannot be used, or the option that lacks.
absl::StatusOr<std::shared_ptr<DcmTransportLayer>> MakeDicomTls(const DicomTlsOptions& options,
                                                                DicomRole role);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_TLS_H_
