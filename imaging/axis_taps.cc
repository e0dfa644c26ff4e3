#include "imaging/axis_taps.h"

#include <algorithm>
#include <cmath>

namespace gvsl {
namespace {

constexpr double kAntiAliasingFrom = 1.05;

}  // namespace

AxisFilter::AxisFilter(int64_t source_size, double ratio, Interpolation interpolation)
    : size_(source_size), interpolation_(interpolation) {
  if (interpolation == Interpolation::kNearest || ratio <= kAntiAliasingFrom) return;
  const double sigma = 0.5 * std::sqrt(ratio * ratio - 1);
  const int64_t radius = std::min<int64_t>(static_cast<int64_t>(std::ceil(3 * sigma)), source_size);
  for (int64_t i = 0; i <= radius; ++i) {
    gaussian_.push_back(std::exp(-0.5 * static_cast<double>(i * i) / (sigma * sigma)));
  }
}

void AxisFilter::At(double at, Taps& taps) const {
  const double last = static_cast<double>(size_ - 1);
  taps.outside = !(at >= -0.5 && at <= last + 0.5);
  taps.weights.clear();
  if (taps.outside) return;
  at = std::clamp(at, 0.0, last);
  if (interpolation_ == Interpolation::kNearest) {
    taps.first = std::min<int64_t>(static_cast<int64_t>(std::floor(at + 0.5)), size_ - 1);
    taps.weights.push_back(1);
    return;
  }
  const int64_t low =
      std::min<int64_t>(static_cast<int64_t>(std::floor(at)), std::max<int64_t>(size_ - 2, 0));
  const double fraction = at - static_cast<double>(low);
  const int64_t high = std::min(low + 1, size_ - 1);
  if (gaussian_.empty()) {
    taps.first = low;
    taps.weights.push_back(static_cast<float>(1 - fraction));
    if (high > low) taps.weights.push_back(static_cast<float>(fraction));
    return;
  }
  // Interpolation between the low-passed samples `low` and `high`, as one list of taps.
  const int64_t radius = static_cast<int64_t>(gaussian_.size()) - 1;
  taps.first = std::max<int64_t>(low - radius, 0);
  const int64_t end = std::min<int64_t>(high + radius, size_ - 1) + 1;
  taps.weights.assign(static_cast<size_t>(end - taps.first), 0);
  for (const auto& [centre, share] : {std::pair{low, 1 - fraction}, std::pair{high, fraction}}) {
    const int64_t begin = std::max<int64_t>(centre - radius, 0);
    const int64_t stop = std::min<int64_t>(centre + radius, size_ - 1) + 1;
    double sum = 0;
    for (int64_t i = begin; i < stop; ++i)
      sum += gaussian_[static_cast<size_t>(std::abs(i - centre))];
    for (int64_t i = begin; i < stop; ++i) {
      taps.weights[static_cast<size_t>(i - taps.first)] +=
          static_cast<float>(share * gaussian_[static_cast<size_t>(std::abs(i - centre))] / sum);
    }
  }
}

}  // namespace gvsl
