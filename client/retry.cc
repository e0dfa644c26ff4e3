#include "client/retry.h"

#include <algorithm>

namespace gvsl {

std::optional<std::chrono::milliseconds> RetryPolicy::Next(
    const absl::Status& status, bool reached_before,
    std::optional<std::chrono::milliseconds> server_delay) {
  const bool again =
      (status.code() == absl::StatusCode::kUnavailable && reached_before) ||
      (status.code() == absl::StatusCode::kResourceExhausted && server_delay.has_value());
  if (!again || ++failures_ >= attempts_) return std::nullopt;
  auto delay = std::min(kFirst * (1 << std::min(failures_ - 1, 10)), kLongest);
  if (server_delay) delay = std::max(delay, std::min(*server_delay, kLongest));
  // xorshift64: half to all of the delay, so that many clients do not come back together.
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return delay / 2 +
         std::chrono::milliseconds(random_ % static_cast<uint64_t>(delay.count() / 2 + 1));
}

}  // namespace gvsl
