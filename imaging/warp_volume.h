// Applying a SpatialMap: volumes, label maps and points carried from one space into another. The
// image is interpolated once, whatever the map is made of. No LibTorch.
#ifndef GVSL_IMAGING_WARP_VOLUME_H_
#define GVSL_IMAGING_WARP_VOLUME_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "imaging/spatial_map.h"
#include "imaging/volume.h"

namespace gvsl {

enum class LabelRule {
  kNearest,   // the label of the nearest voxel
  kMajority,  // the label with the greatest linear weight among the eight voxels around; the lower
              // of two equal ones
};

// Reads a moving volume on any grid of fixed space, any slices at a time: memory is the part asked
// for. A point is inside where it lies at most half a voxel beyond the outermost voxel centres,
// where the border clamps. Both arguments must outlive it. Thread-safe: const.
class Warper {
 public:
  Warper(const Volume& moving, const SpatialMap& fixed_to_moving, const Grid& target);

  // Slices [z_begin, z_end) of the target, `[slice][row][column]`: linear, `outside` beyond.
  void Linear(int64_t z_begin, int64_t z_end, float outside, float* out) const;
  // The same of labels; 0 outside.
  void Labels(int64_t z_begin, int64_t z_end, LabelRule rule, int32_t* out) const;

 private:
  template <typename Visit>
  void ForEachVoxel(int64_t z_begin, int64_t z_end, const Visit& visit) const;

  const Volume& moving_;
  const SpatialMap& fixed_to_moving_;
  const Grid target_;
};

// Receives voxels of the moving volume's type, slab after slab. A status that is not OK ends the
// work.
using SlabFunction = std::function<absl::Status(const uint8_t* bytes, size_t count)>;
// The whole of it, on `target` (usually the fixed volume's grid). An image keeps its type (integers
// are rounded and saturated), and so do labels, for which `rule` holds and `outside` is 0. Memory
// is a slab of a few slices.
absl::Status WarpSlabs(const Volume& moving, const SpatialMap& fixed_to_moving, const Grid& target,
                       LabelRule rule, float outside, const SlabFunction& slab);

// The same in memory. INVALID_ARGUMENT for a bad grid, RESOURCE_EXHAUSTED without memory.
absl::StatusOr<Volume> WarpVolume(const Volume& moving, const SpatialMap& fixed_to_moving,
                                  const Grid& target, LabelRule rule = LabelRule::kNearest,
                                  float outside = 0);

// Points of fixed space in moving space, LPS mm.
std::vector<Vec3> MapPoints(const SpatialMap& fixed_to_moving, const std::vector<Vec3>& points_mm);

// Of each point of fixed space: the correlation, -1 to 1, of both images' intensities in the 9^3
// voxels of the fixed one around it. Nothing where fewer than 27 of them are shown by both, or one
// image is constant there.
std::vector<std::optional<double>> SimilarityAt(const Volume& fixed, const Volume& moving,
                                                const SpatialMap& fixed_to_moving,
                                                const std::vector<Vec3>& points_mm);

}  // namespace gvsl

#endif  // GVSL_IMAGING_WARP_VOLUME_H_
