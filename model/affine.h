// The affine head's numbers as a matrix; the two geometries (docs/architecture.md, "Geometry,
// decided once") differ in how model/warp.h applies it.
#ifndef GVSL_MODEL_AFFINE_H_
#define GVSL_MODEL_AFFINE_H_

#include <ATen/ATen.h>

namespace gvsl {

// [N, 3, 4] = [Shear * Scale * Rz * Ry * Rx | translation] in (x, y, z), differentiable and
// batched.
//   rotation    [N, 3]  about x, y, z; clamped to +-1, times 20 degrees
//   scale       [N, 3]  clamped to +-1, times 0.25, plus 1
//   translation [N, 3]  as it is (mm; the official sampler divides it, see OfficialAffineWarp)
//   shear       [N, 6]  xy, xz, yx, yz, zx, zy; clamped to +-1, times 10 degrees, tangent taken
at::Tensor AffineMatrix(const at::Tensor& rotation, const at::Tensor& scale,
                        const at::Tensor& translation, const at::Tensor& shear);

}  // namespace gvsl

#endif  // GVSL_MODEL_AFFINE_H_
