#include "model/losses.h"

namespace gvsl {
namespace {

constexpr int64_t kWindow = 9;
constexpr double kWindowVoxels = kWindow * kWindow * kWindow;
constexpr double kEpsilon = 1e-5;

// Sum over the window around every voxel, zeros outside: three running means, scaled back.
at::Tensor BoxSum(const at::Tensor& image) {
  constexpr int64_t kHalf = kWindow / 2;
  at::Tensor mean = at::avg_pool3d(image, {kWindow, 1, 1}, {1, 1, 1}, {kHalf, 0, 0});
  mean = at::avg_pool3d(mean, {1, kWindow, 1}, {1, 1, 1}, {0, kHalf, 0});
  mean = at::avg_pool3d(mean, {1, 1, kWindow}, {1, 1, 1}, {0, 0, kHalf});
  return mean * kWindowVoxels;
}

}  // namespace

at::Tensor LocalCorrelationLoss(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor sum_a = BoxSum(a), sum_b = BoxSum(b);
  const at::Tensor cross = BoxSum(a * b) - sum_a * sum_b / kWindowVoxels;
  const at::Tensor variance_a = BoxSum(a * a) - sum_a * sum_a / kWindowVoxels;
  const at::Tensor variance_b = BoxSum(b * b) - sum_b * sum_b / kWindowVoxels;
  return 1 - at::mean(cross * cross / (variance_a * variance_b + kEpsilon));
}

at::Tensor SmoothnessLoss(const at::Tensor& flow) {
  at::Tensor sum;
  for (int64_t axis = 2; axis < 5; ++axis) {
    const int64_t length = flow.size(axis);
    const at::Tensor step = flow.slice(axis, 1, length) - flow.slice(axis, 0, length - 1);
    const at::Tensor term = at::mean(step * step);
    sum = axis == 2 ? term : sum + term;
  }
  return sum / 3;
}

}  // namespace gvsl
