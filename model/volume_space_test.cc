#include "model/volume_space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "imaging/orientation.h"

namespace gvsl {
namespace {

constexpr int64_t kChannels = 2;

// All 48 orientations.
std::vector<std::string> Orientations() {
  std::vector<std::string> all;
  std::string order = "012";
  do {
    for (int flips = 0; flips < 8; ++flips) {
      std::string codes;
      for (int i = 0; i < 3; ++i) codes += (flips >> i & 1 ? "RAI" : "LPS")[order[i] - '0'];
      all.push_back(codes);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return all;
}

// An oblique grid, 20 degrees about S and 10 about L, stored in the orientation.
Grid StoredGrid(const std::string& orientation) {
  const double a = 20 * M_PI / 180, b = 10 * M_PI / 180;
  Grid grid;
  grid.size = {11, 7, 9};
  grid.spacing_mm = {1.5, 2.25, 0.75};
  grid.origin_mm = {-12, 30, 7};
  grid.direction = {{{std::cos(a), -std::sin(a) * std::cos(b), std::sin(a) * std::sin(b)},
                     {std::sin(a), std::cos(a) * std::cos(b), -std::cos(a) * std::sin(b)},
                     {0, std::sin(b), std::cos(b)}}};
  return ReorientedGrid(grid, *ReorientationTo(grid, orientation));
}

// Trilinear interpolation returns a function that is linear in space as it is.
float Linear(int64_t channel, const Vec3& p) {
  return static_cast<float>(channel == 0 ? p[0] + 2 * p[1] - 3 * p[2] : 5 - p[0] + 0.5 * p[1]);
}

class Collector : public DenseSink {
 public:
  absl::Status Begin(const DenseHeader&) override { return absl::OkStatus(); }
  absl::Status Slice(int64_t z, const float* values) override {
    order.push_back(z);
    slices.emplace_back(values, values + slice_size);
    return static_cast<int64_t>(order.size()) == stop_at ? absl::CancelledError("enough")
                                                         : absl::OkStatus();
  }
  size_t slice_size = 0;
  int64_t stop_at = -1;
  std::vector<int64_t> order;
  std::vector<std::vector<float>> slices;
};

// Feeds the planes of the linear function in the sweep's order, as DenseSweep does.
absl::Status Feed(const Grid& model, VolumeSpace& onto, DenseSink& sink) {
  const int a = onto.sweep_axis(), u = a == 2 ? 1 : 2, v = a == 0 ? 1 : 0;
  const auto &begin = onto.region_begin(), &end = onto.region_end();
  for (int64_t n = 0; n < end[a] - begin[a]; ++n) {
    const int64_t plane = onto.descending() ? end[a] - 1 - n : begin[a] + n;
    std::vector<float> values;
    for (int64_t c = 0; c < kChannels; ++c) {
      for (int64_t i = begin[u]; i < end[u]; ++i) {
        for (int64_t j = begin[v]; j < end[v]; ++j) {
          Vec3 index;
          index[a] = static_cast<double>(plane);
          index[u] = static_cast<double>(i);
          index[v] = static_cast<double>(j);
          values.push_back(Linear(c, model.IndexToPhysical(index)));
        }
      }
    }
    if (absl::Status status = onto.OnPlane(plane, values.data(), sink); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// The greatest error of the slices against the function at each voxel, clamped to the model's grid.
double WorstError(const Grid& model, const Grid& target, const Collector& got) {
  double worst = 0;
  for (size_t n = 0; n < got.slices.size(); ++n) {
    size_t at = 0;
    for (int64_t c = 0; c < kChannels; ++c) {
      for (int64_t y = 0; y < target.size[1]; ++y) {
        for (int64_t x = 0; x < target.size[0]; ++x) {
          Vec3 index = model.PhysicalToIndex(target.IndexToPhysical(
              {static_cast<double>(x), static_cast<double>(y), static_cast<double>(got.order[n])}));
          for (int i = 0; i < 3; ++i) {
            index[i] = std::clamp(index[i], 0.0, static_cast<double>(model.size[i] - 1));
          }
          const double expected = Linear(c, model.IndexToPhysical(index));
          worst = std::max(worst, std::abs(got.slices[n][at++] - expected));
        }
      }
    }
  }
  return worst;
}

TEST(VolumeSpace, InterpolatesOntoAVolumeStoredInAnyOrientation) {
  for (const std::string& orientation : Orientations()) {
    for (const Vec3& spacing : {Vec3{1, 1, 1}, Vec3{3, 0.5, 2}}) {
      const Grid target = StoredGrid(orientation);
      const Grid model = *ModelGrid(target, "LPS", spacing);
      VolumeSpace onto(model, target, kChannels);
      Collector got;
      got.slice_size = static_cast<size_t>(kChannels * target.size[0] * target.size[1]);
      const int a = onto.sweep_axis();
      int64_t plane = kChannels;
      for (int i = 0; i < 3; ++i) {
        if (i != a) plane *= onto.region_end()[i] - onto.region_begin()[i];
      }
      EXPECT_EQ(onto.Bytes(), 4 * (2 * plane + static_cast<int64_t>(got.slice_size)));
      ASSERT_TRUE(Feed(model, onto, got).ok());
      ASSERT_EQ(static_cast<int64_t>(got.order.size()), target.size[2]) << orientation;
      EXPECT_TRUE(std::is_sorted(got.order.begin(), got.order.end()));
      // Values of up to 200 in float32, and fractions rounded to 6e-8 of differences of up to 6.
      EXPECT_LT(WorstError(model, target, got), 1e-4) << orientation;
    }
  }
}

TEST(VolumeSpace, NeedsOnlyThePartOfTheModelsGridUnderTheTarget) {
  const Grid volume = StoredGrid("RAS");
  const Grid model = *ModelGrid(volume, "LPS", {1, 1, 1});
  Grid part = volume;  // voxels 2, 4, 6 of each axis
  part.origin_mm = volume.IndexToPhysical({2, 2, 2});
  for (int i = 0; i < 3; ++i) {
    part.size[i] = 3;
    part.spacing_mm[i] *= 2;
  }
  VolumeSpace onto(model, part, kChannels);
  for (int i = 0; i < 3; ++i) {
    const double span = 2 * part.spacing_mm[i];  // of its voxel centres, in model voxels of 1 mm
    EXPECT_LE(static_cast<double>(onto.region_end()[i] - onto.region_begin()[i]), span + 3);
  }
  Collector got;
  got.slice_size = static_cast<size_t>(kChannels * 9);
  ASSERT_TRUE(Feed(model, onto, got).ok());
  EXPECT_EQ(got.order, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_LT(WorstError(model, part, got), 1e-4);
}

TEST(VolumeSpace, StopsWhereTheSinkDoes) {
  const Grid target = StoredGrid("LPS");
  const Grid model = *ModelGrid(target, "LPS", {1, 1, 1});
  VolumeSpace onto(model, target, kChannels);
  Collector got;
  got.slice_size = static_cast<size_t>(kChannels * target.size[0] * target.size[1]);
  got.stop_at = 2;
  EXPECT_EQ(Feed(model, onto, got).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(got.order.size(), 2u);
}

}  // namespace
}  // namespace gvsl
