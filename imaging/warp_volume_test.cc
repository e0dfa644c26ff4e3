// Carrying volumes, labels and points through a map.
#include "imaging/warp_volume.h"

#include <gtest/gtest.h>

#include "imaging/resample.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

Volume Noise(const Grid& grid) { return Filled<int16_t>(grid, Scrambled); }

SpatialMap ShiftBy(const Vec3& mm) {
  SpatialMap map;
  map.affine.translation_mm = mm;
  return map;
}

TEST(WarpVolumeTest, TheIdentityReturnsTheVolumeBitForBit) {
  Grid grid = GridOf({9, 8, 7}, {0.5, 1.25, 3}, {10, -20, 30});
  const Volume volume = Noise(grid);
  const auto warped = WarpVolume(volume, {}, grid);
  ASSERT_TRUE(warped.ok()) << warped.status();
  EXPECT_EQ(warped->type(), VoxelType::kInt16);
  for (int64_t i = 0; i < volume.voxel_count(); ++i) {
    ASSERT_EQ(warped->voxels<int16_t>()[i], volume.voxels<int16_t>()[i]) << i;
  }
}

TEST(WarpVolumeTest, ReadsTheMovingVolumeWhereTheMapSends) {
  const Grid grid = GridOf({9, 8, 7}, {2, 2, 2});
  const Volume moving = Noise(grid);
  const auto warped = WarpVolume(moving, ShiftBy({2, 4, -2}), grid);
  EXPECT_EQ(At<int16_t>(*warped, 3, 2, 4), At<int16_t>(moving, 4, 4, 3));
  EXPECT_EQ(At<int16_t>(*warped, 8, 2, 4), 0) << "beyond the moving volume";
}

TEST(WarpVolumeTest, OnAnObliqueLatticeItAgreesWithTheResampler) {
  const Volume moving = Filled<float>(GridOf({24, 20, 18}, {1, 1, 1}), [](auto x, auto y, auto z) {
    return std::sin(0.4 * static_cast<double>(x)) + 0.1 * static_cast<double>(y) -
           0.05 * static_cast<double>(z * z);
  });
  Grid target = GridOf({10, 10, 8}, {1, 1, 1}, {8, 5, 5});
  target.direction = Rotation(15);
  const auto warped = WarpVolume(moving, {}, target, LabelRule::kNearest, -1);
  const auto resampled = Resample(moving, target, Interpolation::kLinear, VoxelType::kFloat32, -1);
  for (int64_t i = 0; i < target.voxel_count(); ++i) {
    // Both are linear interpolation, in double and in float32.
    ASSERT_NEAR(warped->voxels<float>()[i], resampled->voxels<float>()[i], 1e-4) << i;
  }
}

TEST(WarpVolumeTest, SlabsAreThoseOfTheWhole) {
  const Grid grid = GridOf({9, 8, 19}, {1, 1, 1});
  const Volume moving = Noise(grid);
  const SpatialMap map = ShiftBy({0.3, -0.4, 0.25});
  const auto whole = WarpVolume(moving, map, grid);
  std::vector<float> part(9 * 8 * 2);
  Warper(moving, map, grid).Linear(11, 13, 0, part.data());
  for (int64_t i = 0; i < 9 * 8 * 2; ++i) {
    EXPECT_EQ(std::round(part[static_cast<size_t>(i)]), whole->voxels<int16_t>()[11 * 72 + i]);
  }
}

TEST(WarpLabelsTest, NearestAndMajorityDifferWhereManySmallWeightsAgree) {
  // One voxel of label 7 among label 3.
  const Grid grid = GridOf({4, 4, 4});
  const Volume labels = Filled<uint8_t>(
      grid, [](auto x, auto y, auto z) { return x == 1 && y == 1 && z == 1 ? 7 : 3; },
      VolumeKind::kLabels);
  // 0.3 voxels off along each axis: the nearest voxel's weight is 0.7^3 = 0.34.
  const SpatialMap map = ShiftBy({0.3, 0.3, 0.3});
  EXPECT_EQ(At<uint8_t>(*WarpVolume(labels, map, grid, LabelRule::kNearest), 1, 1, 1), 7);
  EXPECT_EQ(At<uint8_t>(*WarpVolume(labels, map, grid, LabelRule::kMajority), 1, 1, 1), 3);
}

TEST(WarpLabelsTest, LargeNumbersStayExactAndOutsideIsBackground) {
  const Grid grid = GridOf({4, 4, 4});
  const Volume labels = Filled<int32_t>(
      grid, [](auto, auto, auto) { return 2000000011; }, VolumeKind::kLabels);
  const auto warped = WarpVolume(labels, ShiftBy({2, 0, 0}), grid, LabelRule::kMajority, 5);
  EXPECT_EQ(At<int32_t>(*warped, 0, 0, 0), 2000000011);
  EXPECT_EQ(At<int32_t>(*warped, 3, 0, 0), 0);
}

TEST(MapPointsTest, SendsEachPointThroughTheMap) {
  const std::vector<Vec3> points = {{0, 0, 0}, {1, 2, 3}};
  const std::vector<Vec3> mapped = MapPoints(ShiftBy({1, 1, -1}), points);
  ASSERT_EQ(mapped.size(), 2u);
  EXPECT_EQ(mapped[1], (Vec3{2, 3, 2}));
  EXPECT_TRUE(MapPoints({}, {}).empty());
}

TEST(WarpVolumeTest, ABadLatticeIsRefusedByName) {
  const auto warped = WarpVolume(Noise(GridOf({4, 4, 4})), {}, GridOf({4, 4, 1}));
  EXPECT_EQ(warped.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(warped.status(), "grid.size[2]"));
}

TEST(SimilarityAtTest, IsOneWhereTheMapIsRightAndLessBesideIt) {
  const Volume fixed = Noise(GridOf({16, 16, 16}));
  const Volume brighter = Filled<float>(
      fixed.grid(), [&](auto x, auto y, auto z) { return 5000 + 3 * At<int16_t>(fixed, x, y, z); });
  const std::vector<Vec3> points = {{8, 8, 8}, {0, 0, 0}, {100, 8, 8}};
  const auto right = SimilarityAt(fixed, brighter, {}, points);
  EXPECT_NEAR(right[0].value(), 1, 1e-6);  // float32 values
  EXPECT_NEAR(right[1].value(), 1, 1e-6) << "of the corner that there is";
  EXPECT_FALSE(right[2].has_value()) << "outside";
  EXPECT_LT(SimilarityAt(fixed, brighter, ShiftBy({2, 0, 0}), points)[0].value(), 0.5);
  const Volume constant = Filled<float>(fixed.grid(), [](auto, auto, auto) { return 5.0f; });
  EXPECT_FALSE(SimilarityAt(fixed, constant, {}, points)[0].has_value());
}

}  // namespace
}  // namespace gvsl
