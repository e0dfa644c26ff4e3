#include "model/warp.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

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

at::Tensor TransformPoints(const at::Tensor& points, const at::Tensor& matrix, at::IntArrayRef size,
                           const std::array<double, 3>& spacing_mm) {
  // Half precision would misplace voxels.
  const c10::impl::ExcludeDispatchKeyGuard exact(c10::DispatchKey::AutocastCUDA);
  // The displacement (M - I)(p - c) + t is added to the point, so that the identity adds exact
  // zeros.
  const at::Tensor centre = (AsColumn(size, points.options()) - 1) / 2;
  const at::Tensor spacing =
      at::tensor(spacing_mm, at::kDouble).to(points.device(), points.dtype()).view({1, 3, 1, 1, 1});
  const at::Tensor from_centre = ((points - centre) * spacing).flip(1).flatten(2);  // x, y, z in mm
  const at::Tensor change = matrix.slice(2, 0, 3) - at::eye(3, matrix.options());
  // cuBLAS takes 20 ms for the gradient of the product, a matrix of 3 x 3 over the voxels of 128^3.
  const at::Tensor product = points.is_cuda()
                                 ? (change.unsqueeze(3) * from_centre.unsqueeze(1)).sum(2)
                                 : change.matmul(from_centre);
  const at::Tensor displacement = product + matrix.slice(2, 3, 4);
  std::vector<int64_t> shape = points.sizes().vec();
  shape[0] = displacement.size(0);
  return points + displacement.view(shape).flip(1) / spacing;
}

}  // namespace gvsl
