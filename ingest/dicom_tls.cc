#include "ingest/dicom_tls.h"

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmtls/tlslayer.h>

#include "absl/strings/str_cat.h"

namespace gvsl {

absl::StatusOr<std::shared_ptr<DcmTransportLayer>> MakeDicomTls(const DicomTlsOptions& options,
                                                                DicomRole role) {
  if (options.key_file.empty() || options.certificate_file.empty() ||
      options.trusted_file.empty()) {
    return absl::InvalidArgumentError(
        "TLS needs all of --tls_key, --tls_certificate and --tls_trusted");
  }
  auto layer = std::make_shared<DcmTLSTransportLayer>(
      role == DicomRole::kAcceptor ? NET_ACCEPTOR : NET_REQUESTOR, nullptr, OFTrue);
  const auto unusable = [](const char* what, const std::string& path) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot use ", path, " as ", what, "; it should be a PEM file"));
  };
  if (layer->setPrivateKeyFile(options.key_file.c_str(), DCF_Filetype_PEM).bad()) {
    return unusable("private key", options.key_file);
  }
  if (layer->setCertificateFile(options.certificate_file.c_str(), DCF_Filetype_PEM).bad()) {
    return unusable("certificate", options.certificate_file);
  }
  if (!layer->checkPrivateKeyMatchesCertificate()) {
    return absl::InvalidArgumentError(absl::StrCat("the key ", options.key_file,
                                                   " is not that of the certificate ",
                                                   options.certificate_file));
  }
  if (layer->addTrustedCertificateFile(options.trusted_file.c_str(), DCF_Filetype_PEM).bad()) {
    return unusable("trusted certificates", options.trusted_file);
  }
  if (layer->setTLSProfile(TSP_Profile_BCP195).bad() || layer->activateCipherSuites().bad()) {
    return absl::InternalError("OpenSSL lacks the cipher suites of the BCP 195 profile");
  }
  layer->setCertificateVerification(DCV_requireCertificate);
  return layer;
}

}  // namespace gvsl
