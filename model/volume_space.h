// Dense features from the model's grid onto the volume's own, slice by slice. No LibTorch.
#ifndef GVSL_MODEL_VOLUME_SPACE_H_
#define GVSL_MODEL_VOLUME_SPACE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "imaging/volume.h"
#include "model/extractor.h"

namespace gvsl {

// The axes of the two grids are parallel (ModelGrid), so every axis is interpolated by itself:
// linearly, clamped to the model grid's border.
class VolumeSpace {
 public:
  // Slices of `target`, a part of the volume's grid with stride applied.
  VolumeSpace(const Grid& model_grid, const Grid& target, int64_t channels);

  // The model's axis that the target's slices lie across, and whether it runs against them.
  int sweep_axis() const { return source_axis_[2]; }
  bool descending() const { return descending_; }
  // The part of the model's grid that the target needs.
  const std::array<int64_t, 3>& region_begin() const { return region_begin_; }
  const std::array<int64_t, 3>& region_end() const { return region_end_; }

  // That OnPlane holds: two planes of the region, and a slice.
  int64_t Bytes() const;

  // Takes the sweep's next plane and gives the sink every slice that is complete with it.
  absl::Status OnPlane(int64_t plane, const float* values, DenseSink& sink);

 private:
  struct Tap {
    int64_t low, high;  // model indices; equal at the border
    float fraction;     // of `high`
  };
  int64_t PlaneValues() const;
  int64_t SliceValues() const;
  void Interpolate(const Tap& tap, std::vector<float>& out) const;

  std::array<int, 3> source_axis_;  // model axis along each target axis
  std::array<std::vector<Tap>, 3> taps_;
  std::array<int64_t, 3> region_begin_, region_end_;
  bool descending_ = false;
  int64_t channels_;
  std::array<int64_t, 2> held_plane_ = {-1, -1};  // the last two planes of the sweep
  std::array<std::vector<float>, 2> held_;
  int64_t next_slice_ = 0;
  std::vector<float> slice_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_VOLUME_SPACE_H_
