#include "ingest/storage_commitment.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_instance.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Reports that wait for their requesters, at most.
constexpr size_t kMaxWaiting = 10000;
// PS3.3 C.14.1.1.
constexpr uint16_t kNoSuchObjectInstance = 0x0112, kClassInstanceConflict = 0x0119;

uint16_t ReasonOf(const InstanceReference& reference, const SafeInstances& safe) {
  const auto found = safe.find(reference.sop_instance_uid);
  if (found == safe.end()) return kNoSuchObjectInstance;
  const SafeInstance& instance = found->second;
  const bool same =
      instance.sop_class_uid == reference.sop_class_uid ||
      std::any_of(instance.paths.begin(), instance.paths.end(), [&](const std::string& path) {
        return ReadDicomInstance(path).sop_class_uid == reference.sop_class_uid;
      });
  return same ? 0 : kClassInstanceConflict;
}

json ToJson(const CommitmentReport& report) {
  json references = json::array();
  for (const InstanceReference& reference : report.result.references) {
    references.push_back(
        {reference.sop_class_uid, reference.sop_instance_uid, reference.failure_reason});
  }
  return {{"requester", report.requester},
          {"transactionUid", report.result.transaction_uid},
          {"attempts", report.attempts},
          {"retryAt", report.retry_at_s},
          {"references", references}};
}

CommitmentReport FromJson(const json& text) {  // throws json::exception
  CommitmentReport report;
  report.requester = text.at("requester").get<std::string>();
  report.result.transaction_uid = text.at("transactionUid").get<std::string>();
  report.attempts = text.at("attempts").get<int>();
  report.retry_at_s = text.at("retryAt").get<int64_t>();
  for (const json& one : text.at("references")) {
    report.result.references.push_back(
        {one.at(0).get<std::string>(), one.at(1).get<std::string>(), one.at(2).get<uint16_t>()});
  }
  return report;
}

}  // namespace

absl::StatusOr<CommitmentRequest> ReadCommitmentRequest(DcmDataset& dataset) {
  CommitmentRequest request;
  request.transaction_uid = TextOf(dataset, DCM_TransactionUID);
  if (request.transaction_uid.empty()) {
    return absl::InvalidArgumentError("the request has no Transaction UID");
  }
  DcmSequenceOfItems* sequence = nullptr;
  if (dataset.findAndGetSequence(DCM_ReferencedSOPSequence, sequence).bad() ||
      sequence->card() == 0) {
    return absl::InvalidArgumentError("the request has no Referenced SOP Sequence");
  }
  for (DcmObject* item = sequence->nextInContainer(nullptr); item != nullptr;
       item = sequence->nextInContainer(item)) {
    auto& one = static_cast<DcmItem&>(*item);
    InstanceReference reference{TextOf(one, DCM_ReferencedSOPClassUID),
                                TextOf(one, DCM_ReferencedSOPInstanceUID)};
    if (reference.sop_class_uid.empty() || reference.sop_instance_uid.empty()) {
      return absl::InvalidArgumentError(
          "an item of the Referenced SOP Sequence lacks its SOP Class or Instance UID");
    }
    request.references.push_back(std::move(reference));
  }
  return request;
}

int64_t CommitmentReport::failures() const {
  return std::count_if(result.references.begin(), result.references.end(),
                       [](const auto& reference) { return reference.failure_reason != 0; });
}

void WriteCommitmentReport(const CommitmentReport& report, DcmDataset& dataset) {
  dataset.putAndInsertString(DCM_TransactionUID, report.result.transaction_uid.c_str());
  for (const InstanceReference& reference : report.result.references) {
    const bool failed = reference.failure_reason != 0;
    DcmItem* item = nullptr;
    // A new last item of the sequence, which is made with the first.
    dataset.findOrCreateSequenceItem(failed ? DCM_FailedSOPSequence : DCM_ReferencedSOPSequence,
                                     item, -2);
    if (item == nullptr) continue;
    item->putAndInsertString(DCM_ReferencedSOPClassUID, reference.sop_class_uid.c_str());
    item->putAndInsertString(DCM_ReferencedSOPInstanceUID, reference.sop_instance_uid.c_str());
    if (failed) item->putAndInsertUint16(DCM_FailureReason, reference.failure_reason);
  }
}

absl::StatusOr<CommitmentReport> CommitInstances(Spool& spool, const std::string& requester,
                                                 CommitmentRequest request) {
  std::set<std::string> uids;
  for (const InstanceReference& reference : request.references) {
    uids.insert(reference.sop_instance_uid);
  }
  const absl::StatusOr<SafeInstances> safe = spool.Commit(uids);
  if (!safe.ok()) return safe.status();
  for (InstanceReference& reference : request.references) {
    reference.failure_reason = ReasonOf(reference, *safe);
  }
  return CommitmentReport{requester, std::move(request)};
}

absl::StatusOr<std::string> CommitmentQueue::Put(const CommitmentReport& report) {
  if (Names().size() >= kMaxWaiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kMaxWaiting, " reports of Storage Commitment wait for their requesters"));
  }
  const std::string name = absl::StrCat(
      Sha256Of(absl::StrCat(report.requester, "\n", report.result.transaction_uid)), ".json");
  if (!Claim(name)) return absl::AlreadyExistsError("this transaction is being reported");
  const absl::Status written = Write(name, report);
  if (written.ok()) return name;
  Release(name);
  return written;
}

bool CommitmentQueue::Claim(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return claimed_.insert(name).second;
}

void CommitmentQueue::Release(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  claimed_.erase(name);
}

std::vector<std::string> CommitmentQueue::Names() const {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    std::string name = entry.path().filename().string();
    if (!IsAsideName(name)) names.push_back(std::move(name));
  }
  return names;
}

absl::StatusOr<CommitmentReport> CommitmentQueue::Read(const std::string& name) const {
  std::ifstream file(PathOf(name));
  if (!file) return absl::NotFoundError("the report is not there");
  try {
    return FromJson(json::parse(file));
  } catch (const std::exception&) {
    return absl::DataLossError(absl::StrCat("the report ", PathOf(name), " is damaged"));
  }
}

absl::Status CommitmentQueue::Write(const std::string& name, const CommitmentReport& report) {
  return WriteWholeFile(PathOf(name),
                        ToJson(report).dump(-1, ' ', false, json::error_handler_t::replace));
}

void CommitmentQueue::Remove(const std::string& name) {
  std::error_code ignored;
  fs::remove(PathOf(name), ignored);
}

}  // namespace gvsl
