// Losses of GVSL pre-training as the released code computes them (He et al., CVPR 2023).
#ifndef GVSL_MODEL_LOSSES_H_
#define GVSL_MODEL_LOSSES_H_

#include <ATen/ATen.h>

namespace gvsl {

// 1 - mean of the squared local correlation over windows of 9^3 voxels, zeros outside (the form
// made common by VoxelMorph, Balakrishnan et al. 2019). `a`, `b` [N, 1, D, H, W]. The released code
// convolves with a dense 9^3 kernel; the box sums here are separable and equal to rounding.
at::Tensor LocalCorrelationLoss(const at::Tensor& a, const at::Tensor& b);

// Mean of the squared forward differences of `flow` [N, 3, D, H, W], averaged over the three axes.
at::Tensor SmoothnessLoss(const at::Tensor& flow);

}  // namespace gvsl

#endif  // GVSL_MODEL_LOSSES_H_
