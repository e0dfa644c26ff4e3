// Losses of GVSL pre-training (He et al., CVPR 2023): as the released code computes them, and ours
// for the corrected geometry.
#ifndef GVSL_MODEL_LOSSES_H_
#define GVSL_MODEL_LOSSES_H_

#include <ATen/ATen.h>

#include <array>

namespace gvsl {

enum class Correlation { kSquared, kSigned };

// Local correlation of `a` and `b` [N, 1, D, H, W], squared in 0..1 or signed in -1..1, over
// windows of `window`^3 voxels (odd), averaged over all voxels of a sample, then over samples;
// windows over the border count the voxels inside alone. Computed in float32 or above, and finite
// for any finite images: where one of them is flat (its deviation within the window far below
// 0.003) the correlation goes to 0. `inside` [N, 1, D, H, W], 0 or 1, where given: the voxels that
// count, in windows and average alike; no others influence the result. 0 where there are none.
at::Tensor LocalCorrelation(const at::Tensor& a, const at::Tensor& b, int64_t window = 9,
                            const at::Tensor& inside = {},
                            Correlation kind = Correlation::kSquared);

// Mean of the squared slopes (mm of displacement a mm of distance) of `displacement` [N, 3, D, H,
// W] in voxels (D, H, W); `spacing_mm` along D, H, W.
at::Tensor FieldSmoothness(const at::Tensor& displacement,
                           const std::array<double, 3>& spacing_mm = {1, 1, 1});

// Share of voxels in percent at which x -> x + displacement(x) folds: its Jacobian, from forward
// differences, is not positive. No gradient.
double FoldingPercent(const at::Tensor& displacement);

// 1 - mean of the squared local correlation over windows of 9^3 voxels, zeros outside, in the
// released code's form (VoxelMorph's, Balakrishnan et al. 2019), which cancels in low precision.
// The released code convolves with a dense 9^3 kernel; the box sums here are separable and equal to
// rounding.
at::Tensor OfficialCorrelationLoss(const at::Tensor& a, const at::Tensor& b);

// Mean of the squared forward differences of `flow` [N, 3, D, H, W], averaged over the three axes.
at::Tensor OfficialSmoothnessLoss(const at::Tensor& flow);

}  // namespace gvsl

#endif  // GVSL_MODEL_LOSSES_H_
