#include "ingest/dicom_store.h"

#include "absl/strings/str_cat.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_scu.h"

namespace gvsl {

absl::Status StoreDataset(const ScuOptions& options, DcmDataset* dataset) {
  const std::string sop_class = TextOf(*dataset, DCM_SOPClassUID);
  DicomScu scu(options);
  scu.Propose(sop_class.c_str());
  if (absl::Status status = scu.Open(); !status.ok()) return status;
  const char* name = dcmFindNameOfUID(sop_class.c_str());
  const auto context = scu.ContextOf(sop_class.c_str(), name != nullptr ? name : sop_class.c_str());
  if (!context.ok()) return context.status();
  Uint16 answer = 0;
  const OFCondition sent = scu.sendSTORERequest(*context, OFFilename(), dataset, answer);
  if (sent.bad()) {
    return absl::UnavailableError(
        absl::StrCat(options.peer.Text(), " broke off while it was sent to: ", sent.text()));
  }
  scu.releaseAssociation();
  // Warnings: coercion, elements discarded (PS3.4 table B.2-1).
  if (answer == STATUS_Success || DICOM_WARNING_STATUS(answer)) return absl::OkStatus();
  const std::string text = absl::StrCat(options.peer.Text(), " did not take the object (status ",
                                        absl::Hex(answer, absl::kZeroPad4), "H)");
  return (answer & 0xFF00) == STATUS_STORE_Refused_OutOfResources
             ? absl::UnavailableError(text + ": it is out of resources")
             : absl::FailedPreconditionError(text);
}

}  // namespace gvsl
