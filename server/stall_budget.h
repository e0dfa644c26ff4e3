// How long a client may keep the server waiting.
#ifndef GVSL_SERVER_STALL_BUDGET_H_
#define GVSL_SERVER_STALL_BUDGET_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace gvsl {

// A client that takes or sends nothing for this long is given up: it holds a thread.
constexpr std::chrono::milliseconds kStallLimit{120000};

// The same for a stream that holds the device while its client stalls: kStallLimit is for all its
// stalls together, and what the client takes earns more at this rate. So a client that takes
// 10 MiB/s or more is never given up, and one that takes a message now and then soon is.
// Not thread-safe.
class StallBudget {
 public:
  static constexpr double kBytesPerMs = 10.0 * (1 << 20) / 1000;

  // What the next stall may take at most.
  std::chrono::milliseconds left() const {
    return std::chrono::milliseconds(static_cast<int64_t>(left_.count()));
  }
  // The client took so many bytes after a stall of this length.
  void Taken(size_t bytes, std::chrono::duration<double, std::milli> stall) {
    left_ -= stall;
    left_ += std::chrono::duration<double, std::milli>(static_cast<double>(bytes) / kBytesPerMs);
    left_ = std::clamp(left_, decltype(left_)(0), decltype(left_)(kStallLimit));
  }

 private:
  std::chrono::duration<double, std::milli> left_{kStallLimit};
};

}  // namespace gvsl

#endif  // GVSL_SERVER_STALL_BUDGET_H_
