#include <algorithm>
#include <numeric>

#include "imaging/parallel.h"
#include "model/registration_metric.h"

namespace gvsl {
namespace {

class DescriptorMetric : public Metric {
 public:
  DescriptorMetric(const LevelImage& fixed, const LevelImage& moving)
      : fixed_(fixed), moving_(moving), cells_(CountedCells(moving)) {
    per_slice_.resize(static_cast<size_t>(fixed.grid.size[2]));
  }

  double Evaluate(const Points& points, double weight, Points& gradient) override {
    const auto& size = fixed_.grid.size;
    const int64_t plane = size[0] * size[1];
    // How many voxels count decides the gradient's scale; it is that of the step before, and of a
    // first pass at the first step.
    if (count_ == 0) count_ = CountOf(points);
    if (count_ == 0) return 0;
    const float scale =
        static_cast<float>(weight / (count_ * static_cast<double>(fixed_.channels)));
    ParallelFor(size[2], 0, [&](int64_t begin, int64_t end) {
      for (int64_t z = begin; z < end; ++z) {
        per_slice_[z] = {0, 0};
        for (int64_t i = z * plane; i < (z + 1) * plane; ++i) OneVoxel(points, i, scale, gradient);
      }
    });
    double squares = 0;
    count_ = 0;
    for (const auto& [sum, count] : per_slice_) {
      squares += sum;
      count_ += count;
    }
    return count_ == 0 ? 0 : 1 - squares / (count_ * static_cast<double>(fixed_.channels));
  }

 private:
  bool Find(const Points& points, int64_t i, SampleCell& cell) const {
    return fixed_.counted[i] != 0 &&
           FindSampleCell(moving_.grid.size, points[0][i], points[1][i], points[2][i], cell) &&
           cells_[cell.base] != 0;
  }

  double CountOf(const Points& points) const {
    double count = 0;
    SampleCell cell;
    for (int64_t i = 0; i < fixed_.grid.voxel_count(); ++i) count += Find(points, i, cell) ? 1 : 0;
    return count;
  }

  void OneVoxel(const Points& points, int64_t i, float scale, Points& gradient) {
    SampleCell cell;
    if (!Find(points, i, cell)) return;
    const int64_t channels = fixed_.channels;
    const int64_t sx = channels, sy = channels * moving_.grid.size[0],
                  sz = sy * moving_.grid.size[1];
    const float* a = fixed_.values.data() + i * channels;
    const float* v = moving_.values.data() + cell.base * channels;
    const float x = cell.upper[0], y = cell.upper[1], w = cell.upper[2];
    float square = 0, gx = 0, gy = 0, gz = 0;
    for (int64_t c = 0; c < channels; ++c, ++v) {
      const float x00 = v[sx] - v[0], x10 = v[sy + sx] - v[sy], x01 = v[sz + sx] - v[sz],
                  x11 = v[sz + sy + sx] - v[sz + sy];
      const float v00 = v[0] + x00 * x, v10 = v[sy] + x10 * x, v01 = v[sz] + x01 * x,
                  v11 = v[sz + sy] + x11 * x;
      const float y0 = v10 - v00, y1 = v11 - v01;
      const float low = v00 + y0 * y, high = v01 + y1 * y;
      const float dx0 = x00 + (x10 - x00) * y, dx1 = x01 + (x11 - x01) * y;
      const float difference = low + (high - low) * w - a[c];
      square += difference * difference;
      gx += difference * (dx0 + (dx1 - dx0) * w);
      gy += difference * (y0 + (y1 - y0) * w);
      gz += difference * (high - low);
    }
    auto& [sum, count] = per_slice_[i / (fixed_.grid.size[0] * fixed_.grid.size[1])];
    sum += square;
    ++count;
    gradient[0][i] -= 2 * scale * gx;
    gradient[1][i] -= 2 * scale * gy;
    gradient[2][i] -= 2 * scale * gz;
  }

  const LevelImage& fixed_;
  const LevelImage& moving_;
  const std::vector<uint8_t> cells_;
  double count_ = 0;
  std::vector<std::array<double, 2>> per_slice_;  // squares, voxels
};

}  // namespace

std::unique_ptr<Metric> MakeDescriptorMetric(const LevelImage& fixed, const LevelImage& moving) {
  return std::make_unique<DescriptorMetric>(fixed, moving);
}

}  // namespace gvsl
