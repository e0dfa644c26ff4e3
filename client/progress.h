// ProgressBar: how far a transfer or a long work is, on a terminal; nothing on a pipe.
#ifndef GVSL_CLIENT_PROGRESS_H_
#define GVSL_CLIENT_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace gvsl {

// `label  [#####     ]  50%  8.1 MB/s  0:07`: share, rate, and the time that is left at that rate;
// with a unit, `3 of 6 volumes` in place of the rate. Without a line end. An unknown total (0)
// counts as all done.
std::string ProgressLine(const std::string& label, int64_t done, int64_t total, double elapsed_s,
                         const std::string& unit = "");

// Draws on standard error while that is a terminal, ten times a second at most, and clears its line
// when it goes. Not thread-safe.
class ProgressBar {
 public:
  // `unit`: what is counted, in the plural; bytes without one.
  explicit ProgressBar(std::string label, std::string unit = "");
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Done and in all.
  void Update(int64_t done, int64_t total);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string label_, unit_;
  const bool terminal_;
  const Clock::time_point begin_;
  Clock::time_point drawn_;
  bool visible_ = false;
};

}  // namespace gvsl

#endif  // GVSL_CLIENT_PROGRESS_H_
