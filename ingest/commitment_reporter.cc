#include "ingest/commitment_reporter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_scu.h"

namespace gvsl {
namespace {

constexpr char kService[] = "Storage Commitment as its user";

}  // namespace

absl::Status CommitmentReporter::Deliver(const CommitmentReport& report) const {
  const auto peer =
      std::find_if(options_.peers.begin(), options_.peers.end(),
                   [&](const DicomPeer& one) { return one.ae_title == report.requester; });
  if (peer == options_.peers.end()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no --commitment_peer says where ", report.requester, " takes reports of commitment"));
  }
  DicomScu scu(ScuOptions{*peer, options_.ae_title, options_.tls, options_.acse_timeout_s,
                          options_.dimse_timeout_s});
  // We ask for the association, and yet are the service's provider.
  scu.Propose(UID_StorageCommitmentPushModelSOPClass, ASC_SC_ROLE_SCP);
  if (absl::Status status = scu.Open(); !status.ok()) return status;
  const auto context =
      scu.ContextOf(UID_StorageCommitmentPushModelSOPClass, kService, ASC_SC_ROLE_SCP);
  if (!context.ok()) return context.status();
  DcmDataset dataset;
  WriteCommitmentReport(report, dataset);
  Uint16 answer = 0;
  const OFCondition sent = scu.sendEVENTREPORTRequest(
      *context, UID_StorageCommitmentPushModelSOPInstance, report.event_type(), &dataset, answer);
  if (sent.bad()) {
    return absl::UnavailableError(
        absl::StrCat(peer->Text(), " broke off while it was reported to: ", sent.text()));
  }
  scu.releaseAssociation();
  if (answer == STATUS_Success) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(peer->Text(), " refuses the report (status ", absl::Hex(answer), "H)"));
}

void CommitmentReporter::RunOnce(int64_t now_s) {
  for (const std::string& name : queue_.Names()) {
    if (!queue_.Claim(name)) continue;
    if (absl::StatusOr<CommitmentReport> report = queue_.Read(name); report.ok()) {
      if (report->retry_at_s <= now_s) Try(name, *std::move(report), now_s);
    } else if (absl::IsDataLoss(report.status())) {
      queue_.Remove(name);
      observer_({"commitment_given_up", "", 0, 0, std::string(report.status().message())});
    }
    queue_.Release(name);
  }
}

void CommitmentReporter::Try(const std::string& name, CommitmentReport report, int64_t now_s) {
  const absl::Status delivered = Deliver(report);
  const auto observe = [&](const char* what) {
    observer_({what, report.requester, report.committed(), report.failures(),
               std::string(delivered.message())});
  };
  if (delivered.ok() || ++report.attempts >= options_.max_attempts) {
    queue_.Remove(name);
    return observe(delivered.ok() ? "commitment_reported" : "commitment_given_up");
  }
  report.retry_at_s = now_s + std::min(options_.longest_retry_s,
                                       options_.first_retry_s << std::min(report.attempts - 1, 16));
  (void)queue_.Write(name, report);  // where it fails, the file as it was lets it be tried sooner
  observe("commitment_retry");
}

}  // namespace gvsl
