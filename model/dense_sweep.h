// Blends the windows of a sliding-window pass into whole planes, one slab at a time. No LibTorch.
#ifndef GVSL_MODEL_DENSE_SWEEP_H_
#define GVSL_MODEL_DENSE_SWEEP_H_

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/sliding_window.h"

namespace gvsl {

using Index3 = std::array<int64_t, 3>;  // column, row, slice

// Dense features of windows that start at the given voxels: [n][channel][slice][row][column], valid
// until the next call.
using WindowPass = std::function<absl::StatusOr<const float*>(const std::vector<Index3>& starts)>;

// Receives the finished planes in order. `values` is [channel][u][v]: u and v are the axes other
// than the sweep's, the higher one first, over the region.
using PlaneFunction = std::function<absl::Status(int64_t plane, const float* values)>;

struct DenseSweep {
  std::array<WindowAxis, 3> windows;
  Index3 region_begin;
  Index3 region_end;
  int axis = 2;             // planes lie across this axis
  bool descending = false;  // from the region's last plane to its first
  int64_t channels = 0;
  int64_t batch = 1;  // windows a pass

  // Bytes of the slab that Run keeps.
  int64_t SlabBytes() const;

  // Every voxel of the region gets all windows that cover it, in the same order whatever the
  // region: a region equals the crop of the whole, bit for bit. Stops at the first status that is
  // not OK.
  absl::Status Run(const WindowPass& pass, const PlaneFunction& on_plane) const;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_DENSE_SWEEP_H_
