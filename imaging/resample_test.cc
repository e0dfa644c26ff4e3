#include "imaging/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "imaging/axis_taps.h"
#include "imaging/orientation.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

// The 48 orientations: every order of the three pairs, every sign.
std::vector<std::string> AllOrientations() {
  std::vector<std::string> all;
  std::array<int, 3> order = {0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      std::string codes;
      for (int i = 0; i < 3; ++i) codes += (signs >> i & 1 ? "RAI" : "LPS")[order[i]];
      all.push_back(codes);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return all;
}

Volume Reoriented(const Volume& volume, const std::string& codes) {
  auto result = Reorient(volume, codes);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

std::vector<float> Slices(const Volume& volume, const Grid& target, Interpolation interpolation,
                          float outside = 0, int threads = 0) {
  std::vector<float> values(static_cast<size_t>(target.voxel_count()));
  Resampler(volume, target, interpolation, outside)
      .Slices(0, target.size[2], values.data(), threads);
  return values;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Grid ModelGridOf(const Volume& volume, const Vec3& spacing_mm) {
  auto grid = ModelGrid(volume.grid(), "LPS", spacing_mm);
  EXPECT_TRUE(grid.ok()) << grid.status();
  return *grid;
}

// An oblique volume of noise with three different sizes and spacings.
Volume ObliqueNoise() {
  Grid grid = GridOf({31, 23, 17}, {0.7, 0.9, 1.25}, {-100.5, 33.25, 712});
  grid.direction = Rotation(12);
  return Filled<int16_t>(grid, Scrambled);
}

// A linear function of physical space, which linear interpolation reproduces.
double Ramp(const Vec3& point) { return 3 + 0.5 * point[0] - 0.25 * point[1] + 0.125 * point[2]; }
Volume RampVolume(const Grid& grid) {
  return Filled<float>(grid, [&](int64_t x, int64_t y, int64_t z) {
    return Ramp(grid.IndexToPhysical(
        {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)}));
  });
}

TEST(Orientation, OfTheIdentityIsLps) { EXPECT_EQ(OrientationOf(GridOf({4, 4, 4})), "LPS"); }

TEST(Orientation, IsTheNearestOne) {
  Grid grid = GridOf({4, 4, 4});
  grid.direction = Rotation(20);
  EXPECT_EQ(OrientationOf(grid), "LPS");
  for (auto& row : grid.direction) row[1] = -row[1];
  EXPECT_EQ(OrientationOf(grid), "LAS");
}

TEST(Orientation, IsOneToOneAtFortyFiveDegrees) {
  Grid grid = GridOf({4, 4, 4});
  const double half = std::sqrt(0.5);
  grid.direction = {{{half, half, 0}, {half, -half, 0}, {0, 0, 1}}};
  const std::string codes = OrientationOf(grid);
  EXPECT_TRUE(ReorientationTo(grid, codes).ok()) << codes;
}

TEST(Orientation, RefusesCodesThatAreNone) {
  for (const std::string codes :
       {"", "LP", "LPSS", "LPL", "LRS", "lps", "XPS", std::string("LP\0", 3).c_str(), "L P"}) {
    auto result = ReorientationTo(GridOf({4, 4, 4}), codes);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << codes;
    EXPECT_TRUE(Contains(result.status(), "orientation")) << result.status();
  }
  EXPECT_FALSE(ReorientationTo(GridOf({4, 4, 4}), std::string("LP\0", 3)).ok());
}

TEST(Reorient, MovesNoVoxelInSpace) {
  const Volume volume = ObliqueNoise();
  for (const std::string& codes : AllOrientations()) {
    const Volume turned = Reoriented(volume, codes);
    EXPECT_EQ(OrientationOf(turned.grid()), codes);
    const auto& size = turned.grid().size;
    for (const std::array<int64_t, 3>& voxel :
         {std::array<int64_t, 3>{0, 0, 0}, {size[0] - 1, 0, 2}, {3, size[1] - 1, size[2] - 1}}) {
      const Vec3 index = volume.grid().PhysicalToIndex(turned.grid().IndexToPhysical(
          {static_cast<double>(voxel[0]), static_cast<double>(voxel[1]),
           static_cast<double>(voxel[2])}));
      for (int i = 0; i < 3; ++i) EXPECT_NEAR(index[i], std::round(index[i]), 1e-9) << codes;
      EXPECT_EQ(
          At<int16_t>(turned, voxel[0], voxel[1], voxel[2]),
          At<int16_t>(volume, std::lround(index[0]), std::lround(index[1]), std::lround(index[2])))
          << codes;
    }
  }
}

TEST(Reorient, ThereAndBackIsTheSameVolume) {
  const Volume volume = ObliqueNoise();
  for (const std::string& codes : AllOrientations()) {
    const Volume back = Reoriented(Reoriented(volume, codes), OrientationOf(volume.grid()));
    EXPECT_EQ(std::memcmp(back.bytes(), volume.bytes(), volume.byte_count()), 0) << codes;
    // The origin is computed anew: double rounding of hundreds of millimetres.
    ExpectSameLattice(back.grid(), volume.grid(), 1e-11);
  }
}

TEST(Reorient, KeepsKindTypeAndModality) {
  Volume labels = Filled<uint8_t>(GridOf({4, 5, 6}), Scrambled, VolumeKind::kLabels);
  labels.set_modality("SEG");
  const Volume turned = Reoriented(labels, "IRA");
  EXPECT_EQ(turned.kind(), VolumeKind::kLabels);
  EXPECT_EQ(turned.type(), VoxelType::kUint8);
  EXPECT_EQ(turned.modality(), "SEG");
}

TEST(ModelGrid, CoversTheSameExtentCentred) {
  const Grid source = GridOf({512, 512, 128}, {0.7, 0.7, 1.25}, {-180, -180, -1000});
  auto grid = ModelGrid(source, "LPS", {1, 1, 1});
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->size, (std::array<int64_t, 3>{358, 358, 160}));  // 358.4, 358.4, 160 mm
  const Vec3 centre = source.IndexToPhysical({255.5, 255.5, 63.5});
  const Vec3 model_centre = grid->IndexToPhysical({178.5, 178.5, 79.5});
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(model_centre[i], centre[i], 1e-9);
}

TEST(ModelGrid, NeverRotates) {
  const Volume volume = ObliqueNoise();
  auto grid = ModelGrid(volume.grid(), "RAS", {1, 1, 1});
  ASSERT_TRUE(grid.ok()) << grid.status();
  for (int r = 0; r < 3; ++r) {
    EXPECT_EQ(grid->direction[r][0], -volume.grid().direction[r][0]);
    EXPECT_EQ(grid->direction[r][2], volume.grid().direction[r][2]);
  }
}

TEST(ModelGrid, HasAtLeastOneVoxelAnAxis) {
  auto grid = ModelGrid(GridOf({2, 2, 2}), "LPS", {100, 100, 100});
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->size, (std::array<int64_t, 3>{1, 1, 1}));
}

TEST(ModelGrid, IsTheSameForEveryStoredOrientation) {
  const Volume volume = ObliqueNoise();
  const Grid grid = ModelGridOf(volume, {1, 1, 2});
  for (const std::string& codes : AllOrientations()) {
    ExpectSameLattice(ModelGridOf(Reoriented(volume, codes), {1, 1, 2}), grid, 1e-11);
  }
}

TEST(Resampler, IsTheSameToTheBitForEveryStoredOrientation) {
  const Volume volume = ObliqueNoise();
  // Finer, equal, coarser by less and by more than anti-aliasing needs; extents that do not divide.
  for (const Vec3& spacing : {Vec3{0.35, 0.9, 1.3}, Vec3{1, 1, 1}, Vec3{2.5, 1.7, 4.1}}) {
    const auto linear = Slices(volume, ModelGridOf(volume, spacing), Interpolation::kLinear);
    const auto nearest = Slices(volume, ModelGridOf(volume, spacing), Interpolation::kNearest);
    for (const std::string& codes : AllOrientations()) {
      const Volume stored = Reoriented(volume, codes);
      const Grid grid = ModelGridOf(stored, spacing);
      EXPECT_TRUE(SameBits(Slices(stored, grid, Interpolation::kLinear), linear)) << codes;
      EXPECT_TRUE(SameBits(Slices(stored, grid, Interpolation::kNearest), nearest)) << codes;
    }
  }
}

TEST(Resampler, IsTheSameToTheBitWhereDirectionsAreRounded) {
  // Directions as text with four decimals: unit vectors within ValidateGrid's tolerance only.
  const Volume exact = ObliqueNoise();
  Grid grid = exact.grid();
  for (auto& row : grid.direction) {
    for (double& value : row) value = std::round(value * 1e4) / 1e4;
  }
  Volume volume = *Volume::Allocate(grid, exact.type(), exact.kind());
  std::memcpy(volume.mutable_bytes(), exact.bytes(), exact.byte_count());
  const auto values = Slices(volume, ModelGridOf(volume, {1, 1, 1}), Interpolation::kLinear);
  for (const std::string codes : {"RAS", "SPL", "AIR"}) {
    const Volume stored = Reoriented(volume, codes);
    EXPECT_TRUE(
        SameBits(Slices(stored, ModelGridOf(stored, {1, 1, 1}), Interpolation::kLinear), values))
        << codes;
  }
}

TEST(Resampler, OntoItsOwnGridIsTheIdentity) {
  const Volume volume = ObliqueNoise();
  for (const Interpolation interpolation : {Interpolation::kLinear, Interpolation::kNearest}) {
    const auto values = Slices(volume, volume.grid(), interpolation);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], volume.voxels<int16_t>()[i]);
  }
}

TEST(Resampler, ReproducesALinearRampOnAParallelGrid) {
  const Grid source = GridOf({20, 25, 30}, {1, 2, 0.5}, {-10, 5, 100});
  const Volume volume = RampVolume(source);
  // A finer grid within the centres of the outermost voxels.
  const Grid target = GridOf({19, 37, 45}, {0.9, 1.1, 0.3}, {-9.7, 6.3, 100.4});
  const auto values = Slices(volume, target, Interpolation::kLinear);
  size_t i = 0;
  for (int64_t z = 0; z < target.size[2]; ++z) {
    for (int64_t y = 0; y < target.size[1]; ++y) {
      for (int64_t x = 0; x < target.size[0]; ++x, ++i) {
        // float32 weights and sums of values below 32: a few units in the last place (4e-6), and
        // coordinates rounded to 2^-20 of a voxel.
        ASSERT_NEAR(values[i],
                    Ramp(target.IndexToPhysical(
                        {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)})),
                    2e-5);
      }
    }
  }
}

TEST(Resampler, ReproducesALinearRampOnARotatedGrid) {
  const Volume volume = RampVolume(GridOf({40, 40, 40}, {1, 1.5, 0.75}, {0, 0, 0}));
  Grid target = GridOf({12, 13, 14}, {0.9, 0.8, 0.7}, {14, 22, 9});
  target.direction = Rotation(17);
  const auto values = Slices(volume, target, Interpolation::kLinear, -1e6f);
  size_t i = 0;
  for (int64_t z = 0; z < target.size[2]; ++z) {
    for (int64_t y = 0; y < target.size[1]; ++y) {
      for (int64_t x = 0; x < target.size[0]; ++x, ++i) {
        // As above.
        ASSERT_NEAR(values[i],
                    Ramp(target.IndexToPhysical(
                        {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)})),
                    2e-5);
      }
    }
  }
}

TEST(Resampler, RotatedGridOfARightAngleEqualsTheParallelOne) {
  // Just beyond what counts as parallel (0.05 degrees): the two paths must agree where they meet.
  const Volume volume = ObliqueNoise();
  Grid parallel = ModelGridOf(volume, {0.7, 0.9, 1.25});
  Grid rotated = parallel;
  const double angle = 0.06 * M_PI / 180;
  for (int r = 0; r < 3; ++r) {
    const double first = parallel.direction[r][0], second = parallel.direction[r][1];
    rotated.direction[r][0] = std::cos(angle) * first + std::sin(angle) * second;
    rotated.direction[r][1] = std::cos(angle) * second - std::sin(angle) * first;
  }
  const auto a = Slices(volume, parallel, Interpolation::kLinear);
  const auto b = Slices(volume, rotated, Interpolation::kLinear);
  // 30 voxels at 0.06 degrees move by 0.03 voxels; noise spans 2000 in one voxel, along two axes.
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 150) << i;
}

TEST(Resampler, ClampsWithinHalfAVoxelOfTheBorder) {
  const Volume volume =
      Filled<float>(GridOf({4, 4, 4}), [](int64_t x, int64_t, int64_t) { return 10 * (x + 1); });
  const Grid target = GridOf({9, 2, 2}, {0.5, 1, 1}, {-0.5, 0, 0});  // -0.5, 0, 0.5 ... 3.5
  for (const double degrees : {0.0, 0.1}) {  // both paths; 0.1 degrees move 3 voxels by 0.005
    Grid turned = target;
    turned.direction = Rotation(degrees);
    turned.origin_mm = {-0.5 + degrees / 10, 0.5, 0.5};
    const auto values = Slices(volume, turned, Interpolation::kLinear, -1);
    EXPECT_NEAR(values[0], 10, 0.2);
    EXPECT_NEAR(values[1], 10, 0.2);
    EXPECT_NEAR(values[2], 15, 0.2);
    EXPECT_NEAR(values[7], 40, 0.2);
  }
}

TEST(Resampler, GivesTheOutsideValueBeyondHalfAVoxel) {
  const Volume volume = Filled<int16_t>(GridOf({4, 4, 4}), [](auto, auto, auto) { return 100; });
  const std::vector<double> places = {-1.01, -0.51, -0.49, 3.49, 3.51, 9};
  const std::vector<float> expected = {-7, -7, 100, 100, -7, -7};
  for (const Interpolation interpolation : {Interpolation::kLinear, Interpolation::kNearest}) {
    for (int axis = 0; axis < 3; ++axis) {
      for (const double degrees : {0.0, 1.0}) {
        for (size_t i = 0; i < places.size(); ++i) {
          Grid target = GridOf({2, 2, 2}, {0.001, 0.001, 0.001}, {1, 1, 1});
          target.origin_mm[axis] = places[i];
          target.direction = Rotation(degrees);
          EXPECT_EQ(Slices(volume, target, interpolation, -7)[0], expected[i])
              << places[i] << " along " << axis << " at " << degrees << " degrees";
        }
      }
    }
  }
}

TEST(Resampler, OfAGridElsewhereIsAllOutside) {
  const Volume volume = ObliqueNoise();
  Grid target = ModelGridOf(volume, {3, 3, 3});
  target.origin_mm[1] += 1e4;
  for (const float value : Slices(volume, target, Interpolation::kLinear, 5)) ASSERT_EQ(value, 5);
}

// A cosine of `period` voxels along `axis`, about 0.
Volume Wave(double period, int axis) {
  return Filled<float>(GridOf({64, 64, 64}), [&](int64_t x, int64_t y, int64_t z) {
    const int64_t at[3] = {x, y, z};
    return std::cos(2 * M_PI * static_cast<double>(at[axis]) / period);
  });
}

float LargestWithin(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

TEST(AntiAliasing, RemovesAWaveAboveNyquist) {
  // Every 4th sample of a wave of 3 voxels shows one of 12: what is not there. The filter's
  // amplitude at that frequency is exp(-2 (pi sigma / 3)^2) = 2.7e-4 with sigma = 0.5 sqrt(15), and
  // its cut at 3 sigma adds some thousandths.
  Grid target = GridOf({12, 12, 12}, {4, 4, 4}, {8, 8, 8});
  for (int axis = 0; axis < 3; ++axis) {
    EXPECT_LT(LargestWithin(Slices(Wave(3, axis), target, Interpolation::kLinear)), 0.02);
    EXPECT_GT(LargestWithin(Slices(Wave(3, axis), target, Interpolation::kNearest)), 0.9);
  }
}

TEST(AntiAliasing, RemovesItOnRotatedGridsToo) {
  Grid target = GridOf({6, 6, 6}, {4, 4, 4}, {20, 20, 20});
  target.direction = Rotation(10);
  for (int axis = 0; axis < 3; ++axis) {
    // Axes are filtered by their largest component, cos(10)^2: slightly less than above.
    EXPECT_LT(LargestWithin(Slices(Wave(3, axis), target, Interpolation::kLinear)), 0.03);
  }
}

TEST(AntiAliasing, KeepsAWaveFarBelowNyquist) {
  // Period 32 voxels at a ratio of 2: exp(-2 (pi sigma / 32)^2) = 0.986 with sigma = 0.5 sqrt(3).
  Grid target = GridOf({24, 24, 24}, {2, 2, 2}, {8, 8, 8});
  EXPECT_GT(LargestWithin(Slices(Wave(32, 0), target, Interpolation::kLinear)), 0.97);
}

TEST(AntiAliasing, KeepsAConstantToTheBorder) {
  const Volume volume = Filled<float>(GridOf({33, 17, 9}), [](auto, auto, auto) { return 77; });
  for (const float value :
       Slices(volume, ModelGridOf(volume, {3.3, 2.1, 1.7}), Interpolation::kLinear)) {
    ASSERT_NEAR(value, 77, 1e-4);  // weights sum to 1 within float32
  }
}

TEST(AntiAliasing, SetsInAboveARatioOf1Point05) {
  EXPECT_FALSE(AxisFilter(100, 1.05, Interpolation::kLinear).anti_aliased());
  EXPECT_TRUE(AxisFilter(100, 1.06, Interpolation::kLinear).anti_aliased());
  EXPECT_FALSE(AxisFilter(100, 8, Interpolation::kNearest).anti_aliased());
}

TEST(AxisFilter, TapsLieInTheSourceAndSumToOne) {
  Taps taps;
  for (const int64_t size : {int64_t{1}, int64_t{2}, int64_t{7}, int64_t{100}}) {
    for (const double ratio : {0.3, 1.0, 1.5, 4.0, 1000.0}) {
      const AxisFilter filter(size, ratio, Interpolation::kLinear);
      for (double at = -0.5; at <= static_cast<double>(size) - 0.5; at += 0.05) {
        filter.At(at, taps);
        ASSERT_FALSE(taps.outside) << at;
        ASSERT_GE(taps.first, 0);
        ASSERT_LE(taps.first + static_cast<int64_t>(taps.weights.size()), size);
        double sum = 0;
        for (const float weight : taps.weights) sum += weight;
        ASSERT_NEAR(sum, 1, 1e-6);  // float32
      }
    }
  }
}

TEST(AxisFilter, IsOutsideWhereTheCoordinateIsNoNumber) {
  Taps taps;
  AxisFilter(10, 1, Interpolation::kLinear).At(std::numeric_limits<double>::quiet_NaN(), taps);
  EXPECT_TRUE(taps.outside);
}

TEST(Resampler, ShrinksManySlicesToOne) {
  // More source slices under one target slice than are held at a time.
  const Volume volume = Filled<float>(GridOf({4, 4, 200}), [](int64_t x, int64_t, int64_t z) {
    return static_cast<double>(100 * x) + (z % 2 == 0 ? 10 : -10);
  });
  const Grid target = GridOf({4, 4, 2}, {1, 1, 100}, {0, 0, 49.5});
  const auto values = Slices(volume, target, Interpolation::kLinear);
  for (size_t i = 0; i < values.size(); ++i) {
    // The stripes cancel but for half a weight of the last slice before the border, 0.003 of 10.
    EXPECT_NEAR(values[i], 100 * static_cast<double>(i % 4), 0.05);
  }
}

TEST(Resampler, SliceBySliceEqualsWholeToTheBit) {
  const Volume volume = ObliqueNoise();
  Grid rotated = ModelGridOf(volume, {0.8, 0.8, 0.8});
  rotated.direction = Rotation(40);
  for (const Grid& target :
       {ModelGridOf(volume, {0.6, 0.7, 0.31}), ModelGridOf(volume, {2.2, 1.9, 2.3}), rotated}) {
    for (const Interpolation interpolation : {Interpolation::kLinear, Interpolation::kNearest}) {
      const auto whole = Slices(volume, target, interpolation, 3);
      const Resampler resampler(volume, target, interpolation, 3);
      const int64_t plane = target.size[0] * target.size[1];
      std::vector<float> parts(whole.size());
      for (int64_t z = target.size[2] - 1; z >= 0; --z) {
        resampler.Slices(z, z + 1, parts.data() + z * plane);
      }
      EXPECT_TRUE(SameBits(parts, whole));
    }
  }
}

TEST(Resampler, NumberOfThreadsDoesNotChangeABit) {
  const Volume volume = ObliqueNoise();
  Grid rotated = ModelGridOf(volume, {0.8, 0.8, 0.8});
  rotated.direction = Rotation(40);
  for (const Grid& target :
       {ModelGridOf(volume, {0.6, 0.7, 0.31}), ModelGridOf(volume, {2.2, 1.9, 2.3}), rotated}) {
    const auto one = Slices(volume, target, Interpolation::kLinear, 0, 1);
    for (const int threads : {2, 3, 7, 64}) {
      EXPECT_TRUE(SameBits(Slices(volume, target, Interpolation::kLinear, 0, threads), one));
    }
  }
}

TEST(Resample, RoundsAndSaturatesIntegers) {
  const Volume volume = Filled<float>(GridOf({6, 2, 2}), [](int64_t x, int64_t, int64_t) {
    return std::array<double, 6>{-1e9, -0.6, 0.5, 1.49, 254.6, 1e9}[static_cast<size_t>(x)];
  });
  auto uint8 = Resample(volume, volume.grid(), Interpolation::kLinear, VoxelType::kUint8);
  ASSERT_TRUE(uint8.ok()) << uint8.status();
  EXPECT_EQ(std::vector<uint8_t>(uint8->bytes(), uint8->bytes() + 6),
            (std::vector<uint8_t>{0, 0, 1, 1, 255, 255}));
  auto int16 = Resample(volume, volume.grid(), Interpolation::kNearest, VoxelType::kInt16);
  ASSERT_TRUE(int16.ok()) << int16.status();
  EXPECT_EQ(std::vector<int16_t>(int16->voxels<int16_t>(), int16->voxels<int16_t>() + 6),
            (std::vector<int16_t>{-32768, -1, 1, 1, 255, 32767}));
}

TEST(Resample, LabelsAreNearestAndKeepTheirNumbers) {
  // Labels of atlases exceed 2^24, where float32 no longer holds every whole number.
  const int32_t labels[] = {16777217, 614454277, -16777219, 2147483647};
  const Volume volume = Filled<int32_t>(
      GridOf({12, 10, 8}),
      [&](int64_t x, int64_t y, int64_t z) { return labels[static_cast<size_t>(x + y + z) % 4]; },
      VolumeKind::kLabels);
  Grid rotated = GridOf({9, 9, 9}, {0.5, 0.5, 0.5}, {3, 3, 2});
  rotated.direction = Rotation(15);
  for (const Grid& target : {GridOf({23, 19, 15}, {0.5, 0.5, 0.5}), rotated}) {
    auto result = Resample(volume, target, Interpolation::kLinear, VoxelType::kInt32);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->kind(), VolumeKind::kLabels);
    const Resampler resampler(volume, target, Interpolation::kNearest, 0);
    std::vector<int32_t> slices(static_cast<size_t>(target.voxel_count()));
    resampler.Labels(0, target.size[2], slices.data());
    for (int64_t i = 0; i < target.voxel_count(); ++i) {
      const int32_t label = result->voxels<int32_t>()[i];
      ASSERT_TRUE(std::find(labels, labels + 4, label) != labels + 4) << label;
      ASSERT_EQ(slices[static_cast<size_t>(i)], label);
    }
  }
}

TEST(Resample, NearestTakesTheUpperOfTwoEquallyNear) {
  const Volume volume =
      Filled<uint8_t>(GridOf({4, 2, 2}), [](int64_t x, int64_t, int64_t) { return x; });
  auto result = Resample(volume, GridOf({3, 2, 2}, {1, 1, 1}, {0.5, 0, 0}), Interpolation::kNearest,
                         VoxelType::kUint8);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(std::vector<uint8_t>(result->bytes(), result->bytes() + 3),
            (std::vector<uint8_t>{1, 2, 3}));
}

TEST(Resample, RefusesABadTarget) {
  const Volume volume = ObliqueNoise();
  auto result = Resample(volume, GridOf({0, 4, 4}), Interpolation::kLinear, VoxelType::kInt16);
  EXPECT_TRUE(Contains(result.status(), "grid.size[0]")) << result.status();
}

TEST(CropOrPad, MovesNoVoxelInSpaceAndFillsTheRest) {
  const Volume volume = ObliqueNoise();
  const std::array<int64_t, 3> begin = {-2, 5, -1}, size = {10, 30, 19};
  auto result = CropOrPad(volume, begin, size, -5000);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->grid().size, size);
  const Vec3 place = volume.grid().PhysicalToIndex(result->grid().origin_mm);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(place[i], static_cast<double>(begin[i]), 1e-9);
  for (int64_t z = 0; z < size[2]; ++z) {
    for (int64_t y = 0; y < size[1]; ++y) {
      for (int64_t x = 0; x < size[0]; ++x) {
        const int64_t sx = x + begin[0], sy = y + begin[1], sz = z + begin[2];
        const bool inside = sx >= 0 && sx < 31 && sy >= 0 && sy < 23 && sz >= 0 && sz < 17;
        ASSERT_EQ(At<int16_t>(*result, x, y, z), inside ? At<int16_t>(volume, sx, sy, sz) : -5000);
      }
    }
  }
}

TEST(CropOrPad, BesideTheVolumeIsAllFill) {
  const Volume volume = ObliqueNoise();
  for (const int64_t begin : {int64_t{-100}, int64_t{100}, int64_t{-4}, int64_t{31}}) {
    auto result = CropOrPad(volume, {begin, 0, 0}, {4, 4, 4}, 9);
    ASSERT_TRUE(result.ok()) << result.status();
    for (int64_t i = 0; i < 64; ++i) ASSERT_EQ(result->voxels<int16_t>()[i], 9);
  }
}

TEST(CropOrPad, SaturatesTheFill) {
  const Volume volume = Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled);
  auto result = CropOrPad(volume, {-1, 0, 0}, {4, 4, 4}, -1024);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(At<uint8_t>(*result, 0, 0, 0), 0);
}

TEST(CropOrPad, RefusesPlacesAndSizesOutOfReach) {
  const Volume volume = ObliqueNoise();
  EXPECT_EQ(
      CropOrPad(volume, {std::numeric_limits<int64_t>::min(), 0, 0}, {4, 4, 4}).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CropOrPad(volume, {0, 0, 0}, {4, 4, 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gvsl
