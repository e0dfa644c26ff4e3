#include "ingest/dicom_fetch.h"

#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_scu.h"
#include "ingest/storage_contexts.h"

namespace gvsl {
namespace {

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

class FetchScu : public DicomScu {
 public:
  FetchScu(const ScuOptions& options, const std::string& folder, const FetchProgress& progress)
      : DicomScu(options), folder_(folder), progress_(progress) {}
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

void ProposeAll(FetchScu& scu, bool moves) {
  scu.Propose(UID_FINDStudyRootQueryRetrieveInformationModel);
  if (moves) return scu.Propose(UID_MOVEStudyRootQueryRetrieveInformationModel);
  scu.Propose(UID_GETStudyRootQueryRetrieveInformationModel);
  for (const char* sop_class : kVolumeClasses) {
    for (const OFString& syntax : StorageTransferSyntaxes()) {
      OFList<OFString> one;
      one.push_back(syntax);
      scu.addPresentationContext(sop_class, one, ASC_SC_ROLE_SCP);
    }
  }
}

// The series that can hold volumes.
absl::StatusOr<std::set<std::string>> FindSeries(const ScuOptions& options, FetchScu& scu,
                                                 const std::string& study) {
  const auto context = scu.ContextOf(UID_FINDStudyRootQueryRetrieveInformationModel, "C-FIND");
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
        absl::StrCat(options.peer.Text(), " broke off while it was asked: ", asked.text()));
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
        absl::StrCat(options.peer.Text(), " has no CT, MR or PET series of the study ", study));
  }
  return series;
}

// By C-GET, or by C-MOVE to the AE title `move_to`; adds to `moved` what came there.
absl::Status RetrieveSeries(const ScuOptions& options, FetchScu& scu, const std::string& study,
                            const std::string& series, const std::string& move_to, int64_t& moved) {
  const bool moves = !move_to.empty();
  const auto context = moves
                           ? scu.ContextOf(UID_MOVEStudyRootQueryRetrieveInformationModel, "C-MOVE")
                           : scu.ContextOf(UID_GETStudyRootQueryRetrieveInformationModel,
                                           "C-GET; with --move it may send to a gvsl-ingest serve");
  if (!context.ok()) return context.status();
  DcmDataset request;
  request.putAndInsertString(DCM_QueryRetrieveLevel, "SERIES");
  request.putAndInsertString(DCM_StudyInstanceUID, study.c_str());
  request.putAndInsertString(DCM_SeriesInstanceUID, series.c_str());
  Responses<RetrieveResponse> answers;
  const OFCondition asked =
      moves ? scu.sendMOVERequest(*context, move_to.c_str(), &request, &answers.list)
            : scu.sendCGETRequest(*context, &request, &answers.list);
  if (asked.bad() || answers.list.empty()) {
    return absl::UnavailableError(
        absl::StrCat(options.peer.Text(), " broke off while it sent: ", asked.text()));
  }
  if (!scu.write_error().empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot write what ", options.peer.Text(), " sent: ", scu.write_error()));
  }
  const RetrieveResponse& last = *answers.list.back();
  if (moves) moved += last.m_numberOfCompletedSubops;
  if (last.m_status == STATUS_Success) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(options.peer.Text(), " did not send ",
                                         last.m_numberOfFailedSubops, " instances of the series ",
                                         series, " (status ", absl::Hex(last.m_status), "H)"));
}

}  // namespace

FetchedStudy FetchStudy(const ScuOptions& options, const std::string& study,
                        const std::string& folder, const std::string& move_to,
                        const FetchProgress& progress) {
  FetchScu scu(options, folder, progress);
  ProposeAll(scu, !move_to.empty());
  if (absl::Status status = scu.Open(); !status.ok()) return {0, status};
  const auto series = FindSeries(options, scu, study);
  if (!series.ok()) return {0, series.status()};
  absl::Status first;  // one series that fails costs only itself
  int64_t moved = 0;
  for (const std::string& one : *series) {
    const absl::Status status = RetrieveSeries(options, scu, study, one, move_to, moved);
    if (first.ok()) first = status;
    if (!status.ok() && !absl::IsAborted(status)) break;
  }
  scu.releaseAssociation();
  return {scu.received() + moved, first};
}

}  // namespace gvsl
