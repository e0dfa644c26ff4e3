// JobStore: the jobs that the server knows, in the database beside volumes and models.
#ifndef GVSL_SERVER_JOB_STORE_H_
#define GVSL_SERVER_JOB_STORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"
#include "server/database.h"

namespace gvsl {

// SUCCEEDED, FAILED or CANCELLED: no process of it runs, and none will unless it is resumed.
inline bool HasEnded(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

// A job, and what the server alone remembers of it.
struct StoredJob {
  v1::Job job;
  int64_t queue_us = 0;         // when it was queued: whoever waits longest is next
  int64_t event_sequence = 0;   // last event that `job` tells of
  int64_t event_offset = 0;     // byte behind it in the job's events.jsonl
  int64_t checkpoint_step = 0;  // of the furthest checkpoint told
  int crashes = 0;              // of its process since that checkpoint
  bool stop_requested = false;  // CancelJob came while it ran
};

// What a job trains on, as resolved: names of volumes and of a model ("" for none).
struct JobInputs {
  std::vector<std::string> training, validation;
  std::string initial_model;
};

struct JobPage {
  std::vector<v1::Job> jobs;
  std::string next_page_token;
};

struct JobTotals {
  int64_t running = 0;
  int64_t queued = 0;
};

// Safe for concurrent use. A change that has returned OK is on the disk. Every method may return
// INTERNAL with the database's own words.
class JobStore {
 public:
  static constexpr int64_t kMostUnfinished = 10000;

  // `database` outlives the store.
  explicit JobStore(Database& database) : connection_(database.connection()) {}

  // Queues a job; returns it, or the one that this creation made before. ALREADY_EXISTS
  // (REQUEST_ID_REUSED); RESOURCE_EXHAUSTED (TOO_MANY_JOBS); ABORTED (INPUT_DELETED) when one of
  // its inputs was deleted meanwhile.
  absl::StatusOr<v1::Job> Add(const v1::Job& job, const JobInputs& inputs,
                              const Creation& creation);
  // NOT_FOUND, as everywhere where a name is meant.
  absl::StatusOr<StoredJob> Get(const std::string& name);
  absl::StatusOr<JobInputs> Inputs(const std::string& name);
  absl::StatusOr<JobPage> List(const v1::ListJobsRequest& request);
  // Changes a job in one step that no other change can come between; returns the new record. The
  // spec and the display name stay. A status of `change` is returned and nothing is changed.
  absl::StatusOr<StoredJob> Update(const std::string& name,
                                   const std::function<absl::Status(StoredJob&)>& change);
  // FAILED_PRECONDITION (JOB_RUNNING) for one that has not ended.
  absl::Status Delete(const std::string& name);

  // Names of jobs in this state, the first one queued first.
  absl::StatusOr<std::vector<std::string>> InState(v1::Job::State state, int limit);
  absl::StatusOr<JobTotals> Totals();
  absl::StatusOr<std::set<std::string>> Ids();

  // Grows with every change of any job: who has seen this one need not look again.
  int64_t generation() const { return generation_; }

 private:
  Database::Connection& connection_;
  std::atomic<int64_t> generation_{1};
};

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_STORE_H_
