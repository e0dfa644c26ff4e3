#include "model/dense_sweep.h"

#include <algorithm>

#include "imaging/parallel.h"

namespace gvsl {
namespace {

// Windows of one axis that touch [begin, end).
std::vector<int64_t> Touching(const WindowAxis& axis, int64_t begin, int64_t end) {
  std::vector<int64_t> windows;
  for (int64_t k = 0; k < axis.count(); ++k) {
    if (axis.begin(k) < end && axis.end(k) > begin) windows.push_back(k);
  }
  return windows;
}

// The planes under accumulation: [plane][channel][u][v], planes from `first` on.
struct Slab {
  int64_t first = 0;
  int64_t planes = 0;
  int64_t plane_size = 0;
  std::vector<float> values;
};

// Adds one window's features, weighted, to the planes of the slab.
void Accumulate(const DenseSweep& sweep, const Index3& window, const float* dense, Slab& slab) {
  const int a = sweep.axis, u = a == 2 ? 1 : 2, v = a == 0 ? 1 : 0;
  Index3 begin, end, start, side;
  for (int i = 0; i < 3; ++i) {
    const WindowAxis& axis = sweep.windows[i];
    begin[i] = std::max(axis.begin(window[i]), sweep.region_begin[i]);
    end[i] = std::min(axis.end(window[i]), sweep.region_end[i]);
    start[i] = axis.start(window[i]);
    side[i] = axis.side();
  }
  const Index3 strides = {1, side[0], side[0] * side[1]};
  const int64_t rows = sweep.region_end[u] - sweep.region_begin[u];
  const int64_t columns = sweep.region_end[v] - sweep.region_begin[v];
  std::vector<float> column_weights(static_cast<size_t>(end[v] - begin[v]));
  for (int64_t i = begin[v]; i < end[v]; ++i) {
    column_weights[static_cast<size_t>(i - begin[v])] = sweep.windows[v].weight(window[v], i);
  }
  const int64_t planes = end[a] - begin[a];
  ParallelFor(planes * sweep.channels, 0, [&](int64_t from, int64_t to) {
    for (int64_t item = from; item < to; ++item) {
      const int64_t plane = begin[a] + item / sweep.channels, channel = item % sweep.channels;
      const float plane_weight = sweep.windows[a].weight(window[a], plane);
      const float* in = dense + channel * strides[2] * side[2] + (plane - start[a]) * strides[a];
      float* out =
          slab.values.data() + (plane - slab.first) * slab.plane_size + channel * rows * columns;
      for (int64_t r = begin[u]; r < end[u]; ++r) {
        const float weight = plane_weight * sweep.windows[u].weight(window[u], r);
        const float* row = in + (r - start[u]) * strides[u] + (begin[v] - start[v]) * strides[v];
        float* target =
            out + (r - sweep.region_begin[u]) * columns + begin[v] - sweep.region_begin[v];
        for (size_t c = 0; c < column_weights.size(); ++c) {
          target[c] += weight * column_weights[c] * row[static_cast<int64_t>(c) * strides[v]];
        }
      }
    }
  });
}

}  // namespace

int64_t DenseSweep::SlabBytes() const {
  int64_t bytes = channels * static_cast<int64_t>(sizeof(float));
  for (int i = 0; i < 3; ++i) {
    const int64_t length = region_end[i] - region_begin[i];
    bytes *= i == axis ? std::min(length, windows[i].side()) : length;
  }
  return bytes;
}

absl::Status DenseSweep::Run(const WindowPass& pass, const PlaneFunction& on_plane) const {
  std::array<std::vector<int64_t>, 3> touching;
  for (int i = 0; i < 3; ++i) touching[i] = Touching(windows[i], region_begin[i], region_end[i]);
  std::vector<int64_t>& order = touching[axis];
  if (descending) std::reverse(order.begin(), order.end());
  const int u = axis == 2 ? 1 : 2, v = axis == 0 ? 1 : 0;

  Slab slab;
  slab.planes = std::min(region_end[axis] - region_begin[axis], windows[axis].side());
  slab.plane_size =
      channels * (region_end[u] - region_begin[u]) * (region_end[v] - region_begin[v]);
  slab.values.assign(static_cast<size_t>(slab.planes * slab.plane_size), 0);
  for (size_t n = 0; n < order.size(); ++n) {
    const int64_t k = order[n];
    const int64_t begin = std::max(windows[axis].begin(k), region_begin[axis]);
    const int64_t end = std::min(windows[axis].end(k), region_end[axis]);
    // Planes that no earlier window has touched start from zero; finished ones make room.
    const int64_t first = descending ? std::max(end - slab.planes, region_begin[axis]) : begin;
    const int64_t shift = first - slab.first;
    if (n > 0 && shift != 0) {
      const int64_t kept = std::max<int64_t>(slab.planes - std::abs(shift), 0) * slab.plane_size;
      float* values = slab.values.data();
      float* const stop = values + slab.values.size();
      if (shift > 0) {
        std::copy(stop - kept, stop, values);
        std::fill(values + kept, stop, 0.0f);
      } else {
        std::copy_backward(values, values + kept, stop);
        std::fill(values, stop - kept, 0.0f);
      }
    }
    slab.first = first;

    std::vector<Index3> indices, starts;
    const auto flush = [&]() -> absl::Status {
      if (starts.empty()) return absl::OkStatus();
      auto dense = pass(starts);
      if (!dense.ok()) return dense.status();
      const int64_t size = channels * windows[0].side() * windows[1].side() * windows[2].side();
      for (size_t i = 0; i < indices.size(); ++i) {
        Accumulate(*this, indices[i], *dense + static_cast<int64_t>(i) * size, slab);
      }
      indices.clear();
      starts.clear();
      return absl::OkStatus();
    };
    for (int64_t ku : touching[u]) {
      for (int64_t kv : touching[v]) {
        Index3 index;
        index[axis] = k;
        index[u] = ku;
        index[v] = kv;
        indices.push_back(index);
        starts.push_back(
            {windows[0].start(index[0]), windows[1].start(index[1]), windows[2].start(index[2])});
        if (static_cast<int64_t>(starts.size()) < batch) continue;
        if (absl::Status status = flush(); !status.ok()) return status;
      }
    }
    if (absl::Status status = flush(); !status.ok()) return status;

    // A plane is finished when no later window reaches it.
    const bool last = n + 1 == order.size();
    if (descending) {
      const int64_t stop =
          last ? begin : std::max(std::min(windows[axis].end(order[n + 1]), end), begin);
      for (int64_t plane = end; plane-- > stop;) {
        absl::Status status =
            on_plane(plane, slab.values.data() + (plane - slab.first) * slab.plane_size);
        if (!status.ok()) return status;
      }
    } else {
      const int64_t stop =
          last ? end : std::min(std::max(windows[axis].begin(order[n + 1]), begin), end);
      for (int64_t plane = begin; plane < stop; ++plane) {
        absl::Status status =
            on_plane(plane, slab.values.data() + (plane - slab.first) * slab.plane_size);
        if (!status.ok()) return status;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace gvsl
