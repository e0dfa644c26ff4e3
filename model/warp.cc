#include "model/warp.h"

namespace gvsl {
namespace {

constexpr int64_t kTrilinear = 0;  // grid_sampler's code for "bilinear", which is trilinear in 3D
constexpr int64_t kZeros = 0;      // grid_sampler's code for zero padding

// [1, 3, 1, 1, 1] from the three sizes.
at::Tensor AsColumn(at::IntArrayRef size, const at::TensorOptions& options) {
  return at::tensor(size, at::kLong).to(options.device(), options.dtype()).view({1, 3, 1, 1, 1});
}

}  // namespace

at::Tensor VoxelGrid(at::IntArrayRef size, const at::TensorOptions& options) {
  const at::Tensor z = at::arange(size[0], options).view({-1, 1, 1}).expand(size);
  const at::Tensor y = at::arange(size[1], options).view({1, -1, 1}).expand(size);
  const at::Tensor x = at::arange(size[2], options).view({1, 1, -1}).expand(size);
  return at::stack({z, y, x}).unsqueeze(0);
}

at::Tensor OfficialFlowWarp(const at::Tensor& image, const at::Tensor& flow) {
  const at::IntArrayRef size = image.sizes().slice(2);
  const at::Tensor points = VoxelGrid(size, flow.options()) + flow;
  const at::Tensor normalised = 2 * (points / (AsColumn(size, flow.options()) - 1) - 0.5);
  const at::Tensor grid = normalised.permute({0, 2, 3, 4, 1}).flip(4);  // (x, y, z) last
  return at::grid_sampler(image, grid, kTrilinear, kZeros, /*align_corners=*/false);
}

at::Tensor OfficialAffineWarp(const at::Tensor& image, const at::Tensor& matrix) {
  const at::Tensor divisor =
      at::tensor(image.sizes().slice(2), at::kLong).to(matrix.device(), matrix.scalar_type());
  const at::Tensor scaled =
      at::cat({matrix.slice(2, 0, 3), matrix.slice(2, 3, 4) / divisor.view({1, 3, 1})}, 2);
  const at::Tensor grid = at::affine_grid_generator(scaled, image.sizes(), /*align_corners=*/false);
  return at::grid_sampler(image, grid, kTrilinear, kZeros, /*align_corners=*/false);
}

at::Tensor TransformPoints(const at::Tensor& points, const at::Tensor& matrix,
                           at::IntArrayRef size) {
  // The displacement (M - I)(p - c) + t is added to the point, so that the identity adds exact
  // zeros.
  const at::Tensor centre = (AsColumn(size, points.options()) - 1) / 2;
  const at::Tensor from_centre = (points - centre).flip(1).flatten(2);  // x, y, z
  const at::Tensor change = matrix.slice(2, 0, 3) - at::eye(3, matrix.options());
  const at::Tensor displacement = change.matmul(from_centre) + matrix.slice(2, 3, 4);
  std::vector<int64_t> shape = points.sizes().vec();
  shape[0] = displacement.size(0);
  return points + displacement.view(shape).flip(1);
}

at::Tensor SampleAt(const at::Tensor& image, const at::Tensor& points) {
  const int64_t batch = image.size(0), channels = image.size(1);
  const at::IntArrayRef size = image.sizes().slice(2);
  const at::Tensor below = at::floor(points.detach());
  const at::Tensor upper_weight = points - below;
  const at::Tensor flat = image.flatten(2);
  at::Tensor sum;
  for (int corner = 0; corner < 8; ++corner) {
    at::Tensor index, weight, inside;
    for (int64_t axis = 0; axis < 3; ++axis) {
      const int64_t step = (corner >> axis) & 1, length = size[axis];
      const at::Tensor at_axis = below.select(1, axis) + step;
      const at::Tensor upper = upper_weight.select(1, axis);
      const at::Tensor weight_here = step == 1 ? upper : 1 - upper;
      const at::Tensor inside_here = (at_axis >= 0).logical_and(at_axis <= length - 1);
      const at::Tensor index_here = at_axis.clamp(0, length - 1).to(at::kLong);
      index = axis == 0 ? index_here : index * length + index_here;
      weight = axis == 0 ? weight_here : weight * weight_here;
      inside = axis == 0 ? inside_here : inside.logical_and(inside_here);
    }
    const at::Tensor where = index.flatten(1).unsqueeze(1).expand({batch, channels, -1});
    const at::Tensor share = (weight * inside).flatten(1).unsqueeze(1);
    const at::Tensor term = flat.gather(2, where) * share;
    sum = corner == 0 ? term : sum + term;
  }
  std::vector<int64_t> shape = points.sizes().vec();
  shape[1] = channels;
  return sum.view(shape);
}

}  // namespace gvsl
