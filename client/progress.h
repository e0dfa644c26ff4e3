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

// The same with words of one's own behind the share.
std::string ProgressLine(const std::string& label, double share, const std::string& words);

// Draws on standard error while that is a terminal, and clears its line when it goes. A line is cut
// at the terminal's width. Not thread-safe.
class ProgressBar {
 public:
  // `unit`: what is counted, in the plural; bytes without one.
  explicit ProgressBar(std::string label, std::string unit = "");
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Done and in all. Drawn ten times a second at most.
  void Update(int64_t done, int64_t total);
  // A share in 0..1 with words of one's own. Drawn at once.
  void Show(double share, const std::string& words);
  // Takes the bar away until the next Update or Show, so that other lines can be written.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(const std::string& line);

  const std::string label_, unit_;
  const bool terminal_;
  const Clock::time_point begin_;
  Clock::time_point drawn_;
  bool visible_ = false;
};

}  // namespace gvsl

#endif  // GVSL_CLIENT_PROGRESS_H_
