#include "model/affine.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace gvsl {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kLargestRotation = kPi / 9;  // 20 degrees
constexpr double kLargestShear = kPi / 18;    // 10 degrees
constexpr double kLargestScaleChange = 0.25;

// [N, 3, 3] from nine [N] entries, row by row.
at::Tensor Matrix(const std::vector<at::Tensor>& entries) {
  return at::stack(entries, 1).view({-1, 3, 3});
}

}  // namespace

at::Tensor AffineMatrix(const at::Tensor& rotation, const at::Tensor& scale,
                        const at::Tensor& translation, const at::Tensor& shear) {
  // Products of half precision would misplace voxels.
  const c10::impl::ExcludeDispatchKeyGuard exact(c10::DispatchKey::AutocastCUDA);
  const at::Tensor angle = rotation.clamp(-1, 1) * kLargestRotation;
  const at::Tensor factor = scale.clamp(-1, 1) * kLargestScaleChange + 1;
  const at::Tensor slope = at::tan(shear.clamp(-1, 1) * kLargestShear);
  const at::Tensor cosine = at::cos(angle), sine = at::sin(angle);
  const at::Tensor one = at::ones_like(angle.select(1, 0)), zero = at::zeros_like(one);
  const auto c = [&](int64_t axis) { return cosine.select(1, axis); };
  const auto s = [&](int64_t axis) { return sine.select(1, axis); };
  const auto h = [&](int64_t entry) { return slope.select(1, entry); };

  const at::Tensor about_x = Matrix({one, zero, zero, zero, c(0), -s(0), zero, s(0), c(0)});
  const at::Tensor about_y = Matrix({c(1), zero, s(1), zero, one, zero, -s(1), zero, c(1)});
  const at::Tensor about_z = Matrix({c(2), -s(2), zero, s(2), c(2), zero, zero, zero, one});
  const at::Tensor shearing = Matrix({one, h(0), h(1), h(2), one, h(3), h(4), h(5), one});
  const at::Tensor linear =
      shearing.matmul(at::diag_embed(factor)).matmul(about_z).matmul(about_y).matmul(about_x);
  return at::cat({linear, translation.unsqueeze(2)}, 2);
}

}  // namespace gvsl
