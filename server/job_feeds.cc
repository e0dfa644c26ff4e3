#include "server/job_feeds.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/status_reason.h"
#include "server/names.h"

namespace gvsl {
namespace {

constexpr int kLeftOutATurn = 1000;  // events that were told before, read past in one turn

}  // namespace

absl::Status JobView::Refresh() {
  const int64_t now = store_.generation();
  if (now == seen_) return absl::OkStatus();
  auto stored = store_.Get(name_);
  if (!stored.ok()) return stored.status();
  job_ = std::move(stored->job);
  seen_ = now;
  return absl::OkStatus();
}

JobWatchFeed::JobWatchFeed(JobStore& store, const std::string& data_dir,
                           const v1::WatchJobRequest& request)
    : request_(request),
      view_(store, request.name()),
      events_(JobFolder(data_dir, request.name()).events_path()) {}

absl::StatusOr<JobWatchFeed::Step> JobWatchFeed::Next(v1::WatchJobResponse& response) {
  if (told_ == v1::Job::STATE_UNSPECIFIED) {
    if (auto id = IdOf("jobs", request_.name(), "name"); !id.ok()) return id.status();
    if (request_.after_sequence() < 0)
      return absl::InvalidArgumentError("after_sequence: negative");
  }
  // The record before the events: when it says that the job has ended, all of them are there.
  if (absl::Status status = view_.Refresh(); !status.ok()) return status;
  const v1::Job& job = view_.job();
  if (told_ != v1::Job::STATE_UNSPECIFIED) {
    for (int i = 0; i < kLeftOutATurn; ++i) {
      auto event = events_.Next();
      if (event && event->sequence() <= request_.after_sequence()) continue;
      if (event) {
        *response.mutable_event() = *std::move(event);
        return Step::kMessage;
      }
      if (told_ != job.state()) break;
      return HasEnded(told_) ? Step::kEnd : Step::kLater;
    }
    if (told_ == job.state()) return Step::kAgain;
  }
  told_ = job.state();
  *response.mutable_job() = job;
  return Step::kMessage;
}

JobLogFeed::JobLogFeed(JobStore& store, const std::string& data_dir,
                       const v1::StreamJobLogsRequest& request)
    : request_(request),
      view_(store, request.name()),
      path_(JobFolder(data_dir, request.name()).log_path()),
      offset_(request.offset()) {}

absl::StatusOr<JobLogFeed::Step> JobLogFeed::Next(v1::StreamJobLogsResponse& response) {
  if (!begun_) {
    if (auto id = IdOf("jobs", request_.name(), "name"); !id.ok()) return id.status();
  }
  if (absl::Status status = view_.Refresh(); !status.ok()) return status;
  const bool ended = HasEnded(view_.job().state());
  const int file = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  const auto closed = absl::MakeCleanup([file] {
    if (file >= 0) close(file);
  });
  struct stat about = {};
  if (file >= 0) fstat(file, &about);
  if (!begun_ && (offset_ < 0 || offset_ > about.st_size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset: ", offset_, " lies outside the log's ", about.st_size, " bytes"));
  }
  begun_ = true;
  std::string& data = *response.mutable_data();
  const int64_t left = std::max<int64_t>(0, about.st_size - offset_);
  data.resize(static_cast<size_t>(std::min<int64_t>(left, kMaxChunkBytes)));
  const ssize_t got = data.empty() ? 0 : pread(file, data.data(), data.size(), offset_);
  if (got < 0) {
    return WithReason(absl::DataLossError("the job's log cannot be read"), "STORED_DATA_LOST");
  }
  if (got == 0) return request_.follow() && !ended ? Step::kLater : Step::kEnd;
  data.resize(static_cast<size_t>(got));
  response.set_offset(offset_);
  offset_ += got;
  return Step::kMessage;
}

}  // namespace gvsl
