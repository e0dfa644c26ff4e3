#include "server/call_runner.h"

#include <exception>
#include <thread>
#include <utility>

#include "imaging/status_reason.h"

namespace gvsl {

CallRunner::~CallRunner() {
  std::unique_lock<std::mutex> lock(mutex_);
  draining_ = true;
  changed_.wait(lock, [this] { return running_ == 0; });
}

absl::Status CallRunner::Start(std::function<void()> work) {
  const auto busy = [] {
    return WithReason(
        absl::ResourceExhaustedError("the server is busy with as many calls as it can; try again"),
        "TOO_MANY_CALLS");
  };
  const std::lock_guard<std::mutex> lock(mutex_);
  if (draining_) {
    return WithReason(absl::UnavailableError("the server is stopping; try again when it is back"),
                      "DRAINING");
  }
  if (running_ >= most_) return busy();
  try {
    std::thread([this, work = std::move(work)]() mutable {
      work();
      work = nullptr;  // what it holds goes before the call counts as done
      const std::lock_guard<std::mutex> done(mutex_);
      --running_;
      changed_.notify_all();
    }).detach();
  } catch (const std::exception&) {  // no thread, or no memory for one
    return busy();
  }
  ++running_;
  return absl::OkStatus();
}

bool CallRunner::Drain(std::chrono::seconds patience) {
  std::unique_lock<std::mutex> lock(mutex_);
  draining_ = true;
  return changed_.wait_for(lock, patience, [this] { return running_ == 0; });
}

bool CallRunner::draining() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return draining_;
}

}  // namespace gvsl
