#include "model/sliding_window.h"

#include <algorithm>
#include <cmath>

namespace gvsl {
namespace {

constexpr int64_t kMultiple = 16;        // four levels of pooling
constexpr double kSigmaShare = 1.0 / 8;  // of the window's side, as nnU-Net and MONAI blend

// Far corners of a Gaussian are kept above this share of its centre, so that no voxel is divided by
// nothing.
constexpr double kLeastWeight = 1e-3;

double BlendingWeight(int64_t i, int64_t side, bool gaussian) {
  if (!gaussian) return 1;
  const double distance = (static_cast<double>(i) - static_cast<double>(side - 1) / 2) /
                          (kSigmaShare * static_cast<double>(side));
  return std::max(std::exp(-0.5 * distance * distance), kLeastWeight);
}

}  // namespace

WindowAxis::WindowAxis(int64_t size, int64_t window, double overlap, bool gaussian) : size_(size) {
  if (size <= window) {
    side_ = (size + kMultiple - 1) / kMultiple * kMultiple;
    starts_ = {-((side_ - size) / 2)};
  } else {
    side_ = window;
    const int64_t step =
        std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(window) * (1 - overlap)));
    for (int64_t start = 0; start < size - window; start += step) starts_.push_back(start);
    starts_.push_back(size - window);
  }
  std::vector<double> sum(static_cast<size_t>(size), 0);
  for (int64_t k = 0; k < count(); ++k) {
    for (int64_t v = begin(k); v < end(k); ++v) {
      sum[static_cast<size_t>(v)] += BlendingWeight(v - start(k), side_, gaussian);
    }
  }
  for (int64_t k = 0; k < count(); ++k) {
    weights_.emplace_back();
    for (int64_t v = begin(k); v < end(k); ++v) {
      weights_.back().push_back(static_cast<float>(BlendingWeight(v - start(k), side_, gaussian) /
                                                   sum[static_cast<size_t>(v)]));
    }
  }
}

}  // namespace gvsl
