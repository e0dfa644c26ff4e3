// EventLog: what happens in a job, one JobEvent a line of `events.jsonl`.
#ifndef GVSL_TRAINER_EVENT_LOG_H_
#define GVSL_TRAINER_EVENT_LOG_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"

namespace gvsl {

// Safe for concurrent use; one process at a time writes a file (FolderLock).
class EventLog {
 public:
  // Opens or makes the file, cuts off a line without its end, and goes on counting where it
  // stopped.
  static absl::StatusOr<std::unique_ptr<EventLog>> Open(const std::string& path);
  ~EventLog();

  // Gives the event its number and time and appends it; `durable`: synced before it returns. The
  // last event still finds room on a full disk: a little is always reserved. RESOURCE_EXHAUSTED
  // (DISK_FULL).
  absl::Status Append(v1::JobEvent event, bool durable);

 private:
  EventLog(int file, int64_t size, int64_t sequence)
      : file_(file), size_(size), sequence_(sequence) {}

  const int file_;
  std::mutex mutex_;
  int64_t size_;          // bytes
  int64_t sequence_;      // of the last event
  int64_t reserved_ = 0;  // bytes of the file's blocks, written or not
};

}  // namespace gvsl

#endif  // GVSL_TRAINER_EVENT_LOG_H_
