#include "trainer/event_log.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

constexpr int64_t kReserve = 256 << 10;  // bytes held ready beyond the end, at most
constexpr int64_t kLeast = 64 << 10;     // and at least, or the disk counts as full

absl::Status Failed(const char* what, int error) {
  const std::string message = absl::StrCat("events.jsonl: ", what, ": ", std::strerror(error));
  if (IsDiskFull(error)) return WithReason(absl::ResourceExhaustedError(message), "DISK_FULL");
  return absl::InternalError(message);
}

// Lines and the bytes up to the end of the last whole one.
struct Extent {
  int64_t lines = 0, bytes = 0;
};

absl::StatusOr<Extent> Measure(int file) {
  Extent extent;
  int64_t at = 0;
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = pread(file, buffer, sizeof(buffer), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed("read", errno);
    if (got == 0) return extent;
    for (ssize_t i = 0; i < got; ++i) {
      if (buffer[i] != '\n') continue;
      ++extent.lines;
      extent.bytes = at + i + 1;
    }
    at += got;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventLog>> EventLog::Open(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) return Failed("open", errno);
  auto extent = Measure(file);
  if (extent.ok() && ftruncate(file, extent->bytes) != 0) extent = Failed("truncate", errno);
  if (!extent.ok()) {
    close(file);
    return extent.status();
  }
  return std::unique_ptr<EventLog>(new EventLog(file, extent->bytes, extent->lines));
}

EventLog::~EventLog() {
  // Gives the reserve back.
  if (ftruncate(file_, size_) != 0) errno = 0;
  close(file_);
}

absl::Status EventLog::Append(v1::JobEvent event, bool durable) {
  const std::lock_guard<std::mutex> lock(mutex_);
  event.set_sequence(sequence_ + 1);
  *event.mutable_time() = google::protobuf::util::TimeUtil::GetCurrentTime();
  std::string line;
  if (!google::protobuf::util::MessageToJsonString(event, &line).ok()) {
    return absl::InternalError("an event that is no JSON");
  }
  line += '\n';
  const int64_t length = static_cast<int64_t>(line.size());
  absl::Status status;
  if (reserved_ < size_ + length + kLeast) {
    // Where the file system cannot reserve, writing alone tells.
    if (fallocate(file_, FALLOC_FL_KEEP_SIZE, size_, length + kReserve) == 0) {
      reserved_ = size_ + length + kReserve;
    } else if (IsDiskFull(errno) && !event.has_ended()) {
      return Failed("no room for more events", errno);
    }
  }
  int64_t done = 0;
  while (done < length) {
    const ssize_t written =
        pwrite(file_, line.data() + done, static_cast<size_t>(length - done), size_ + done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      if (ftruncate(file_, size_) != 0) errno = 0;
      return Failed("write", error);
    }
    done += written;
  }
  size_ += length;
  ++sequence_;
  if (durable && fdatasync(file_) != 0) return Failed("sync", errno);
  return absl::OkStatus();
}

}  // namespace gvsl
