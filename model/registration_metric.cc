#include "model/registration_metric.h"

#include <algorithm>
#include <numeric>

#include "imaging/parallel.h"

namespace gvsl {
namespace {

constexpr int64_t kHalfWindow = 4;       // windows of 9^3 voxels
constexpr float kVarianceFloor = 1e-5f;  // as LocalCorrelation's

// Channels of the window sums. They lie together at a voxel, so that the running sums along every
// axis work on whole vectors.
enum Sum { kCount, kA, kAA, kB, kBB, kAB, kSums = 8 };
enum Slope { kSlopeB, kSlopeBB, kSlopeAB, kSlopes = 4 };

// out[i] = sum of in[i - half .. i + half], of `count` vectors of kChannels, `stride` vectors
// apart.
template <int kChannels>
void RunningSum(const float* in, int64_t count, int64_t stride, float* out) {
  float sum[kChannels] = {};
  const int64_t step = stride * kChannels;
  for (int64_t i = 0; i < std::min(kHalfWindow, count); ++i) {
    for (int c = 0; c < kChannels; ++c) sum[c] += in[i * step + c];
  }
  for (int64_t i = 0; i < count; ++i) {
    if (i + kHalfWindow < count) {
      const float* enters = in + (i + kHalfWindow) * step;
      for (int c = 0; c < kChannels; ++c) sum[c] += enters[c];
    }
    if (i > kHalfWindow) {
      const float* leaves = in + (i - kHalfWindow - 1) * step;
      for (int c = 0; c < kChannels; ++c) sum[c] -= leaves[c];
    }
    for (int c = 0; c < kChannels; ++c) out[i * step + c] = sum[c];
  }
}

// Window sums within a slice. `rows` is scratch of the slice's size; `slice` may be `out`.
template <int kChannels>
void SliceSum(const float* slice, int64_t width, int64_t height, float* rows, float* out) {
  for (int64_t y = 0; y < height; ++y) {
    RunningSum<kChannels>(slice + y * width * kChannels, width, 1, rows + y * width * kChannels);
  }
  // Along columns, whole rows at a time.
  const int64_t row = width * kChannels;
  std::vector<float> sum(static_cast<size_t>(row), 0.0f);
  for (int64_t y = 0; y < std::min(kHalfWindow, height); ++y) {
    for (int64_t i = 0; i < row; ++i) sum[i] += rows[y * row + i];
  }
  for (int64_t y = 0; y < height; ++y) {
    if (y + kHalfWindow < height) {
      const float* enters = rows + (y + kHalfWindow) * row;
      for (int64_t i = 0; i < row; ++i) sum[i] += enters[i];
    }
    if (y > kHalfWindow) {
      const float* leaves = rows + (y - kHalfWindow - 1) * row;
      for (int64_t i = 0; i < row; ++i) sum[i] -= leaves[i];
    }
    std::copy(sum.begin(), sum.end(), out + y * row);
  }
}

// The window's sum across slices, of one slice after another.
template <int kChannels>
class SliceWindow {
 public:
  SliceWindow(const float* sums, int64_t plane, int64_t slices, int64_t first)
      : sums_(sums), row_(plane * kChannels), slices_(slices), at_(first) {
    window_.assign(static_cast<size_t>(row_), 0.0f);
    for (int64_t z = std::max<int64_t>(0, first - kHalfWindow);
         z < std::min(slices, first + kHalfWindow + 1); ++z) {
      for (int64_t i = 0; i < row_; ++i) window_[i] += sums_[z * row_ + i];
    }
  }
  const float* sums() const { return window_.data(); }
  void Advance() {
    const int64_t enters = at_ + kHalfWindow + 1, leaves = at_ - kHalfWindow;
    if (enters < slices_) {
      for (int64_t i = 0; i < row_; ++i) window_[i] += sums_[enters * row_ + i];
    }
    if (leaves >= 0) {
      for (int64_t i = 0; i < row_; ++i) window_[i] -= sums_[leaves * row_ + i];
    }
    ++at_;
  }

 private:
  const float* sums_;
  int64_t row_, slices_, at_;
  std::vector<float> window_;
};

double MeanOf(const LevelImage& image) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < image.values.size(); ++i) {
    sum += image.counted[i] != 0 ? image.values[i] : 0.0f;
    count += image.counted[i];
  }
  return sum / std::max(1.0, count);
}

class LocalCorrelationMetric : public Metric {
 public:
  LocalCorrelationMetric(const LevelImage& fixed, const LevelImage& moving)
      : fixed_(fixed),
        moving_(moving),
        cells_(CountedCells(moving)),
        fixed_mean_(static_cast<float>(MeanOf(fixed))),
        moving_mean_(static_cast<float>(MeanOf(moving))) {
    const auto voxels = static_cast<size_t>(fixed.grid.voxel_count());
    inside_.resize(voxels);
    read_.resize(voxels);
    for (auto& slope : slope_) slope.resize(voxels);
    sums_.resize(voxels * kSums);
    slopes_.resize(voxels * kSlopes);
    per_slice_.resize(static_cast<size_t>(fixed.grid.size[2]));
  }

  double Evaluate(const Points& points, double weight, Points& gradient) override {
    const auto& size = fixed_.grid.size;
    const auto in_parallel = [&](auto stage) {
      ParallelFor(size[2], 0, [&](int64_t begin, int64_t end) { stage(begin, end); });
    };
    in_parallel([&](int64_t begin, int64_t end) { SampleAndSum(points, begin, end); });
    const double count = std::accumulate(per_slice_.begin(), per_slice_.end(), 0.0);
    if (count == 0) return 0;
    in_parallel([&](int64_t begin, int64_t end) { Correlate(begin, end); });
    const double similarity = std::accumulate(per_slice_.begin(), per_slice_.end(), 0.0) / count;
    const float scale = static_cast<float>(weight / count);
    in_parallel([&](int64_t begin, int64_t end) { Backward(scale, begin, end, gradient); });
    return similarity;
  }

 private:
  int64_t plane() const { return fixed_.grid.size[0] * fixed_.grid.size[1]; }

  // Reads the moving image; sums of a slice's products over the slice's part of the windows.
  void SampleAndSum(const Points& points, int64_t begin, int64_t end) {
    const auto& from = moving_.grid.size;
    const int64_t sy = from[0], sz = from[0] * from[1];
    std::vector<float> rows(static_cast<size_t>(plane() * kSums));
    for (int64_t z = begin; z < end; ++z) {
      float* products = sums_.data() + z * plane() * kSums;
      std::fill(products, products + plane() * kSums, 0.0f);
      double count = 0;
      for (int64_t i = z * plane(); i < (z + 1) * plane(); ++i, products += kSums) {
        SampleCell cell;
        inside_[i] = fixed_.counted[i] != 0 &&
                     FindSampleCell(from, points[0][i], points[1][i], points[2][i], cell) &&
                     cells_[cell.base] != 0;
        if (inside_[i] == 0) continue;
        const float* v = moving_.values.data() + cell.base;
        const float x = cell.upper[0], y = cell.upper[1], w = cell.upper[2];
        const float x00 = v[1] - v[0], x10 = v[sy + 1] - v[sy], x01 = v[sz + 1] - v[sz],
                    x11 = v[sz + sy + 1] - v[sz + sy];
        const float v00 = v[0] + x00 * x, v10 = v[sy] + x10 * x, v01 = v[sz] + x01 * x,
                    v11 = v[sz + sy] + x11 * x;
        const float y0 = v10 - v00, y1 = v11 - v01;
        const float low = v00 + y0 * y, high = v01 + y1 * y;
        const float dx0 = x00 + (x10 - x00) * y, dx1 = x01 + (x11 - x01) * y;
        slope_[0][i] = dx0 + (dx1 - dx0) * w;
        slope_[1][i] = y0 + (y1 - y0) * w;
        slope_[2][i] = high - low;
        const float b = low + (high - low) * w - moving_mean_;
        const float a = fixed_.values[i] - fixed_mean_;
        read_[i] = b;
        products[kCount] = 1;
        products[kA] = a;
        products[kAA] = a * a;
        products[kB] = b;
        products[kBB] = b * b;
        products[kAB] = a * b;
        ++count;
      }
      float* slice = sums_.data() + z * plane() * kSums;
      SliceSum<kSums>(slice, fixed_.grid.size[0], fixed_.grid.size[1], rows.data(), slice);
      per_slice_[z] = count;
    }
  }

  // The correlation of every window, and how it changes with the window's sums.
  void Correlate(int64_t begin, int64_t end) {
    SliceWindow<kSums> window(sums_.data(), plane(), fixed_.grid.size[2], begin);
    std::vector<float> rows(static_cast<size_t>(plane() * kSlopes));
    for (int64_t z = begin; z < end; ++z) {
      float* slopes = slopes_.data() + z * plane() * kSlopes;
      const float* sums = window.sums();
      const uint8_t* inside = inside_.data() + z * plane();
      double similarity = 0;
      for (int64_t i = 0; i < plane(); ++i, sums += kSums, slopes += kSlopes) {
        std::fill(slopes, slopes + kSlopes, 0.0f);
        if (inside[i] == 0) continue;
        const float share = 1 / std::max(sums[kCount], 1.0f);
        const float a = sums[kA] * share, b = sums[kB] * share;
        const float variance_a = std::max(sums[kAA] * share - a * a, 0.0f) + kVarianceFloor;
        const float variance_b = std::max(sums[kBB] * share - b * b, 0.0f) + kVarianceFloor;
        const float covariance = sums[kAB] * share - a * b;
        const float regression = covariance / (variance_a * variance_b);
        const float correlation = covariance * regression;
        similarity += correlation;
        slopes[kSlopeAB] = 2 * regression * share;
        slopes[kSlopeBB] = -correlation / variance_b * share;
        slopes[kSlopeB] = (-2 * regression * a + 2 * correlation / variance_b * b) * share;
      }
      float* slice = slopes_.data() + z * plane() * kSlopes;
      SliceSum<kSlopes>(slice, fixed_.grid.size[0], fixed_.grid.size[1], rows.data(), slice);
      per_slice_[z] = similarity;
      window.Advance();
    }
  }

  void Backward(float scale, int64_t begin, int64_t end, Points& gradient) const {
    SliceWindow<kSlopes> window(slopes_.data(), plane(), fixed_.grid.size[2], begin);
    for (int64_t z = begin; z < end; ++z) {
      const float* slopes = window.sums();
      for (int64_t i = z * plane(); i < (z + 1) * plane(); ++i, slopes += kSlopes) {
        if (inside_[i] == 0) continue;
        const float a = fixed_.values[i] - fixed_mean_;
        const float by_value =
            scale * (slopes[kSlopeB] + 2 * read_[i] * slopes[kSlopeBB] + a * slopes[kSlopeAB]);
        for (int axis = 0; axis < 3; ++axis) gradient[axis][i] += by_value * slope_[axis][i];
      }
      window.Advance();
    }
  }

  const LevelImage& fixed_;
  const LevelImage& moving_;
  const std::vector<uint8_t> cells_;
  const float fixed_mean_, moving_mean_;  // taken off: less cancels in the sums
  std::vector<uint8_t> inside_;
  std::vector<float> read_;                  // the moving image at the points
  std::array<std::vector<float>, 3> slope_;  // its slope along the moving lattice's axes
  std::vector<float> sums_, slopes_;
  std::vector<double> per_slice_;  // added in order: the same for any number of threads
};

}  // namespace

std::vector<uint8_t> CountedCells(const LevelImage& image) {
  const auto& size = image.grid.size;
  std::vector<uint8_t> cells(image.counted.size(), 0);
  for (int64_t z = 0; z + 1 < size[2]; ++z) {
    for (int64_t y = 0; y + 1 < size[1]; ++y) {
      for (int64_t x = 0; x + 1 < size[0]; ++x) {
        const int64_t base = (z * size[1] + y) * size[0] + x;
        uint8_t all = 1;
        for (int corner = 0; corner < 8; ++corner) {
          all &= image.counted[base + (corner & 1) + (corner >> 1 & 1) * size[0] +
                               (corner >> 2) * size[0] * size[1]];
        }
        cells[base] = all;
      }
    }
  }
  return cells;
}

std::unique_ptr<Metric> MakeLocalCorrelationMetric(const LevelImage& fixed,
                                                   const LevelImage& moving) {
  return std::make_unique<LocalCorrelationMetric>(fixed, moving);
}

}  // namespace gvsl
