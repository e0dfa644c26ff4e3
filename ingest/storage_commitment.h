// Storage Commitment, push model (PS3.4 annex J): what is asked for, what is answered, and the
// answers that are on their way. The network is elsewhere (storage_scp.h, commitment_reporter.h).
#ifndef GVSL_INGEST_STORAGE_COMMITMENT_H_
#define GVSL_INGEST_STORAGE_COMMITMENT_H_

#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ingest/spool.h"

class DcmDataset;

namespace gvsl {

struct InstanceReference {
  std::string sop_class_uid, sop_instance_uid;
  uint16_t failure_reason = 0;  // PS3.3 C.14.1.1; 0: committed
};

// Of an N-ACTION request.
struct CommitmentRequest {
  std::string transaction_uid;
  std::vector<InstanceReference> references;
};

// INVALID_ARGUMENT where it names no transaction, no instance, or an instance by half.
absl::StatusOr<CommitmentRequest> ReadCommitmentRequest(DcmDataset& dataset);

// What an N-EVENT-REPORT says.
struct CommitmentReport {
  std::string requester;  // AE title
  CommitmentRequest result;
  int attempts = 0;        // that failed
  int64_t retry_at_s = 0;  // seconds since 1970; not before

  int64_t failures() const;
  int64_t committed() const { return static_cast<int64_t>(result.references.size()) - failures(); }
  // 1: all are committed, 2: there are failures.
  uint16_t event_type() const { return failures() == 0 ? 1 : 2; }
};

// The event information (PS3.4 table J.3-2).
void WriteCommitmentReport(const CommitmentReport& report, DcmDataset& dataset);

// Decides on each reference, and has the spool keep what is committed. Reasons of failures: 0112H
// no such object instance, 0119H another SOP class. Spool::Commit's error where nothing can be
// promised now.
absl::StatusOr<CommitmentReport> CommitInstances(Spool& spool, const std::string& requester,
                                                 CommitmentRequest request);

// What happened, for the log and the metrics.
struct CommitmentEvent {
  // "commitment" (asked, and promised), "commitment_refused", "commitment_reported",
  // "commitment_retry", "commitment_given_up"
  const char* what;
  std::string peer;  // AE title
  int64_t committed = 0, failed = 0;
  std::string error;
};
using CommitmentObserver = std::function<void(const CommitmentEvent& event)>;

// Reports that were not delivered yet, each in a file of the spool: they outlive the process. The
// same transaction of the same requester is one report. Safe for concurrent use.
class CommitmentQueue {
 public:
  explicit CommitmentQueue(const Spool& spool) : folder_(spool.CommitmentsFolder()) {}

  // Keeps a report durably, and claims it. Returns its name. RESOURCE_EXHAUSTED where too many
  // wait, or the disk is full.
  absl::StatusOr<std::string> Put(const CommitmentReport& report);
  // One thread at a time delivers a report: false if another does.
  bool Claim(const std::string& name);
  void Release(const std::string& name);

  std::vector<std::string> Names() const;
  // NOT_FOUND where it went, DATA_LOSS where its file is damaged.
  absl::StatusOr<CommitmentReport> Read(const std::string& name) const;
  absl::Status Write(const std::string& name, const CommitmentReport& report);
  void Remove(const std::string& name);

 private:
  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

  const std::string folder_;
  std::mutex mutex_;
  std::set<std::string> claimed_;  // guarded by mutex_
};

}  // namespace gvsl

#endif  // GVSL_INGEST_STORAGE_COMMITMENT_H_
