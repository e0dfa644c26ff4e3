#include "server/stream_pump.h"

#include <chrono>

#include "imaging/status_reason.h"

namespace gvsl {
namespace {

constexpr std::chrono::milliseconds kTick{250};

}  // namespace

StreamPump::StreamPump(size_t most) : most_(most), thread_([this] { Run(); }) {}

StreamPump::~StreamPump() {
  Drain();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return not_gone_ == 0; });
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

absl::Status StreamPump::Add(Stream* stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++not_gone_;
  if (draining_) {
    return WithReason(absl::UnavailableError("the server is stopping; try again when it is back"),
                      "DRAINING");
  }
  if (streams_.size() >= most_) {
    return WithReason(
        absl::ResourceExhaustedError("the server is followed by as many as it can; try again"),
        "TOO_MANY_CALLS");
  }
  streams_.insert(stream);
  Ready(stream);
  return absl::OkStatus();
}

// Under the mutex.
bool StreamPump::Ready(Stream* stream) {
  if (streams_.count(stream) == 0 || !queued_.insert(stream).second) return false;
  ready_.push_back(stream);
  changed_.notify_all();
  return true;
}

void StreamPump::Wake(Stream* stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Ready(stream);
}

void StreamPump::Gone() {
  const std::lock_guard<std::mutex> lock(mutex_);
  --not_gone_;
  changed_.notify_all();
}

void StreamPump::Drain() {
  const std::lock_guard<std::mutex> lock(mutex_);
  draining_ = true;
  for (Stream* stream : streams_) Ready(stream);
}

size_t StreamPump::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return streams_.size();
}

void StreamPump::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  auto tick = std::chrono::steady_clock::now() + kTick;
  while (!stopping_) {
    changed_.wait_until(lock, tick, [this] { return stopping_ || !ready_.empty(); });
    if (std::chrono::steady_clock::now() >= tick) {
      tick = std::chrono::steady_clock::now() + kTick;
      for (Stream* stream : streams_) Ready(stream);
    }
    if (stopping_ || ready_.empty()) continue;
    Stream* stream = ready_.front();
    ready_.pop_front();
    queued_.erase(stream);
    const bool draining = draining_;
    lock.unlock();
    const bool again = !draining && stream->Turn();
    const std::optional<grpc::Status> ending = stream->Ending(draining);
    lock.lock();
    if (ending) {
      streams_.erase(stream);
      if (queued_.erase(stream) > 0) {
        for (auto at = ready_.begin(); at != ready_.end(); ++at) {
          if (*at != stream) continue;
          ready_.erase(at);
          break;
        }
      }
      lock.unlock();
      stream->End(*ending);
      lock.lock();
    } else if (again) {
      Ready(stream);
    }
  }
}

}  // namespace gvsl
