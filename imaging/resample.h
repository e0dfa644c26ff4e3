// Volumes onto other grids: resampling (linear or nearest), slab by slab.
#ifndef GVSL_IMAGING_RESAMPLE_H_
#define GVSL_IMAGING_RESAMPLE_H_

#include <cstdint>
#include <memory>

#include "imaging/volume.h"

namespace gvsl {

enum class Interpolation { kLinear, kNearest };

// Resamples one volume onto one grid, any part at a time: memory is the part plus a few source
// slices. The grids may be rotated against each other. Linear interpolation in float32; where the
// target is coarser than the source by more than 1.05 along an axis, the source is first low-passed
// along that axis (Gaussian, sigma = 0.5 * sqrt(ratio^2 - 1) source voxels, cut at 3 sigma,
// renormalised at the border) so that nothing aliases. Grids whose axes are parallel (ModelGrid)
// take a separable path whose result is bit-equal for a source stored in another orientation.
// Outside the source by more than half a voxel: `outside`. Borders clamp within that half voxel.
// The volume must outlive the resampler. Thread-safe: const.
class Resampler {
 public:
  Resampler(const Volume& volume, const Grid& target, Interpolation interpolation, float outside);
  ~Resampler();
  Resampler(const Resampler&) = delete;
  Resampler& operator=(const Resampler&) = delete;

  // Writes slices [z_begin, z_end) of the target, `[slice][row][column]` float32, into `out`. Uses
  // up to `threads` threads (as ParallelFor).
  void Slices(int64_t z_begin, int64_t z_end, float* out, int threads = 0) const;
  // As Slices, for a resampler of labels made with kNearest: float32 does not hold every int32.
  void Labels(int64_t z_begin, int64_t z_end, int32_t* out, int threads = 0) const;

 private:
  friend absl::StatusOr<Volume> Resample(const Volume& volume, const Grid& target,
                                         Interpolation interpolation, VoxelType type,
                                         float outside);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The whole of it, in `type` (rounded and saturated for integers). LABELS always use kNearest.
absl::StatusOr<Volume> Resample(const Volume& volume, const Grid& target,
                                Interpolation interpolation, VoxelType type, float outside = 0);

// Cropping and padding: the volume on a grid that is the same lattice shifted by whole voxels.
// `begin` may be negative and `size` may exceed the volume; new voxels get `outside`.
absl::StatusOr<Volume> CropOrPad(const Volume& volume, const std::array<int64_t, 3>& begin,
                                 const std::array<int64_t, 3>& size, double outside = 0);

}  // namespace gvsl

#endif  // GVSL_IMAGING_RESAMPLE_H_
