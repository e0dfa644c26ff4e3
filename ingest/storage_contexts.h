// Which objects a Storage SCP takes, and in which encodings. For .cc files: includes DCMTK.
#ifndef GVSL_INGEST_STORAGE_CONTEXTS_H_
#define GVSL_INGEST_STORAGE_CONTEXTS_H_

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmnet/scpcfg.h>

namespace gvsl {

// The transfer syntaxes that are taken, in the order of preference: native ones first, so that no
// sender who offers both is made to compress, perhaps with loss.
inline OFList<OFString> StorageTransferSyntaxes() {
  OFList<OFString> syntaxes;
  for (const char* syntax :
       {UID_LittleEndianExplicitTransferSyntax, UID_LittleEndianImplicitTransferSyntax,
        UID_BigEndianExplicitTransferSyntax, UID_DeflatedExplicitVRLittleEndianTransferSyntax,
        UID_RLELosslessTransferSyntax, UID_JPEGLSLosslessTransferSyntax,
        UID_JPEG2000LosslessOnlyTransferSyntax, UID_JPEGProcess14SV1TransferSyntax,
        UID_JPEGProcess14TransferSyntax, UID_JPEGLSLossyTransferSyntax, UID_JPEG2000TransferSyntax,
        UID_JPEGProcess2_4TransferSyntax, UID_JPEGProcess1TransferSyntax}) {
    syntaxes.push_back(syntax);
  }
  return syntaxes;
}

// DCMTK's list of storage SOP classes for senders, 120 at most, as many as fit into an association
// (128 contexts) beside Verification and Storage Commitment.
inline OFCondition AddStorageContexts(DcmSCPConfig& config) {
  OFCondition added = EC_Normal;
  for (int i = 0; i < numberOfDcmLongSCUStorageSOPClassUIDs && added.good(); ++i) {
    added =
        config.addPresentationContext(dcmLongSCUStorageSOPClassUIDs[i], StorageTransferSyntaxes());
  }
  OFList<OFString> native;
  native.push_back(UID_LittleEndianExplicitTransferSyntax);
  native.push_back(UID_LittleEndianImplicitTransferSyntax);
  for (const char* sop_class : {UID_VerificationSOPClass, UID_StorageCommitmentPushModelSOPClass}) {
    if (added.good()) added = config.addPresentationContext(sop_class, native);
  }
  return added;
}

}  // namespace gvsl

#endif  // GVSL_INGEST_STORAGE_CONTEXTS_H_
