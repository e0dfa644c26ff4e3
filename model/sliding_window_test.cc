#include "model/sliding_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace gvsl {
namespace {

// Calls body(axis, size, window, overlap) for axes of many kinds.
template <typename F>
void ForManyAxes(F&& body) {
  for (int64_t window : {16, 48, 64}) {
    for (double overlap : {0.0, 0.25, 0.5, 0.75}) {
      for (int64_t size : {1, 2, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 100, 129, 300}) {
        for (bool gaussian : {false, true}) {
          SCOPED_TRACE("size " + std::to_string(size) + " window " + std::to_string(window) +
                       " overlap " + std::to_string(overlap) + (gaussian ? " gaussian" : ""));
          body(WindowAxis(size, window, overlap, gaussian), size, window, overlap);
        }
      }
    }
  }
}

TEST(WindowAxis, CoversEveryVoxelWithWeightsThatSumToOne) {
  ForManyAxes([](const WindowAxis& axis, int64_t size, int64_t, double) {
    std::vector<double> sum(static_cast<size_t>(size), 0);
    for (int64_t k = 0; k < axis.count(); ++k) {
      ASSERT_LE(0, axis.begin(k));
      ASSERT_LT(axis.begin(k), axis.end(k));
      ASSERT_LE(axis.end(k), size);
      for (int64_t v = axis.begin(k); v < axis.end(k); ++v) {
        EXPECT_GT(axis.weight(k, v), 0.0f);
        sum[static_cast<size_t>(v)] += axis.weight(k, v);
      }
    }
    // At most five weights, each rounded to float32.
    for (double total : sum) EXPECT_NEAR(total, 1, 5 * 6e-8);
  });
}

TEST(WindowAxis, PlacesWindowsInOrderEachOverlappingTheNextByAtLeastWhatWasAsked) {
  ForManyAxes([](const WindowAxis& axis, int64_t size, int64_t window, double overlap) {
    if (size <= window) {
      EXPECT_EQ(axis.count(), 1);
      return;
    }
    EXPECT_EQ(axis.side(), window);
    EXPECT_EQ(axis.start(0), 0);
    EXPECT_EQ(axis.start(axis.count() - 1), size - window) << "the last is flush with the end";
    for (int64_t k = 1; k < axis.count(); ++k) {
      EXPECT_GT(axis.start(k), axis.start(k - 1));
      EXPECT_LE(static_cast<double>(axis.start(k) - axis.start(k - 1)),
                static_cast<double>(window) * (1 - overlap));
    }
  });
}

TEST(WindowAxis, PadsAShortAxisAsTheOfficialNetworkDoes) {
  // To a multiple of 16, half of what is missing before, rounded down.
  for (const auto& [size, side, start] : {std::array<int64_t, 3>{1, 16, -7},
                                          {2, 16, -7},
                                          {15, 16, 0},
                                          {16, 16, 0},
                                          {17, 32, -7},
                                          {50, 64, -7}}) {
    const WindowAxis axis(size, 64, 0.25, true);
    EXPECT_EQ(axis.side(), side) << size;
    EXPECT_EQ(axis.start(0), start) << size;
    EXPECT_EQ(axis.begin(0), 0);
    EXPECT_EQ(axis.end(0), size);
  }
}

TEST(WindowAxis, SharesEquallyWithoutGaussianBlending) {
  const WindowAxis axis(24, 16, 0.5, false);
  ASSERT_EQ(axis.count(), 2);
  EXPECT_EQ(axis.weight(0, 7), 1.0f);
  EXPECT_EQ(axis.weight(0, 8), 0.5f);
  EXPECT_EQ(axis.weight(1, 15), 0.5f);
  EXPECT_EQ(axis.weight(1, 16), 1.0f);
}

TEST(WindowAxis, WeighsByAGaussianOfAnEighthOfTheWindowAboutItsCentre) {
  const WindowAxis axis(24, 16, 0.5, true);    // windows at 0 and 8
  const auto gaussian = [](double distance) {  // sigma: 2 voxels; never below a thousandth
    return std::max(std::exp(-distance * distance / 8), 1e-3);
  };
  for (int64_t v = 8; v < 16; ++v) {
    const double first = gaussian(static_cast<double>(v) - 7.5),
                 second = gaussian(static_cast<double>(v) - 15.5);
    EXPECT_NEAR(axis.weight(0, v), first / (first + second), 1e-7) << v;
    EXPECT_NEAR(axis.weight(0, v), axis.weight(1, 23 - v), 1e-7) << v;
  }
}

}  // namespace
}  // namespace gvsl
