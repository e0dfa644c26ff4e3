// CallRunner: a thread a call, so that no work ever runs on gRPC's own threads.
#ifndef GVSL_SERVER_CALL_RUNNER_H_
#define GVSL_SERVER_CALL_RUNNER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "absl/status/status.h"

namespace gvsl {

// Calls wait for their client, the disk or the network most of their time; a thread each is simple,
// and their number is bounded. Safe for concurrent use.
class CallRunner {
 public:
  explicit CallRunner(int most) : most_(most) {}
  // Waits for every call.
  ~CallRunner();

  // Starts the work on a thread of its own. RESOURCE_EXHAUSTED (TOO_MANY_CALLS), or UNAVAILABLE
  // (DRAINING).
  absl::Status Start(std::function<void()> work);

  // From now on nothing is started. Waits for what runs, at most this long; true when all is done.
  bool Drain(std::chrono::seconds patience);
  bool draining() const;

 private:
  const int most_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int running_ = 0;        // guarded by mutex_
  bool draining_ = false;  // guarded by mutex_
};

}  // namespace gvsl

#endif  // GVSL_SERVER_CALL_RUNNER_H_
