#include "model/volume_space.h"

#include <algorithm>
#include <cmath>

#include "imaging/parallel.h"

namespace gvsl {

VolumeSpace::VolumeSpace(const Grid& model_grid, const Grid& target, int64_t channels)
    : channels_(channels) {
  const Vec3 first = model_grid.PhysicalToIndex(target.origin_mm);
  for (int i = 0; i < 3; ++i) {
    // The model axis along target axis i: the one with the greatest cosine.
    int axis = 0;
    double cosine = 0;
    for (int j = 0; j < 3; ++j) {
      double dot = 0;
      for (int r = 0; r < 3; ++r) dot += target.direction[r][i] * model_grid.direction[r][j];
      if (std::abs(dot) > std::abs(cosine)) {
        axis = j;
        cosine = dot;
      }
    }
    source_axis_[i] = axis;
    if (i == 2) descending_ = cosine < 0;
    const double step = (cosine < 0 ? -1 : 1) * target.spacing_mm[i] / model_grid.spacing_mm[axis];
    const double last = static_cast<double>(model_grid.size[axis] - 1);
    region_begin_[axis] = model_grid.size[axis];
    region_end_[axis] = 0;
    for (int64_t n = 0; n < target.size[i]; ++n) {
      const double at = std::clamp(first[axis] + step * static_cast<double>(n), 0.0, last);
      Tap tap;
      tap.low = static_cast<int64_t>(std::floor(at));
      tap.high = std::min(tap.low + 1, model_grid.size[axis] - 1);
      tap.fraction = static_cast<float>(at - static_cast<double>(tap.low));
      region_begin_[axis] = std::min(region_begin_[axis], tap.low);
      region_end_[axis] = std::max(region_end_[axis], tap.high + 1);
      taps_[i].push_back(tap);
    }
  }
}

int64_t VolumeSpace::PlaneValues() const {
  const int u = sweep_axis() == 2 ? 1 : 2, v = sweep_axis() == 0 ? 1 : 0;
  return channels_ * (region_end_[u] - region_begin_[u]) * (region_end_[v] - region_begin_[v]);
}

int64_t VolumeSpace::SliceValues() const {
  return channels_ * static_cast<int64_t>(taps_[0].size() * taps_[1].size());
}

int64_t VolumeSpace::Bytes() const {
  return (2 * PlaneValues() + SliceValues()) * static_cast<int64_t>(sizeof(float));
}

absl::Status VolumeSpace::OnPlane(int64_t plane, const float* values, DenseSink& sink) {
  slice_.resize(static_cast<size_t>(SliceValues()));
  std::swap(held_[0], held_[1]);
  held_plane_[0] = held_plane_[1];
  held_[1].assign(values, values + PlaneValues());
  held_plane_[1] = plane;
  while (next_slice_ < static_cast<int64_t>(taps_[2].size())) {
    const Tap& tap = taps_[2][static_cast<size_t>(next_slice_)];
    const int64_t later = descending_ ? tap.low : tap.high;
    if (descending_ ? later < plane : later > plane) break;
    Interpolate(tap, slice_);
    if (absl::Status status = sink.Slice(next_slice_, slice_.data()); !status.ok()) return status;
    ++next_slice_;
  }
  return absl::OkStatus();
}

void VolumeSpace::Interpolate(const Tap& tap, std::vector<float>& out) const {
  const auto plane = [this](int64_t index) {
    return held_[held_plane_[1] == index ? 1 : 0].data();
  };
  const float* low = plane(tap.low);
  const float* high = plane(tap.high);
  const int u = sweep_axis() == 2 ? 1 : 2, v = sweep_axis() == 0 ? 1 : 0;
  const int64_t columns = region_end_[v] - region_begin_[v];
  const int64_t plane_size = columns * (region_end_[u] - region_begin_[u]);
  // Elements from one model index to the next along the target's columns and rows.
  const int64_t step_x = source_axis_[0] == v ? 1 : columns,
                step_y = source_axis_[1] == v ? 1 : columns;
  const int64_t begin_x = region_begin_[source_axis_[0]], begin_y = region_begin_[source_axis_[1]];
  const int64_t width = static_cast<int64_t>(taps_[0].size()),
                height = static_cast<int64_t>(taps_[1].size());
  ParallelFor(channels_ * height, 0, [&](int64_t from, int64_t to) {
    for (int64_t item = from; item < to; ++item) {
      const Tap& ty = taps_[1][static_cast<size_t>(item % height)];
      const int64_t base = item / height * plane_size;
      const int64_t y0 = base + (ty.low - begin_y) * step_y,
                    y1 = base + (ty.high - begin_y) * step_y;
      float* row = out.data() + item * width;
      for (int64_t x = 0; x < width; ++x) {
        const Tap& tx = taps_[0][static_cast<size_t>(x)];
        const int64_t x0 = (tx.low - begin_x) * step_x, x1 = (tx.high - begin_x) * step_x;
        const auto bilinear = [&](const float* p) {
          const float top = p[y0 + x0] + tx.fraction * (p[y0 + x1] - p[y0 + x0]);
          const float bottom = p[y1 + x0] + tx.fraction * (p[y1 + x1] - p[y1 + x0]);
          return top + ty.fraction * (bottom - top);
        };
        const float near = bilinear(low);
        row[x] = low == high ? near : near + tap.fraction * (bilinear(high) - near);
      }
    }
  });
}

}  // namespace gvsl
