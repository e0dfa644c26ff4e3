// Similarity of a fixed image and a moving one read at given points, with its gradient in the
// points: what instance optimisation climbs. Plain CPU kernels whose gradients are written out; no
// LibTorch.
#ifndef GVSL_MODEL_REGISTRATION_METRIC_H_
#define GVSL_MODEL_REGISTRATION_METRIC_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "imaging/volume.h"

namespace gvsl {

// Images of one or more channels on a lattice, and which of its voxels count.
struct LevelImage {
  Grid grid;
  int64_t channels = 1;
  std::vector<float> values;     // [slice][row][column][channel]
  std::vector<uint8_t> counted;  // [slice][row][column], 0 or 1
};

// Where each voxel of the fixed lattice lies in the moving one: indices (column, row, slice), one
// array an axis.
using Points = std::array<std::vector<float>, 3>;

// The eight voxels around a point.
struct SampleCell {
  int64_t base = 0;            // its lowest voxel
  float upper[3] = {0, 0, 0};  // share of the upper voxel along each axis
};
// False where one of the eight voxels around the point would lie outside (NaN: false).
inline bool FindSampleCell(const std::array<int64_t, 3>& size, float x, float y, float z,
                           SampleCell& cell) {
  const auto fits = [](float at, int64_t side) {
    return at >= 0 && at <= static_cast<float>(side - 1);
  };
  if (!fits(x, size[0]) || !fits(y, size[1]) || !fits(z, size[2])) return false;
  const float at[3] = {x, y, z};
  const int64_t stride[3] = {1, size[0], size[0] * size[1]};
  cell.base = 0;
  for (int i = 0; i < 3; ++i) {
    int64_t low = static_cast<int64_t>(at[i]);
    if (low > size[i] - 2) low = size[i] - 2;
    cell.base += low * stride[i];
    cell.upper[i] = at[i] - static_cast<float>(low);
  }
  return true;
}

// Of each cell of a lattice, by its lowest voxel: 1 where all eight voxels count.
std::vector<uint8_t> CountedCells(const LevelImage& image);

// Not thread-safe. Both images must outlive it.
class Metric {
 public:
  virtual ~Metric() = default;
  // The similarity in 0..1 over the voxels that both images count at `points`, 0 where there are
  // none. Adds `weight` times its gradient to `gradient` (by index, like the points).
  virtual double Evaluate(const Points& points, double weight, Points& gradient) = 0;
};

// Squared local correlation, as LocalCorrelation of model/losses.h has it, over windows of 9^3
// voxels. Of images of one channel.
std::unique_ptr<Metric> MakeLocalCorrelationMetric(const LevelImage& fixed,
                                                   const LevelImage& moving);
// 1 - the mean squared difference of the channels. Of descriptors in 0..1 with equal channels.
std::unique_ptr<Metric> MakeDescriptorMetric(const LevelImage& fixed, const LevelImage& moving);

}  // namespace gvsl

#endif  // GVSL_MODEL_REGISTRATION_METRIC_H_
