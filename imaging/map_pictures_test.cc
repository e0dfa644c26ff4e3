// Pictures of registrations; client/reports_test.cc puts them on a page.
#include "imaging/map_pictures.h"

#include <gtest/gtest.h>

#include "imaging/testing.h"
#include "imaging/testing_png.h"

namespace gvsl {
namespace {

// A bright ball, 10 mm wide, in a cube of 32 mm.
Volume Ball(const Vec3& centre) {
  return Filled<int16_t>(GridOf({32, 32, 32}), [&](auto x, auto y, auto z) {
    const double distance =
        std::hypot(static_cast<double>(x) - centre[0], static_cast<double>(y) - centre[1],
                   static_cast<double>(z) - centre[2]);
    return distance < 5 ? 1000 : 10 + (x + y + z) % 3;
  });
}

SpatialMap ShiftBy(const Vec3& mm) {
  SpatialMap map;
  map.affine.translation_mm = mm;
  return map;
}

TEST(MapPicturesTest, TheOverlayIsColouredBeforeAndGreyAfterTheRightMap) {
  const Volume fixed = Ball({16, 16, 16}), moving = Ball({24, 16, 16});
  const auto pictures = DrawMap(fixed, moving, ShiftBy({8, 0, 0}), 64);
  ASSERT_TRUE(pictures.ok()) << pictures.status();
  const DecodedPng before = Decoded(pictures->overlay_before),
                   after = Decoded(pictures->overlay_after);
  EXPECT_EQ(after.height, 64);
  // The axial plane is the first; two pixels a millimetre.
  const auto there = before.Pixel(33, 33), shifted = before.Pixel(49, 33),
             here = after.Pixel(33, 33);
  EXPECT_GT(there[1], 200) << "the fixed ball in green";
  EXPECT_LT(there[0], 50);
  EXPECT_GT(shifted[0], 200) << "the moving one in magenta";
  EXPECT_LT(shifted[1], 50);
  EXPECT_EQ(here[0], here[1]);
  EXPECT_GT(here[0], 200);
  const DecodedPng moved = Decoded(pictures->moving_after), still = Decoded(pictures->fixed);
  EXPECT_EQ(moved.Pixel(33, 33), still.Pixel(33, 33));
}

TEST(MapPicturesTest, TheJacobianSaysWhereTheMapGrowsShrinksAndFolds) {
  const Volume fixed = Ball({16, 16, 16});
  const auto colour = [&](const Vec3& scale) {
    SpatialMap map;
    for (int i = 0; i < 3; ++i) map.affine.matrix[i][i] = scale[i];
    const auto pictures = DrawMap(fixed, fixed, map, 32);
    EXPECT_TRUE(pictures.ok()) << pictures.status();
    return Decoded(pictures->jacobian).Pixel(16, 16);
  };
  using Rgb = std::array<int, 3>;
  EXPECT_EQ(colour({1, 1, 1}), (Rgb{255, 255, 255}));
  EXPECT_EQ(colour({2, 1, 1}), (Rgb{255, 0, 0}));
  EXPECT_EQ(colour({0.5, 1, 1}), (Rgb{0, 0, 255}));
  EXPECT_EQ(colour({-1, 1, 1}), (Rgb{0, 0, 0}));
}

TEST(MapPicturesTest, TheGridHasLinesAsFarApartAsItSays) {
  const Volume fixed = Ball({16, 16, 16});
  const auto pictures = DrawMap(fixed, fixed, {}, 320);  // ten pixels a millimetre
  ASSERT_TRUE(pictures.ok()) << pictures.status();
  EXPECT_EQ(pictures->line_mm, 2);  // 32 mm in about a dozen, rounded
  const DecodedPng grid = Decoded(pictures->warped_grid);
  std::vector<int> lines;
  for (int x = 0; x < 320; ++x) {
    if (grid.Pixel(x, 150)[0] > 250) lines.push_back(x);
  }
  ASSERT_GT(lines.size(), 10u);
  for (size_t i = 1; i < lines.size(); ++i) EXPECT_EQ(lines[i] - lines[i - 1], 20);
}

TEST(MapPicturesTest, RefusesASizeThatNobodySees) {
  const Volume fixed = Ball({16, 16, 16});
  EXPECT_TRUE(Contains(DrawMap(fixed, fixed, {}, 8).status(), "max_edge"));
}

}  // namespace
}  // namespace gvsl
