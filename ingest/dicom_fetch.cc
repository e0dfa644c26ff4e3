#include "ingest/dicom_fetch.h"

#include "ingest/dicom_attributes.h"
#include "ingest/storage_contexts.h"
// The network comes after DCMTK's configuration, which these include.
#include <dcmtk/dcmnet/scu.h>
#include <dcmtk/dcmtls/tlslayer.h>

#include <memory>
#include <set>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr Uint32 kMaxPduBytes = 131072;
constexpr int kMaxPort = 65535;
constexpr size_t kMaxTitle = 16;
// Each in a context of its own for every encoding: an archive sends what it has as it has it. 9 *
// 13 of at most 128 contexts.
constexpr const char* kVolumeClasses[] = {UID_CTImageStorage,
                                          UID_EnhancedCTImageStorage,
                                          UID_LegacyConvertedEnhancedCTImageStorage,
                                          UID_MRImageStorage,
                                          UID_EnhancedMRImageStorage,
                                          UID_LegacyConvertedEnhancedMRImageStorage,
                                          UID_PositronEmissionTomographyImageStorage,
                                          UID_EnhancedPETImageStorage,
                                          UID_LegacyConvertedEnhancedPETImageStorage};

class FetchScu : public DcmSCU {
 public:
  using DcmSCU::useSecureConnection;
  FetchScu(const std::string& folder, const FetchProgress& progress)
      : folder_(folder), progress_(progress) {}
  int64_t received() const { return received_; }
  const std::string& write_error() const { return write_error_; }

  OFCondition handleSTORERequest(const T_ASC_PresentationContextID, DcmDataset* incoming,
                                 OFBool& go_on, Uint16& status) override {
    // Numbered: a peer's UIDs are no file names.
    const std::string path = absl::StrCat(folder_, "/", ++next_, ".dcm");
    DcmFileFormat file(incoming, OFFalse);  // which it then owns
    const OFCondition written = file.saveFile(path.c_str(), incoming->getOriginalXfer());
    go_on = OFTrue;
    status = written.good() ? STATUS_Success : STATUS_STORE_Refused_OutOfResources;
    if (written.good()) {
      ++received_;
      if (progress_) progress_(received_);
    } else {
      write_error_ = written.text();
    }
    return EC_Normal;
  }

 private:
  const std::string folder_;
  const FetchProgress progress_;
  int64_t received_ = 0, next_ = 0;
  std::string write_error_;
};

// Deletes the answers that DCMTK made.
template <typename Response>
struct Responses {
  ~Responses() {
    for (Response* response : list) delete response;
  }
  OFList<Response*> list;
};

std::string PeerText(const FetchOptions& options) {
  return absl::StrCat(options.peer.ae_title, "@", options.peer.host, ":", options.peer.port);
}

absl::Status Connect(const FetchOptions& options, DcmTransportLayer* tls, FetchScu& scu) {
  scu.setAETitle(options.ae_title.c_str());
  scu.setPeerAETitle(options.peer.ae_title.c_str());
  scu.setPeerHostName(options.peer.host.c_str());
  scu.setPeerPort(static_cast<Uint16>(options.peer.port));
  scu.setACSETimeout(static_cast<Uint32>(options.acse_timeout_s));
  scu.setConnectionTimeout(options.acse_timeout_s);
  scu.setDIMSEBlockingMode(DIMSE_NONBLOCKING);
  scu.setDIMSETimeout(static_cast<Uint32>(options.dimse_timeout_s));
  scu.setMaxReceivePDULength(kMaxPduBytes);
  OFList<OFString> native;
  native.push_back(UID_LittleEndianExplicitTransferSyntax);
  native.push_back(UID_LittleEndianImplicitTransferSyntax);
  scu.addPresentationContext(UID_FINDStudyRootQueryRetrieveInformationModel, native);
  scu.addPresentationContext(UID_GETStudyRootQueryRetrieveInformationModel, native);
  for (const char* sop_class : kVolumeClasses) {
    for (const OFString& syntax : StorageTransferSyntaxes()) {
      OFList<OFString> one;
      one.push_back(syntax);
      scu.addPresentationContext(sop_class, one, ASC_SC_ROLE_SCP);
    }
  }
  OFCondition done = scu.initNetwork();
  if (done.good() && tls != nullptr) done = scu.useSecureConnection(tls);
  if (done.good()) done = scu.negotiateAssociation();
  if (done.good()) return absl::OkStatus();
  const std::string text =
      absl::StrCat("cannot open an association with ", PeerText(options), ": ", done.text());
  return done == DUL_ASSOCIATIONREJECTED
             ? absl::FailedPreconditionError(absl::StrCat(
                   text, "; the peer must know our AE title ", options.ae_title, " and address"))
             : absl::UnavailableError(text);
}

absl::StatusOr<T_ASC_PresentationContextID> ContextOf(const FetchOptions& options, FetchScu& scu,
                                                      const char* sop_class, const char* name) {
  const T_ASC_PresentationContextID context = scu.findPresentationContextID(sop_class, "");
  if (context != 0) return context;
  return absl::FailedPreconditionError(absl::StrCat(PeerText(options), " offers no ", name));
}

// The series that can hold volumes.
absl::StatusOr<std::set<std::string>> FindSeries(const FetchOptions& options, FetchScu& scu,
                                                 const std::string& study) {
  const auto context =
      ContextOf(options, scu, UID_FINDStudyRootQueryRetrieveInformationModel, "C-FIND");
  if (!context.ok()) return context.status();
  DcmDataset query;
  query.putAndInsertString(DCM_QueryRetrieveLevel, "SERIES");
  query.putAndInsertString(DCM_StudyInstanceUID, study.c_str());
  query.putAndInsertString(DCM_SeriesInstanceUID, "");
  query.putAndInsertString(DCM_Modality, "");
  Responses<QRResponse> answers;
  const OFCondition asked = scu.sendFINDRequest(*context, &query, &answers.list);
  if (asked.bad()) {
    return absl::UnavailableError(
        absl::StrCat(PeerText(options), " broke off while it was asked: ", asked.text()));
  }
  std::set<std::string> series;
  for (const QRResponse* answer : answers.list) {
    if (answer->m_dataset == nullptr) continue;
    const std::string modality = TextOf(*answer->m_dataset, DCM_Modality);
    const std::string uid = TextOf(*answer->m_dataset, DCM_SeriesInstanceUID);
    if (!uid.empty() && (modality == "CT" || modality == "MR" || modality == "PT")) {
      series.insert(uid);
    }
  }
  if (series.empty()) {
    return absl::NotFoundError(
        absl::StrCat(PeerText(options), " has no CT, MR or PET series of the study ", study));
  }
  return series;
}

absl::Status GetSeries(const FetchOptions& options, FetchScu& scu, const std::string& study,
                       const std::string& series) {
  const auto context =
      ContextOf(options, scu, UID_GETStudyRootQueryRetrieveInformationModel, "C-GET");
  if (!context.ok()) return context.status();
  DcmDataset request;
  request.putAndInsertString(DCM_QueryRetrieveLevel, "SERIES");
  request.putAndInsertString(DCM_StudyInstanceUID, study.c_str());
  request.putAndInsertString(DCM_SeriesInstanceUID, series.c_str());
  Responses<RetrieveResponse> answers;
  const OFCondition asked = scu.sendCGETRequest(*context, &request, &answers.list);
  if (asked.bad() || answers.list.empty()) {
    return absl::UnavailableError(
        absl::StrCat(PeerText(options), " broke off while it sent: ", asked.text()));
  }
  if (!scu.write_error().empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot write what ", PeerText(options), " sent: ", scu.write_error()));
  }
  const RetrieveResponse& last = *answers.list.back();
  if (last.m_status == STATUS_Success) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(PeerText(options), " did not send ",
                                         last.m_numberOfFailedSubops, " instances of the series ",
                                         series, " (status ", absl::Hex(last.m_status), "H)"));
}

}  // namespace

absl::StatusOr<DicomPeer> ParseDicomPeer(const std::string& text) {
  const size_t at = text.find('@'), colon = text.rfind(':');
  DicomPeer peer;
  if (at != std::string::npos && colon != std::string::npos && at < colon) {
    peer.ae_title = text.substr(0, at);
    peer.host = text.substr(at + 1, colon - at - 1);
    if (!absl::SimpleAtoi(text.substr(colon + 1), &peer.port)) peer.port = 0;
  }
  if (peer.ae_title.empty() || peer.ae_title.size() > kMaxTitle || peer.host.empty() ||
      peer.port < 1 || peer.port > kMaxPort) {
    return absl::InvalidArgumentError(
        absl::StrCat(text, " is no peer; it should be AET@HOST:PORT, as PACS@10.0.0.7:104"));
  }
  return peer;
}

FetchedStudy FetchStudy(const FetchOptions& options, const std::string& study,
                        const std::string& folder, const FetchProgress& progress) {
  std::shared_ptr<DcmTransportLayer> tls;
  if (options.tls.wanted()) {
    auto made = MakeDicomTls(options.tls, DicomRole::kRequestor);
    if (!made.ok()) return {0, made.status()};
    tls = *std::move(made);
  }
  FetchScu scu(folder, progress);
  if (absl::Status status = Connect(options, tls.get(), scu); !status.ok()) return {0, status};
  const auto series = FindSeries(options, scu, study);
  if (!series.ok()) return {0, series.status()};
  absl::Status first;  // one series that fails costs only itself
  for (const std::string& one : *series) {
    const absl::Status status = GetSeries(options, scu, study, one);
    if (first.ok()) first = status;
    if (!status.ok() && !absl::IsAborted(status)) break;
  }
  scu.releaseAssociation();
  return {scu.received(), first};
}

}  // namespace gvsl
