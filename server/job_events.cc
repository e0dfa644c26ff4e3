#include "server/job_events.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/log.h"

namespace gvsl {
namespace {

constexpr size_t kBlockBytes = 256 << 10, kMostLineBytes = 4 << 20;

bool Parse(const std::string& line, v1::JobEvent& event) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a newer trainer
  return google::protobuf::util::JsonStringToMessage(line, &event, options).ok();
}

void SetSeconds(double seconds, google::protobuf::Duration* duration) {
  constexpr double kMost = 1e10;  // 300 years
  duration->set_seconds(static_cast<int64_t>(std::clamp(seconds, 0.0, kMost)));
}

}  // namespace

// Reads on from `offset_`; false when no whole line has come.
bool JobEventReader::Fill() {
  block_.clear();
  at_ = 0;
  const int file = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return false;
  const auto closed = absl::MakeCleanup([file] { close(file); });
  for (size_t size = kBlockBytes;; size *= 2) {
    block_.resize(size);
    size_t got = 0;
    while (got < size) {
      const ssize_t more =
          pread(file, block_.data() + got, size - got, offset_ + static_cast<int64_t>(got));
      if (more < 0 && errno == EINTR) continue;
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    const size_t last = block_.rfind('\n', got == 0 ? 0 : got - 1);
    const bool whole = got > 0 && last != std::string::npos;
    block_.resize(whole ? last + 1 : 0);
    if (whole || got < size) return whole;
    if (size >= kMostLineBytes) {
      LogError(absl::StrCat(path_, ": a line of more than ", size, " bytes at byte ", offset_,
                            " is no event"));
      offset_ += static_cast<int64_t>(size);  // its end is no event, either
      return false;
    }
  }
}

std::optional<v1::JobEvent> JobEventReader::Next() {
  while (at_ < block_.size() || Fill()) {
    const size_t end = block_.find('\n', at_);
    const std::string line = block_.substr(at_, end - at_);
    const int64_t begin = offset_;
    offset_ += static_cast<int64_t>(line.size()) + 1;
    at_ = end + 1;
    v1::JobEvent event;
    if (Parse(line, event)) return event;
    LogError(absl::StrCat(path_, ": the line at byte ", begin, " is no event"));
  }
  return std::nullopt;
}

void JobEventReader::Rewind(int64_t offset) {
  offset_ = offset;
  block_.clear();
  at_ = 0;
}

void Apply(const v1::JobEvent& event, StoredJob& stored) {
  if (event.sequence() <= stored.event_sequence) return;
  stored.event_sequence = event.sequence();
  v1::Job& job = stored.job;
  switch (event.event_case()) {
    case v1::JobEvent::kStarted:
      job.set_step(event.started().step());
      job.clear_remaining();
      break;
    case v1::JobEvent::kStep: {
      const v1::JobEvent::Step& step = event.step();
      job.set_step(step.step());
      *job.mutable_last_step() = step;
      if (step.steps_per_second() > 0 && std::isfinite(step.steps_per_second())) {
        SetSeconds(static_cast<double>(job.total_steps() - step.step()) / step.steps_per_second(),
                   job.mutable_remaining());
      }
      break;
    }
    case v1::JobEvent::kValidation:
      *job.mutable_last_validation() = event.validation();
      if (event.validation().best()) *job.mutable_best_validation() = event.validation();
      break;
    case v1::JobEvent::kCheckpoint:
      if (event.checkpoint().step() > stored.checkpoint_step) {
        stored.checkpoint_step = event.checkpoint().step();
        stored.crashes = 0;
      }
      break;
    case v1::JobEvent::kEnded:
      job.set_step(event.ended().step());
      job.clear_remaining();
      break;
    case v1::JobEvent::kWarning:
    case v1::JobEvent::EVENT_NOT_SET:
      break;
  }
}

}  // namespace gvsl
