#include "client/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gvsl {
namespace {

constexpr int kCells = 30;
constexpr std::chrono::milliseconds kRedraw{100};

}  // namespace

std::string ProgressLine(const std::string& label, double share, const std::string& words) {
  share = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0;
  const size_t full = static_cast<size_t>(share * kCells);
  return absl::StrFormat("%s  [%s%s] %3d%%  %s", label, std::string(full, '#'),
                         std::string(kCells - full, ' '), static_cast<int>(share * 100), words);
}

std::string ProgressLine(const std::string& label, int64_t done, int64_t total, double elapsed_s,
                         const std::string& unit) {
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const double rate = elapsed_s > 0 ? static_cast<double>(done) / elapsed_s : 0;  // bytes/s
  const double left_s =
      rate > 0 ? std::min(static_cast<double>(std::max<int64_t>(total - done, 0)) / rate, 359999.0)
               : 0;
  const int seconds = static_cast<int>(std::lround(left_s));
  const std::string middle = unit.empty() ? absl::StrFormat("%.1f MB/s", rate / 1e6)
                                          : absl::StrCat(done, " of ", total, " ", unit);
  return ProgressLine(label, share,
                      absl::StrFormat("%s  %d:%02d", middle, seconds / 60, seconds % 60));
}

ProgressBar::ProgressBar(std::string label, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      terminal_(isatty(STDERR_FILENO) == 1),
      begin_(Clock::now()) {}

ProgressBar::~ProgressBar() { Clear(); }

void ProgressBar::Clear() {
  if (!visible_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  visible_ = false;
}

void ProgressBar::Update(int64_t done, int64_t total) {
  if (!terminal_) return;
  const auto now = Clock::now();
  if (visible_ && now - drawn_ < kRedraw) return;
  const double elapsed_s = std::chrono::duration<double>(now - begin_).count();
  Draw(ProgressLine(label_, done, total, elapsed_s, unit_));
}

void ProgressBar::Show(double share, const std::string& words) {
  if (terminal_) Draw(ProgressLine(label_, share, words));
}

void ProgressBar::Draw(const std::string& line) {
  // A line that wraps could not be taken away.
  winsize size = {};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  std::fprintf(stderr, "\r%s\033[K",
               line.substr(0, known ? size_t{size.ws_col} - 1 : line.size()).c_str());
  std::fflush(stderr);
  drawn_ = Clock::now();
  visible_ = true;
}

}  // namespace gvsl
