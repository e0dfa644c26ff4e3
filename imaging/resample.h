// Volumes onto other grids: reorientation (exact) and resampling (linear or nearest), slab by slab.
#ifndef GVSL_IMAGING_RESAMPLE_H_
#define GVSL_IMAGING_RESAMPLE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "imaging/volume.h"

namespace gvsl {

// Axis codes of a direction in LPS letters: for columns, rows, slices the anatomical direction in
// which the index grows (nearest axis), e.g. "LPS" for the identity, "RAS" for nibabel's canonical
// one.
std::string OrientationOf(const Grid& grid);

// Permutation and flips that bring a grid to the nearest lattice with the given axis codes. Exact.
struct Reorientation {
  std::array<int, 3> source_axis = {0, 1, 2};  // axis i of the result is this axis of the source
  std::array<bool, 3> flipped = {false, false, false};
};
// INVALID_ARGUMENT unless `codes` has one letter of each pair L/R, P/A, S/I.
absl::StatusOr<Reorientation> ReorientationTo(const Grid& grid, const std::string& codes);
Grid ReorientedGrid(const Grid& grid, const Reorientation& reorientation);
absl::StatusOr<Volume> Reorient(const Volume& volume, const std::string& codes);

// The grid of a volume in a model's space: its own axes, permuted and flipped to `codes` (never
// rotated, so that no interpolation depends on how a file happens to store it), with `spacing_mm`,
// covering the same extent, centred: size = max(1, round(old size * old spacing / new spacing)). A
// volume stored in another orientation gives the same grid.
absl::StatusOr<Grid> ModelGrid(const Grid& grid, const std::string& codes, const Vec3& spacing_mm);

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

  const Grid& target() const;

  // Writes slices [z_begin, z_end) of the target, `[slice][row][column]` float32, into `out`. Uses
  // up to `threads` threads (0: all cores).
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

// Runs body(begin, end) over [0, count) on up to `threads` threads (0: all cores); returns when all
// is done.
void ParallelFor(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace gvsl

#endif  // GVSL_IMAGING_RESAMPLE_H_
