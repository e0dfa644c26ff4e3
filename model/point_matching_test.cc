// Matching points by features, with features that are known at every place.
#include "model/point_matching.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/status/status.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

constexpr double kRadian_mm = 9;  // so that no two places within 56 mm look the same

// What a place of an anatomy looks like: turns along each axis.
std::vector<float> LooksOf(const Vec3& anatomy_mm) {
  std::vector<float> looks;
  for (double at : anatomy_mm) {
    looks.push_back(static_cast<float>(std::sin(at / kRadian_mm)));
    looks.push_back(static_cast<float>(std::cos(at / kRadian_mm)));
  }
  return looks;
}

// A volume of 45 mm a side that shows the anatomy `shift_mm` from where its coordinates say, known
// as a whole at `factor` mm and in detail at 1 mm.
class Side {
 public:
  Side(double factor, const Vec3& shift_mm) : shift_mm_(shift_mm) {
    side_.factor = factor;
    LevelImage& whole = side_.whole;
    const auto edge = static_cast<int64_t>(std::lround(45 / factor));
    whole.grid = GridOf({edge, edge, edge}, {factor, factor, factor}, {-3, 5, 20});
    whole.grid.direction = Rotation(5);
    whole.channels = 6;
    whole.counted.assign(static_cast<size_t>(whole.grid.voxel_count()), 1);
    const double length = std::sqrt(6.0) / 2;  // DenseFeatures'
    for (int64_t i = 0; i < whole.grid.voxel_count(); ++i) {
      const Vec3 point = whole.grid.IndexToPhysical({static_cast<double>(i % edge),
                                                     static_cast<double>(i / edge % edge),
                                                     static_cast<double>(i / (edge * edge))});
      for (float value : At(point))
        whole.values.push_back(static_cast<float>(value / std::sqrt(3.0) * length));
    }
    side_.fine = [this](const std::vector<Vec3>& points) {
      ++fine_calls_;
      std::vector<PointFeature> features(points.size());
      for (size_t i = 0; i < points.size(); ++i) features[i].values = At(points[i]);
      return features;
    };
  }
  const MatchingSide& operator*() const { return side_; }
  MatchingSide& side() { return side_; }
  int fine_calls() const { return fine_calls_; }
  Vec3 Place(const Vec3& index_mm) const {
    const Vec3& spacing = side_.whole.grid.spacing_mm;
    return side_.whole.grid.IndexToPhysical(
        {index_mm[0] / spacing[0], index_mm[1] / spacing[1], index_mm[2] / spacing[2]});
  }

 private:
  std::vector<float> At(const Vec3& point_mm) const {
    return LooksOf(
        {point_mm[0] + shift_mm_[0], point_mm[1] + shift_mm_[1], point_mm[2] + shift_mm_[2]});
  }

  const Vec3 shift_mm_;
  MatchingSide side_;
  int fine_calls_ = 0;
};

constexpr Vec3 kShift_mm = {4.3, -2.6, 3.1};

// Points in the middle of the fixed volume, so that the moving one shows them.
std::vector<Vec3> Middle(const Side& fixed) {
  return {fixed.Place({20, 22, 18}), fixed.Place({15.7, 25.2, 21.4}), fixed.Place({28, 17, 24.9})};
}

void ExpectShift(const std::vector<Vec3>& points, const std::vector<PointMatch>& matches,
                 double tolerance_mm) {
  ASSERT_EQ(matches.size(), points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_TRUE(matches[i].found);
    for (int r = 0; r < 3; ++r)
      EXPECT_NEAR(matches[i].point_mm[r], points[i][r] + kShift_mm[r], tolerance_mm) << i;
    EXPECT_LT(matches[i].cycle_distance_mm.value(), 3 * tolerance_mm) << i;
    EXPECT_GT(matches[i].score, 0.99);
  }
}

TEST(PointMatchingTest, FindsPlacesToAFractionOfAVoxelOfTheFineFeatures) {
  const Side fixed(3, {0, 0, 0}), moving(3, {-kShift_mm[0], -kShift_mm[1], -kShift_mm[2]});
  const auto points = Middle(fixed);
  const auto matches = MatchByFeatures(*fixed, *moving, points);
  ASSERT_TRUE(matches.ok()) << matches.status();
  EXPECT_GT(moving.fine_calls(), 0);
  // The parabola through cosines a voxel of 1 mm apart has its top within a tenth of it.
  ExpectShift(points, *matches, 0.1);
}

TEST(PointMatchingTest, AsksForNoFineFeaturesWhereTheWholeIsAsFine) {
  const Side fixed(1, {0, 0, 0}), moving(1, {-kShift_mm[0], -kShift_mm[1], -kShift_mm[2]});
  const auto points = Middle(fixed);
  const auto matches = MatchByFeatures(*fixed, *moving, points);
  ASSERT_TRUE(matches.ok()) << matches.status();
  EXPECT_EQ(fixed.fine_calls() + moving.fine_calls(), 0);
  ExpectShift(points, *matches, 0.1);
}

TEST(PointMatchingTest, APointOutsideItsVolumeHasNoMatch) {
  const Side fixed(3, {0, 0, 0}), moving(3, {0, 0, 0});
  const auto matches = MatchByFeatures(*fixed, *moving, {{500, 0, 0}, fixed.Place({20, 20, 20})});
  ASSERT_TRUE(matches.ok()) << matches.status();
  EXPECT_FALSE((*matches)[0].found);
  EXPECT_TRUE((*matches)[1].found);
}

TEST(PointMatchingTest, WhatDoesNotCountIsNoMatch) {
  const Side fixed(3, {0, 0, 0});
  Side moving(3, {0, 0, 0});
  auto& counted = moving.side().whole.counted;  // the upper half alone
  std::fill(counted.begin(), counted.begin() + static_cast<std::ptrdiff_t>(counted.size() / 2), 0);
  const Vec3 low = fixed.Place({20, 20, 3});
  const auto matches = MatchByFeatures(*fixed, *moving, {low});
  ASSERT_TRUE(matches.ok()) << matches.status();
  EXPECT_GT(std::hypot((*matches)[0].point_mm[0] - low[0], (*matches)[0].point_mm[1] - low[1],
                       (*matches)[0].point_mm[2] - low[2]),
            10);
  EXPECT_LT((*matches)[0].score, 0.95);
  // The most alike is beyond the top, of which the coarse features know nothing.
  EXPECT_FALSE((*matches)[0].cycle_distance_mm.has_value());
}

TEST(PointMatchingTest, TellsWhyFeaturesCannotBeHad) {
  const Side fixed(3, {0, 0, 0});
  Side moving(3, {0, 0, 0});
  moving.side().fine = [](const std::vector<Vec3>&) -> absl::StatusOr<std::vector<PointFeature>> {
    return absl::CancelledError("cancelled between two windows");
  };
  EXPECT_TRUE(absl::IsCancelled(MatchByFeatures(*fixed, *moving, Middle(fixed)).status()));
}

}  // namespace
}  // namespace gvsl
