#include "model/dense_sweep.h"

#include <gtest/gtest.h>

#include <cmath>

namespace gvsl {
namespace {

constexpr Index3 kSize = {41, 19, 37};
constexpr int64_t kChannels = 2;

// A feature that depends on its window, its channel and its place, in [0, 1).
float Feature(const Index3& start, int64_t channel, const Index3& voxel) {
  uint64_t z = static_cast<uint64_t>(channel) + 1;
  for (int i = 0; i < 3; ++i) {
    z = (z ^ static_cast<uint64_t>(start[i] + 100)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ static_cast<uint64_t>(voxel[i] + 100)) * 0x94D049BB133111EBu;
    z ^= z >> 29;
  }
  return static_cast<float>(z >> 40) * 0x1p-24f;
}

DenseSweep MakeSweep(double overlap = 0.5, int64_t window = 16) {
  const auto axis = [&](int i) { return WindowAxis(kSize[i], window, overlap, true); };
  return {{axis(0), axis(1), axis(2)}, {0, 0, 0}, kSize, 2, false, kChannels, 1};
}

// Serves Feature for every voxel of every window.
class Passes {
 public:
  explicit Passes(const DenseSweep& sweep) : sweep_(sweep) {}

  WindowPass Function() {
    return [this](const std::vector<Index3>& starts) -> absl::StatusOr<const float*> {
      ++count;
      values_.clear();
      const auto& windows = sweep_.windows;
      for (const Index3& start : starts) {
        for (int64_t c = 0; c < sweep_.channels; ++c) {
          for (int64_t z = 0; z < windows[2].side(); ++z) {
            for (int64_t y = 0; y < windows[1].side(); ++y) {
              for (int64_t x = 0; x < windows[0].side(); ++x) {
                values_.push_back(Feature(start, c, {start[0] + x, start[1] + y, start[2] + z}));
              }
            }
          }
        }
      }
      return values_.data();
    };
  }
  int count = 0;

 private:
  const DenseSweep& sweep_;
  std::vector<float> values_;
};

// Every voxel's blended features, from the planes in the order they came.
struct Field {
  std::vector<int64_t> planes;
  std::vector<float> values;  // [plane][channel][u][v]
};

Field FieldOf(const DenseSweep& sweep) {
  Field field;
  Passes passes(sweep);
  int64_t plane_size = sweep.channels;
  for (int i = 0; i < 3; ++i) {
    if (i != sweep.axis) plane_size *= sweep.region_end[i] - sweep.region_begin[i];
  }
  const absl::Status status = sweep.Run(passes.Function(), [&](int64_t plane, const float* values) {
    field.planes.push_back(plane);
    field.values.insert(field.values.end(), values, values + plane_size);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
  return field;
}

// The blended feature of one voxel by the definition.
double Expected(const DenseSweep& sweep, int64_t channel, const Index3& voxel) {
  double sum = 0;
  for (int64_t z = 0; z < sweep.windows[2].count(); ++z) {
    for (int64_t y = 0; y < sweep.windows[1].count(); ++y) {
      for (int64_t x = 0; x < sweep.windows[0].count(); ++x) {
        const Index3 k = {x, y, z};
        double weight = 1;
        Index3 start;
        for (int i = 0; i < 3; ++i) {
          const WindowAxis& axis = sweep.windows[i];
          start[i] = axis.start(k[i]);
          const bool inside = voxel[i] >= axis.begin(k[i]) && voxel[i] < axis.end(k[i]);
          weight *= inside ? axis.weight(k[i], voxel[i]) : 0;
        }
        if (weight > 0) sum += weight * Feature(start, channel, voxel);
      }
    }
  }
  return sum;
}

// Calls body(channel, voxel, value) for every value of the field.
template <typename F>
void ForEachValue(const DenseSweep& sweep, const Field& field, F&& body) {
  const int a = sweep.axis, u = a == 2 ? 1 : 2, v = a == 0 ? 1 : 0;
  size_t at = 0;
  for (int64_t plane : field.planes) {
    for (int64_t c = 0; c < sweep.channels; ++c) {
      for (int64_t i = sweep.region_begin[u]; i < sweep.region_end[u]; ++i) {
        for (int64_t j = sweep.region_begin[v]; j < sweep.region_end[v]; ++j) {
          Index3 voxel;
          voxel[a] = plane;
          voxel[u] = i;
          voxel[v] = j;
          body(c, voxel, field.values[at++]);
        }
      }
    }
  }
  EXPECT_EQ(at, field.values.size());
}

TEST(DenseSweep, BlendsEveryVoxelOfEveryWindowAcrossEveryAxisInBothDirections) {
  for (double overlap : {0.0, 0.25, 0.75}) {
    for (int axis : {0, 1, 2}) {
      for (bool descending : {false, true}) {
        DenseSweep sweep = MakeSweep(overlap);
        sweep.axis = axis;
        sweep.descending = descending;
        double worst = 0;
        ForEachValue(sweep, FieldOf(sweep), [&](int64_t c, const Index3& voxel, float value) {
          worst = std::max(worst, std::abs(value - Expected(sweep, c, voxel)));
        });
        // Up to 125 products of float32 weights that sum to one.
        EXPECT_LT(worst, 1e-6) << "overlap " << overlap << " axis " << axis << " " << descending;
      }
    }
  }
}

TEST(DenseSweep, GivesEveryPlaneOnceInOrder) {
  for (bool descending : {false, true}) {
    DenseSweep sweep = MakeSweep();
    sweep.descending = descending;
    const Field field = FieldOf(sweep);
    ASSERT_EQ(static_cast<int64_t>(field.planes.size()), kSize[2]);
    for (size_t i = 0; i < field.planes.size(); ++i) {
      EXPECT_EQ(field.planes[i],
                descending ? kSize[2] - 1 - static_cast<int64_t>(i) : static_cast<int64_t>(i));
    }
  }
}

TEST(DenseSweep, ARegionIsTheCropOfTheWholeBitForBit) {
  for (int axis : {0, 1, 2}) {
    for (bool descending : {false, true}) {
      DenseSweep sweep = MakeSweep();
      sweep.axis = axis;
      sweep.descending = descending;
      std::vector<float> whole(static_cast<size_t>(kChannels * kSize[0] * kSize[1] * kSize[2]));
      const auto place = [](int64_t c, const Index3& v) {
        return static_cast<size_t>(((c * kSize[2] + v[2]) * kSize[1] + v[1]) * kSize[0] + v[0]);
      };
      ForEachValue(sweep, FieldOf(sweep),
                   [&](int64_t c, const Index3& v, float value) { whole[place(c, v)] = value; });
      for (const auto& [begin, end] : {std::pair{Index3{3, 2, 5}, Index3{40, 17, 36}},
                                       {Index3{0, 0, 0}, Index3{1, 1, 1}},
                                       {Index3{40, 18, 36}, kSize},
                                       {Index3{17, 0, 20}, Index3{18, 19, 21}},
                                       {Index3{0, 5, 0}, Index3{41, 6, 37}}}) {
        sweep.region_begin = begin;
        sweep.region_end = end;
        size_t different = 0;
        const Field region = FieldOf(sweep);
        EXPECT_EQ(static_cast<int64_t>(region.planes.size()), end[axis] - begin[axis]);
        ForEachValue(sweep, region, [&](int64_t c, const Index3& v, float value) {
          different += value != whole[place(c, v)];
        });
        EXPECT_EQ(different, 0u) << "axis " << axis << " descending " << descending;
      }
    }
  }
}

TEST(DenseSweep, GivesTheSameBitsForEveryBatch) {
  DenseSweep sweep = MakeSweep();
  const Field one = FieldOf(sweep);
  for (int64_t batch : {2, 7, 1000}) {
    sweep.batch = batch;
    EXPECT_TRUE(FieldOf(sweep).values == one.values) << batch;
  }
}

TEST(DenseSweep, ComputesOnlyTheWindowsThatTouchTheRegionEachOnce) {
  DenseSweep sweep = MakeSweep(0);  // 3 x 2 x 3 windows
  Passes all(sweep);
  const PlaneFunction ignore = [](int64_t, const float*) { return absl::OkStatus(); };
  ASSERT_TRUE(sweep.Run(all.Function(), ignore).ok());
  EXPECT_EQ(all.count, 18);
  sweep.region_begin = {0, 0, 0};
  sweep.region_end = {3, 2, 2};
  Passes corner(sweep);
  ASSERT_TRUE(sweep.Run(corner.Function(), ignore).ok());
  EXPECT_EQ(corner.count, 1);
}

TEST(DenseSweep, StopsAtTheFirstErrorOfAPassOrOfAPlane) {
  const DenseSweep sweep = MakeSweep();
  Passes passes(sweep);
  int planes = 0, calls = 0;
  const absl::Status refused = sweep.Run(passes.Function(), [&](int64_t, const float*) {
    return ++planes == 3 ? absl::UnavailableError("gone") : absl::OkStatus();
  });
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(planes, 3);

  const WindowPass inner = passes.Function();
  planes = 0;
  const absl::Status cancelled = sweep.Run(
      [&](const std::vector<Index3>& starts) -> absl::StatusOr<const float*> {
        if (++calls == 2) return absl::CancelledError("enough");
        return inner(starts);
      },
      [&](int64_t, const float*) {
        ++planes;
        return absl::OkStatus();
      });
  EXPECT_EQ(cancelled.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(planes, 0);
}

TEST(DenseSweep, KeepsOneWindowsDepthOfALargeCtAndNotTheWhole) {
  const Index3 size = {512, 512, 1000};
  const auto axis = [&](int i) { return WindowAxis(size[i], 96, 0.25, true); };
  const DenseSweep sweep = {{axis(0), axis(1), axis(2)}, {0, 0, 0}, size, 2, false, 32, 1};
  EXPECT_EQ(sweep.SlabBytes(), 512 * 512 * int64_t{96} * 32 * 4);  // 3 GiB of 31
}

}  // namespace
}  // namespace gvsl
