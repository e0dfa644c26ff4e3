// What WatchJob and StreamJobLogs tell, message by message, without a network.
#ifndef GVSL_SERVER_JOB_FEEDS_H_
#define GVSL_SERVER_JOB_FEEDS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "gvsl/v1/jobs.pb.h"
#include "server/job_events.h"
#include "server/job_folder.h"
#include "server/job_store.h"
#include "server/stream_pump.h"

namespace gvsl {

// A job's record as of now, read again only when a job has changed. Not thread-safe.
class JobView {
 public:
  // `store` outlives the view.
  JobView(JobStore& store, std::string name) : store_(store), name_(std::move(name)) {}
  absl::Status Refresh();
  const v1::Job& job() const { return job_; }

 private:
  JobStore& store_;
  const std::string name_;
  int64_t seen_ = 0;
  v1::Job job_;
};

// The record, the events after `after_sequence` as they come, and the record at each change of
// state; ends when the job has.
class JobWatchFeed final : public Feed<v1::WatchJobResponse> {
 public:
  JobWatchFeed(JobStore& store, const std::string& data_dir, const v1::WatchJobRequest& request);
  absl::StatusOr<Step> Next(v1::WatchJobResponse& response) override;

 private:
  const v1::WatchJobRequest request_;
  JobView view_;
  JobEventReader events_;
  v1::Job::State told_ = v1::Job::STATE_UNSPECIFIED;
};

// The log from `offset` on; while the job runs, as it grows, if that is asked for.
class JobLogFeed final : public Feed<v1::StreamJobLogsResponse> {
 public:
  JobLogFeed(JobStore& store, const std::string& data_dir, const v1::StreamJobLogsRequest& request);
  absl::StatusOr<Step> Next(v1::StreamJobLogsResponse& response) override;

 private:
  const v1::StreamJobLogsRequest request_;
  JobView view_;
  const std::string path_;
  int64_t offset_;
  bool begun_ = false;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_FEEDS_H_
