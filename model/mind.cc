#include "model/mind.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "imaging/parallel.h"

namespace gvsl {
namespace {

constexpr int kChannels = 12;
constexpr int64_t kDistance = 2;  // voxels from the centre to a neighbour

// The six neighbours, (column, row, slice).
constexpr int64_t kNeighbours[6][3] = {{-1, 0, 0}, {1, 0, 0},  {0, -1, 0},
                                       {0, 1, 0},  {0, 0, -1}, {0, 0, 1}};

// Mean over three values along an axis, the border repeated; `values` in place.
void Mean3(std::vector<float>& values, const std::array<int64_t, 3>& size, int axis) {
  const int64_t strides[3] = {1, size[0], size[0] * size[1]};
  const int64_t stride = strides[axis], count = size[axis];
  const auto lines = static_cast<int64_t>(values.size()) / count;
  ParallelFor(lines, 0, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      float* at = values.data() + line / stride * stride * count + line % stride;
      float before = at[0];
      for (int64_t i = 0; i < count; ++i) {
        const float here = at[i * stride];
        const float after = at[std::min(i + 1, count - 1) * stride];
        at[i * stride] = (before + here + after) / 3;
        before = here;
      }
    }
  });
}

}  // namespace

LevelImage MindDescriptors(const LevelImage& image) {
  const auto& size = image.grid.size;
  const int64_t voxels = image.grid.voxel_count();
  LevelImage result;
  result.grid = image.grid;
  result.channels = kChannels;
  result.counted = image.counted;
  result.values.resize(static_cast<size_t>(voxels * kChannels));
  const auto value = [&](int64_t x, int64_t y, int64_t z, const int64_t(&step)[3]) {
    x = std::clamp<int64_t>(x + kDistance * step[0], 0, size[0] - 1);
    y = std::clamp<int64_t>(y + kDistance * step[1], 0, size[1] - 1);
    z = std::clamp<int64_t>(z + kDistance * step[2], 0, size[2] - 1);
    return image.values[(z * size[1] + y) * size[0] + x];
  };
  std::vector<float> distance(static_cast<size_t>(voxels));
  int channel = 0;
  for (int first = 0; first < 6; ++first) {
    for (int second = first + 1; second < 6; ++second) {
      if (first / 2 == second / 2) continue;  // opposite ones are further apart
      ParallelFor(size[2] * size[1], 0, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          for (int64_t x = 0; x < size[0]; ++x) {
            const float difference = value(x, row % size[1], row / size[1], kNeighbours[first]) -
                                     value(x, row % size[1], row / size[1], kNeighbours[second]);
            distance[row * size[0] + x] = difference * difference;
          }
        }
      });
      for (int axis = 0; axis < 3; ++axis) Mean3(distance, size, axis);
      for (int64_t i = 0; i < voxels; ++i) result.values[i * kChannels + channel] = distance[i];
      ++channel;
    }
  }
  double mean = 0;
  for (float d : result.values) mean += d;
  mean = std::max(mean / static_cast<double>(result.values.size()), 1e-12);
  ParallelFor(voxels, 0, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* d = result.values.data() + i * kChannels;
      float variance = 0;
      const float least = *std::min_element(d, d + kChannels);
      for (int c = 0; c < kChannels; ++c) {
        d[c] -= least;
        variance += d[c] / kChannels;
      }
      variance =
          std::clamp(variance, static_cast<float>(mean * 1e-3), static_cast<float>(mean * 1e3));
      for (int c = 0; c < kChannels; ++c) d[c] = std::exp(-d[c] / variance);
    }
  });
  return result;
}

}  // namespace gvsl
