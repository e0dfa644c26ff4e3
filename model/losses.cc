#include "model/losses.h"

#include <cmath>

namespace gvsl {
namespace {

constexpr int64_t kOfficialWindow = 9;
constexpr double kOfficialVoxels = kOfficialWindow * kOfficialWindow * kOfficialWindow;
constexpr double kOfficialEpsilon = 1e-5;
constexpr double kVarianceFloor = 1e-5;  // of intensities in [0, 1]; a deviation of 0.003

// Mean over the window around every voxel, as three running means. `pad`: whether voxels outside
// count as zeros, or not at all.
at::Tensor BoxMean(const at::Tensor& image, int64_t window, bool pad) {
  const int64_t half = window / 2;
  at::Tensor mean = image;
  for (int axis = 0; axis < 3; ++axis) {
    std::array<int64_t, 3> sides = {1, 1, 1}, before = {0, 0, 0};
    sides[axis] = window;
    before[axis] = half;
    mean = at::avg_pool3d(mean, sides, {1, 1, 1}, before, /*ceil_mode=*/false,
                          /*count_include_pad=*/pad);
  }
  return mean;
}

at::Tensor OfficialBoxSum(const at::Tensor& image) {
  return BoxMean(image, kOfficialWindow, true) * kOfficialVoxels;
}

// Forward differences along D, H or W (axis 0, 1, 2).
at::Tensor Differences(const at::Tensor& field, int64_t axis) {
  const int64_t length = field.size(axis + 2);
  return field.slice(axis + 2, 1, length) - field.slice(axis + 2, 0, length - 1);
}

}  // namespace

at::Tensor LocalCorrelation(const at::Tensor& a_in, const at::Tensor& b_in, int64_t window,
                            const at::Tensor& inside_in, Correlation kind) {
  const auto type = a_in.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor inside = inside_in.defined() ? inside_in.to(type) : inside_in;
  // Correlation does not change with the images' offsets; without them less cancels below.
  const auto centred = [&](const at::Tensor& image_in) {
    const at::Tensor image = image_in.to(type), fixed = image.detach();
    if (!inside.defined()) return image - fixed.mean({1, 2, 3, 4}, /*keepdim=*/true);
    const at::Tensor sum = (fixed * inside).sum({1, 2, 3, 4}, true);
    return (image - sum / inside.sum({1, 2, 3, 4}, true).clamp_min(1)) * inside;
  };
  const at::Tensor x = centred(a_in), y = centred(b_in);
  at::Tensor means = BoxMean(at::cat({x, y, x * x, y * y, x * y}, 1), window, false);
  if (inside.defined()) {
    // The least share that is not nothing is one voxel of a window.
    means = means / BoxMean(inside, window, false).clamp_min(0.5 / std::pow(window, 3));
  }
  const auto channel = [&](int64_t i) { return means.narrow(1, i, 1); };
  const at::Tensor variance_x = (channel(2) - channel(0) * channel(0)).clamp_min(0);
  const at::Tensor variance_y = (channel(3) - channel(1) * channel(1)).clamp_min(0);
  const at::Tensor covariance = channel(4) - channel(0) * channel(1);
  const at::Tensor variances = (variance_x + kVarianceFloor) * (variance_y + kVarianceFloor);
  const at::Tensor correlation = kind == Correlation::kSigned ? covariance / variances.sqrt()
                                                              : covariance * covariance / variances;
  if (!inside.defined()) return correlation.mean();
  const at::Tensor sums = (correlation * inside).flatten(1).sum(1);
  return (sums / inside.flatten(1).sum(1).clamp_min(1)).mean();
}

at::Tensor FieldSmoothness(const at::Tensor& displacement,
                           const std::array<double, 3>& spacing_mm) {
  at::Tensor sum;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const at::Tensor difference = Differences(displacement, axis);
    for (int64_t component = 0; component < 3; ++component) {
      const double scale = spacing_mm[component] / spacing_mm[axis];
      const at::Tensor slope = difference.select(1, component) * scale;
      const at::Tensor term = at::mean(slope * slope);
      sum = sum.defined() ? sum + term : term;
    }
  }
  return sum / 9;
}

double FoldingPercent(const at::Tensor& displacement_in) {
  const at::NoGradGuard no_grad;
  const at::Tensor displacement = displacement_in.detach().to(at::kFloat);
  const int64_t d = displacement.size(2) - 1, h = displacement.size(3) - 1,
                w = displacement.size(4) - 1;
  // Row i of the Jacobian's columns: the change of the map along axis i.
  std::array<at::Tensor, 3> along;
  for (int64_t axis = 0; axis < 3; ++axis) {
    along[axis] = Differences(displacement, axis).slice(2, 0, d).slice(3, 0, h).slice(4, 0, w);
    along[axis] = along[axis].clone();
    along[axis].select(1, axis).add_(1);
  }
  const at::Tensor determinant = (along[0] * at::cross(along[1], along[2], 1)).sum(1);
  return 100 * (determinant <= 0).to(at::kDouble).mean().item<double>();
}

at::Tensor OfficialCorrelationLoss(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor sum_a = OfficialBoxSum(a), sum_b = OfficialBoxSum(b);
  const at::Tensor cross = OfficialBoxSum(a * b) - sum_a * sum_b / kOfficialVoxels;
  const at::Tensor variance_a = OfficialBoxSum(a * a) - sum_a * sum_a / kOfficialVoxels;
  const at::Tensor variance_b = OfficialBoxSum(b * b) - sum_b * sum_b / kOfficialVoxels;
  return 1 - at::mean(cross * cross / (variance_a * variance_b + kOfficialEpsilon));
}

at::Tensor OfficialSmoothnessLoss(const at::Tensor& flow) {
  at::Tensor sum;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const at::Tensor step = Differences(flow, axis);
    const at::Tensor term = at::mean(step * step);
    sum = axis == 0 ? term : sum + term;
  }
  return sum / 3;
}

}  // namespace gvsl
