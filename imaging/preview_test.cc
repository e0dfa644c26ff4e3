#include "imaging/preview.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "imaging/orientation.h"
#include "imaging/png.h"
#include "imaging/resample.h"
#include "imaging/testing.h"
#include "imaging/testing_png.h"

namespace gvsl {
namespace {

PreviewOptions Options(double window_min, double window_max, int max_edge) {
  PreviewOptions options;
  options.window_min = window_min;
  options.window_max = window_max;
  options.max_edge = max_edge;
  return options;
}

DecodedPng Preview(const Volume& volume, const PreviewOptions& options) {
  auto png = PreviewPng(volume, options);
  EXPECT_TRUE(png.ok()) << png.status();
  return Decoded(*png);
}

// 32 voxels a side in LPS axes; grows along one physical axis, 0 at its negative end, 255 at its
// positive one.
Volume GrowingAlong(int axis) {
  return Filled<int16_t>(GridOf({32, 32, 32}), [&](int64_t x, int64_t y, int64_t z) {
    return std::array<int64_t, 3>{x, y, z}[static_cast<size_t>(axis)] * 255 / 31;
  });
}

// With max_edge 32 each plane is 32 x 32 pixels, 4 pixels apart: axial, coronal, sagittal.
constexpr int kSide = 32, kStep = 36;
const PreviewOptions kFull = Options(0, 255, kSide);

TEST(Preview, ShowsThreePlanesSideBySide) {
  const DecodedPng picture = Preview(GrowingAlong(0), kFull);
  EXPECT_EQ(picture.width, 3 * kSide + 2 * 4);
  EXPECT_EQ(picture.height, kSide);
}

TEST(Preview, PatientsRightIsOnTheLeftOfAxialAndCoronal) {
  const DecodedPng picture = Preview(GrowingAlong(0), kFull);  // bright to the patient's left
  for (const int plane : {0, 1}) {
    EXPECT_EQ(picture.Grey(plane * kStep, 16), 0);
    EXPECT_EQ(picture.Grey(plane * kStep + 31, 16), 255);
    EXPECT_EQ(picture.Grey(plane * kStep + 8, 3), picture.Grey(plane * kStep + 8, 28));
  }
  // The sagittal plane lies across this axis: voxel 16 of 32.
  EXPECT_EQ(picture.Grey(2 * kStep + 3, 5), 16 * 255 / 31);
  EXPECT_EQ(picture.Grey(2 * kStep + 30, 25), 16 * 255 / 31);
}

TEST(Preview, AnteriorIsUpInTheAxialAndLeftInTheSagittalPlane) {
  const DecodedPng picture = Preview(GrowingAlong(1), kFull);  // bright to posterior
  EXPECT_EQ(picture.Grey(16, 0), 0);
  EXPECT_EQ(picture.Grey(16, 31), 255);
  EXPECT_EQ(picture.Grey(kStep + 16, 2), picture.Grey(kStep + 16, 29));
  EXPECT_EQ(picture.Grey(2 * kStep, 16), 0);
  EXPECT_EQ(picture.Grey(2 * kStep + 31, 16), 255);
}

TEST(Preview, SuperiorIsUpInTheCoronalAndSagittalPlanes) {
  const DecodedPng picture = Preview(GrowingAlong(2), kFull);  // bright to superior
  EXPECT_EQ(picture.Grey(3, 2), picture.Grey(28, 29));
  for (const int plane : {1, 2}) {
    EXPECT_EQ(picture.Grey(plane * kStep + 16, 0), 255);
    EXPECT_EQ(picture.Grey(plane * kStep + 16, 31), 0);
  }
}

TEST(Preview, IsTheSamePictureForEveryStoredOrientation) {
  Grid grid = GridOf({33, 40, 21}, {0.8, 0.7, 2.1}, {5, -6, 700});
  grid.direction = Rotation(9);
  const Volume volume = Filled<int16_t>(grid, Scrambled);
  auto expected = PreviewPng(volume, Options(-1000, 1000, 64));
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const std::string codes : {"RAS", "LAS", "SPL", "AIR", "PIL"}) {
    auto stored = Reorient(volume, codes);
    ASSERT_TRUE(stored.ok()) << stored.status();
    auto png = PreviewPng(*stored, Options(-1000, 1000, 64));
    ASSERT_TRUE(png.ok()) << png.status();
    EXPECT_TRUE(*png == *expected) << codes;
  }
}

TEST(Preview, KeepsPhysicalProportions) {
  // 100 x 200 x 50 mm, whatever the voxels.
  const Volume volume =
      Filled<uint8_t>(GridOf({100, 50, 10}, {1, 4, 5}), [](auto, auto, auto) { return 255; });
  const DecodedPng picture = Preview(volume, Options(0, 255, 200));
  EXPECT_EQ(picture.width, 100 + 4 + 100 + 4 + 200);  // axial, coronal: L; sagittal: P
  EXPECT_EQ(picture.height, 200);                     // axial: P
  // Coronal and sagittal are 50 mm high, in the middle; the rest is black.
  EXPECT_EQ(picture.Grey(104 + 50, 74), 0);
  EXPECT_EQ(picture.Grey(104 + 50, 75), 255);
  EXPECT_EQ(picture.Grey(104 + 50, 124), 255);
  EXPECT_EQ(picture.Grey(104 + 50, 125), 0);
}

TEST(Preview, TheLongestSideIsMaxEdge) {
  for (const int edge : {16, 100, 512}) {
    const DecodedPng picture =
        Preview(Filled<uint8_t>(GridOf({20, 30, 40}), Scrambled), Options(0, 255, edge));
    EXPECT_EQ(picture.height, edge);
  }
}

TEST(Preview, AThinVolumeStillHasAPixel) {
  const DecodedPng picture =
      Preview(Filled<uint8_t>(GridOf({1000, 2, 2}), Scrambled), Options(0, 255, 16));
  EXPECT_EQ(picture.width, 16 + 4 + 16 + 4 + 1);
  EXPECT_EQ(picture.height, 1);
}

TEST(Preview, WindowRunsFromBlackToWhite) {
  const Volume volume = Filled<int16_t>(GridOf({16, 16, 16}), [](int64_t x, auto, auto) {
    return x < 4 ? -1000 : x < 8 ? 40 : x < 12 ? 140 : 3000;
  });
  const DecodedPng picture = Preview(volume, Options(-160, 240, 16));
  EXPECT_EQ(picture.Grey(1, 8), 0);
  EXPECT_EQ(picture.Grey(6, 8), 128);  // half of 255, rounded
  EXPECT_EQ(picture.Grey(10, 8), 191);
  EXPECT_EQ(picture.Grey(14, 8), 255);
}

TEST(Preview, WithoutAWindowPercentilesOfTheVolumeAreUsed) {
  // One voxel in 8000 is metal: it must not turn the rest black.
  const Volume volume = Filled<int16_t>(GridOf({20, 20, 20}), [](int64_t x, int64_t y, int64_t z) {
    return x + y + z == 0 ? 30000 : x < 10 ? 0 : 100;
  });
  const DecodedPng picture = Preview(volume, Options(0, 0, 20));
  EXPECT_EQ(picture.Grey(2, 10), 0);
  EXPECT_EQ(picture.Grey(17, 10), 255);
}

TEST(Preview, AConstantVolumeIsBlack) {
  const Volume volume = Filled<float>(GridOf({16, 16, 16}), [](auto, auto, auto) { return 7; });
  const DecodedPng picture = Preview(volume, Options(0, 0, 16));
  for (const uint8_t value : picture.rgb) ASSERT_EQ(value, 0);
}

TEST(Preview, LabelsAreColouredAndNeverBlended) {
  const Volume volume = Filled<uint8_t>(
      GridOf({64, 64, 64}), [](int64_t x, auto, auto) { return x / 8; }, VolumeKind::kLabels);
  // Shrunk by 4: interpolation would make colours of its own between two labels.
  const DecodedPng picture = Preview(volume, Options(0, 0, 16));
  std::set<std::array<int, 3>> colours;
  for (int x = 0; x < 16; ++x) colours.insert(picture.Pixel(x, 8));
  EXPECT_EQ(picture.Pixel(0, 8), (std::array<int, 3>{0, 0, 0}));  // label 0
  EXPECT_EQ(colours.size(), size_t{8});
  for (const auto& colour : colours) {
    const bool grey = colour[0] == colour[1] && colour[1] == colour[2];
    EXPECT_TRUE(!grey || colour[0] == 0);
  }
}

TEST(Preview, RefusesBadOptionsByName) {
  const Volume volume = Filled<uint8_t>(GridOf({16, 16, 16}), Scrambled);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<PreviewOptions, std::string> bad[] = {
      {Options(0, 255, 15), "max_edge"},      {Options(0, 255, 513), "max_edge"},
      {Options(0, 255, -1), "max_edge"},      {Options(10, 5, 64), "window_min"},
      {Options(10, 10, 64), "window_min"},    {Options(nan, 5, 64), "window_min"},
      {Options(0, 1 / 0.0, 64), "window_min"}};
  for (const auto& [options, field] : bad) {
    auto png = PreviewPng(volume, options);
    EXPECT_EQ(png.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_TRUE(Contains(png.status(), field)) << png.status();
  }
}

TEST(EncodePng, KeepsEveryPixel) {
  std::vector<uint8_t> rgb(3 * 7 * 5);
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(i * 37);
  auto png = EncodePngRgb(7, 5, rgb);
  ASSERT_TRUE(png.ok()) << png.status();
  const DecodedPng picture = Decoded(*png);
  EXPECT_EQ(picture.width, 7);
  EXPECT_EQ(picture.height, 5);
  EXPECT_EQ(picture.rgb, rgb);
}

TEST(EncodePng, RefusesSidesAndBytesThatDoNotAgree) {
  EXPECT_FALSE(EncodePngRgb(0, 5, {}).ok());
  EXPECT_FALSE(EncodePngRgb(7, -5, std::vector<uint8_t>(105)).ok());
  EXPECT_FALSE(EncodePngRgb(7, 5, std::vector<uint8_t>(104)).ok());
  EXPECT_FALSE(EncodePngRgb(16385, 1, std::vector<uint8_t>(3 * 16385)).ok());
}

}  // namespace
}  // namespace gvsl
