#include "ingest/dicom_scu.h"

#include <dcmtk/dcmtls/tlslayer.h>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr Uint32 kMaxPduBytes = 131072;

}  // namespace

void DicomScu::Propose(const char* sop_class, T_ASC_SC_ROLE role) {
  OFList<OFString> native;
  native.push_back(UID_LittleEndianExplicitTransferSyntax);
  native.push_back(UID_LittleEndianImplicitTransferSyntax);
  addPresentationContext(sop_class, native, role);
}

absl::Status DicomScu::Open() {
  setAETitle(options_.ae_title.c_str());
  setPeerAETitle(options_.peer.ae_title.c_str());
  setPeerHostName(options_.peer.host.c_str());
  setPeerPort(static_cast<Uint16>(options_.peer.port));
  setACSETimeout(static_cast<Uint32>(options_.acse_timeout_s));
  setConnectionTimeout(options_.acse_timeout_s);
  setDIMSEBlockingMode(DIMSE_NONBLOCKING);
  setDIMSETimeout(static_cast<Uint32>(options_.dimse_timeout_s));
  setMaxReceivePDULength(kMaxPduBytes);
  OFCondition done = initNetwork();
  if (done.good() && options_.tls.wanted()) {
    auto made = MakeDicomTls(options_.tls, DicomRole::kRequestor);
    if (!made.ok()) return made.status();
    tls = *std::move(made);
    done = useSecureConnection(tls.get());
  }
  if (done.good()) done = negotiateAssociation();
  if (done.good()) return absl::OkStatus();
  const std::string text =
      absl::StrCat("cannot open an association with ", options_.peer.Text(), ": ", done.text());
  return done == DUL_ASSOCIATIONREJECTED
             ? absl::FailedPreconditionError(absl::StrCat(
                   text, "; the peer must know our AE title ", options_.ae_title, " and address"))
             : absl::UnavailableError(text);
}

absl::StatusOr<T_ASC_PresentationContextID> DicomScu::ContextOf(const char* sop_class,
                                                                const char* name,
                                                                T_ASC_SC_ROLE role) {
  const T_ASC_PresentationContextID context = findPresentationContextID(sop_class, "", role);
  if (context != 0) return context;
  return absl::FailedPreconditionError(absl::StrCat(options_.peer.Text(), " offers no ", name));
}

}  // namespace gvsl
