#include "model/registration_verdict.h"

#include <gtest/gtest.h>

#include <random>

namespace gvsl {
namespace {

// Noise in the middle of a lattice, `frame` voxels of nothing around it.
LevelImage Framed(int64_t side, int64_t frame, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0.2F, 0.8F);
  LevelImage image;
  const int64_t whole = side + 2 * frame;
  image.grid.size = {whole, whole, whole};
  image.values.assign(static_cast<size_t>(image.grid.voxel_count()), 0);
  image.counted.assign(image.values.size(), 1);
  for (int64_t z = frame; z < frame + side; ++z) {
    for (int64_t y = frame; y < frame + side; ++y) {
      for (int64_t x = frame; x < frame + side; ++x) {
        image.values[(z * whole + y) * whole + x] = uniform(random);
      }
    }
  }
  return image;
}

TEST(AlignmentFigures, ABlackSurroundDoesNotLowerTheLocalCorrelation) {
  const LevelImage image = Framed(16, 24, 1);
  const AlignmentFigures figures = FiguresOf(image, image, SpatialMap());
  EXPECT_NEAR(figures.local_ncc, 1, 1e-3);
  EXPECT_NEAR(figures.ncc, 1, 1e-6);
}

TEST(AlignmentFigures, OfABlankImageAreNothing) {
  const LevelImage blank = Framed(0, 12, 1);
  EXPECT_EQ(FiguresOf(blank, blank, SpatialMap()).local_ncc, 0);
}

}  // namespace
}  // namespace gvsl
