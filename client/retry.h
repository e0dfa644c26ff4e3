// The one rule by which the client tries again.
#ifndef GVSL_CLIENT_RETRY_H_
#define GVSL_CLIENT_RETRY_H_

#include <chrono>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace gvsl {

// Capped exponential back-off with jitter. UNAVAILABLE is tried again once the server has been
// reached before (it restarts); RESOURCE_EXHAUSTED when the server says after which time.
class RetryPolicy {
 public:
  static constexpr int kAttempts = 8;
  // Of who follows work that takes days: some ten minutes, in which a server may be replaced.
  static constexpr int kPatientAttempts = 160;
  static constexpr std::chrono::milliseconds kFirst{200};
  static constexpr std::chrono::milliseconds kLongest{5000};

  explicit RetryPolicy(uint64_t seed, int attempts = kAttempts)
      : attempts_(attempts), random_(seed | 1) {}

  // How long to wait before the next attempt, or nothing when the failure stands.
  std::optional<std::chrono::milliseconds> Next(
      const absl::Status& status, bool reached_before,
      std::optional<std::chrono::milliseconds> server_delay);
  // The work went on: attempts count from the beginning again.
  void Progressed() { failures_ = 0; }

 private:
  const int attempts_;
  uint64_t random_;
  int failures_ = 0;
};

}  // namespace gvsl

#endif  // GVSL_CLIENT_RETRY_H_
