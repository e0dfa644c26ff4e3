// Spatial transformers: the released code's, kept for parity, and ours. All pull back: the value at
// a voxel of the result is read where the transform sends that voxel, zero outside.
#ifndef GVSL_MODEL_WARP_H_
#define GVSL_MODEL_WARP_H_

#include <ATen/ATen.h>

#include <array>

namespace gvsl {

// The released code's flow sampler. `image` [N, C, D, H, W], `flow` [N, 3, D, H, W] in voxels (D,
// H, W). It normalises by N - 1 but samples with align_corners = false, so a zero flow reads i N /
// (N - 1) - 0.5 and is not the identity. Official weights were trained with it.
at::Tensor OfficialFlowWarp(const at::Tensor& image, const at::Tensor& flow);

// The released code's affine sampler. `matrix` [N, 3, 4] acts on normalised (x, y, z) coordinates;
// its translation rows x, y, z are divided by D, H, W.
at::Tensor OfficialAffineWarp(const at::Tensor& image, const at::Tensor& matrix);

// [1, 3, D, H, W]: the (z, y, x) index of every voxel.
at::Tensor VoxelGrid(at::IntArrayRef size, const at::TensorOptions& options);

// Sends `points` [N, 3, ...] (z, y, x in voxels) through `matrix` [N, 3, 4] (x, y, z in mm) about
// the centre of a volume of `size` (D, H, W) whose voxels are `spacing_mm` (z, y, x) apart:
// rotations stay rotations whatever the sizes and spacings. The identity matrix returns the points
// bit for bit.
at::Tensor TransformPoints(const at::Tensor& points, const at::Tensor& matrix, at::IntArrayRef size,
                           const std::array<double, 3>& spacing_mm = {1, 1, 1});

// Trilinear samples of `image` [N, C, D, H, W] at `points` [N or 1, 3, D', H', W'] (z, y, x in
// voxels), zero outside. Differentiable in both. On the CPU integer points return the voxels bit
// for bit, and sums do not depend on the number of threads; elsewhere LibTorch's own sampler rounds
// points to about 1e-7 of the side.
at::Tensor SampleAt(const at::Tensor& image, const at::Tensor& points);

}  // namespace gvsl

#endif  // GVSL_MODEL_WARP_H_
