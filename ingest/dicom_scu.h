// An association that we ask for. For .cc files: includes DCMTK.
#ifndef GVSL_INGEST_DICOM_SCU_H_
#define GVSL_INGEST_DICOM_SCU_H_

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmnet/scu.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ingest/dicom_peer.h"

namespace gvsl {

// A base, to outlive the association that runs over it.
struct DicomTlsHolder {
  std::shared_ptr<DcmTransportLayer> tls;
};

class DicomScu : private DicomTlsHolder, public DcmSCU {
 public:
  explicit DicomScu(const ScuOptions& options) : options_(options) {}

  // Proposes the SOP class in Explicit and Implicit VR Little Endian.
  void Propose(const char* sop_class, T_ASC_SC_ROLE role = ASC_SC_ROLE_DEFAULT);
  // Asks for the association, with all contexts proposed before. UNAVAILABLE where the peer is not
  // reached, FAILED_PRECONDITION where it refuses us, INVALID_ARGUMENT where a TLS file is wrong.
  absl::Status Open();
  // The accepted context; FAILED_PRECONDITION where the peer offers none, called `name` there.
  absl::StatusOr<T_ASC_PresentationContextID> ContextOf(const char* sop_class, const char* name,
                                                        T_ASC_SC_ROLE role = ASC_SC_ROLE_DEFAULT);

 private:
  const ScuOptions options_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_SCU_H_
