// Correlation: Pearson's, of pairs of values as they come.
#ifndef GVSL_IMAGING_CORRELATION_H_
#define GVSL_IMAGING_CORRELATION_H_

#include <cmath>
#include <cstdint>
#include <optional>

namespace gvsl {

class Correlation {
 public:
  // Of fewer pairs nothing is said.
  static constexpr int64_t kLeastPairs = 27;

  // The mean is followed along (Welford), so that large offsets such as CT's cost no digits.
  void Add(double a, double b) {
    ++count_;
    const double from_a = a - mean_a_, from_b = b - mean_b_;
    mean_a_ += from_a / static_cast<double>(count_);
    mean_b_ += from_b / static_cast<double>(count_);
    aa_ += from_a * (a - mean_a_);
    bb_ += from_b * (b - mean_b_);
    ab_ += from_a * (b - mean_b_);
  }
  int64_t count() const { return count_; }
  // -1 to 1; nothing where either value was constant.
  std::optional<double> Value() const {
    if (count_ < kLeastPairs || !(aa_ > 0) || !(bb_ > 0)) return std::nullopt;
    return ab_ / std::sqrt(aa_ * bb_);
  }

 private:
  int64_t count_ = 0;
  double mean_a_ = 0, mean_b_ = 0, aa_ = 0, bb_ = 0, ab_ = 0;
};

}  // namespace gvsl

#endif  // GVSL_IMAGING_CORRELATION_H_
