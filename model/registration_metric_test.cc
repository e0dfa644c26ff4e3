// The written-out gradients against finite differences, and the correlation against LibTorch's.
#include "model/registration_metric.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "imaging/testing.h"
#include "model/losses.h"
#include "model/mind.h"

namespace gvsl {
namespace {

// A smooth image in 0..1 with structure at several scales.
LevelImage Smooth(const std::array<int64_t, 3>& size, double phase, int64_t channels = 1) {
  LevelImage image;
  image.grid = GridOf(size);
  image.channels = channels;
  for (int64_t z = 0; z < size[2]; ++z) {
    for (int64_t y = 0; y < size[1]; ++y) {
      for (int64_t x = 0; x < size[0]; ++x) {
        for (int64_t c = 0; c < channels; ++c) {
          image.values.push_back(
              static_cast<float>(0.5 + 0.2 * std::sin(0.5 * static_cast<double>(x + c) + phase) +
                                 0.2 * std::cos(0.4 * static_cast<double>(y) - phase) *
                                     std::sin(0.3 * static_cast<double>(z) + 1)));
        }
        image.counted.push_back(1);
      }
    }
  }
  return image;
}

// Every fixed voxel at its own index, off by a fraction, so that no point sits on a voxel.
Points Offset(const Grid& grid, float by) {
  Points points;
  for (int64_t i = 0; i < grid.voxel_count(); ++i) {
    points[0].push_back(static_cast<float>(i % grid.size[0]) + by);
    points[1].push_back(static_cast<float>(i / grid.size[0] % grid.size[1]) + 0.7f * by);
    points[2].push_back(static_cast<float>(i / (grid.size[0] * grid.size[1])) + 0.4f * by);
  }
  return points;
}

Points Zeros(const Grid& grid) {
  Points zeros;
  for (auto& axis : zeros) axis.assign(static_cast<size_t>(grid.voxel_count()), 0.0f);
  return zeros;
}

// All points moved along the gradient, the fastest by one voxel a unit: the similarity changes by
// the gradient's product with that.
void ExpectGradient(Metric& metric, const Points& points, const Grid& grid) {
  Points gradient = Zeros(grid), ignored = Zeros(grid);
  metric.Evaluate(points, 1, gradient);
  float most = 0;
  for (const auto& axis : gradient) {
    for (float value : axis) most = std::max(most, std::abs(value));
  }
  ASSERT_GT(most, 0);
  double expected = 0;
  for (const auto& axis : gradient) {
    for (float value : axis) expected += static_cast<double>(value) * value / most;
  }
  const auto at = [&](float step) {
    Points moved = points;
    for (size_t axis = 0; axis < 3; ++axis) {
      for (size_t i = 0; i < moved[axis].size(); ++i) {
        moved[axis][i] += step * gradient[axis][i] / most;
      }
    }
    return metric.Evaluate(moved, 0, ignored);
  };
  const float step = 0.02f;  // no point leaves its cell
  const double measured = (at(step) - at(-step)) / (2 * step);
  EXPECT_NEAR(measured, expected, 0.02 * expected);  // float32 sums
}

TEST(LocalCorrelationMetricTest, ItsGradientIsThatOfFiniteDifferences) {
  LevelImage fixed = Smooth({17, 14, 12}, 0), moving = Smooth({19, 16, 13}, 0.4);
  for (size_t i = 0; i < 900; ++i) fixed.counted[i] = 0;
  ExpectGradient(*MakeLocalCorrelationMetric(fixed, moving), Offset(fixed.grid, 0.3f), fixed.grid);
}

TEST(LocalCorrelationMetricTest, AgreesWithTheTrainingLoss) {
  LevelImage fixed = Smooth({17, 14, 12}, 0), moving = Smooth({17, 14, 12}, 0.4);
  for (size_t i = 0; i < 900; ++i) fixed.counted[i] = 0;
  Points gradient = Zeros(fixed.grid);
  const double ours =
      MakeLocalCorrelationMetric(fixed, moving)->Evaluate(Offset(fixed.grid, 0), 1, gradient);
  const auto tensor = [](LevelImage& image) {
    return torch::from_blob(image.values.data(), {1, 1, 12, 14, 17});
  };
  const torch::Tensor inside =
      torch::from_blob(fixed.counted.data(), {1, 1, 12, 14, 17}, torch::kUInt8).to(torch::kFloat);
  // Sums in float32 in another order.
  EXPECT_NEAR(ours, LocalCorrelation(tensor(fixed), tensor(moving), 9, inside).item<double>(),
              1e-4);
}

TEST(LocalCorrelationMetricTest, PaddingAndMaskedVoxelsDoNotMatter) {
  LevelImage fixed = Smooth({16, 16, 16}, 0), moving = fixed;
  for (size_t i = 0; i < 1000; ++i) {
    moving.values[i] = 100;
    moving.counted[i] = 0;
  }
  Points gradient = Zeros(fixed.grid);
  // What both show is the same.
  EXPECT_GT(MakeLocalCorrelationMetric(fixed, moving)->Evaluate(Offset(fixed.grid, 0), 1, gradient),
            0.95);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(gradient[0][i], 0) << "a voxel that does not count";
}

TEST(LocalCorrelationMetricTest, IsNothingWithoutOverlap) {
  const LevelImage image = Smooth({10, 10, 10}, 0);
  Points gradient = Zeros(image.grid);
  EXPECT_EQ(MakeLocalCorrelationMetric(image, image)->Evaluate(Offset(image.grid, 50), 1, gradient),
            0);
}

TEST(DescriptorMetricTest, ItsGradientIsThatOfFiniteDifferences) {
  const LevelImage fixed = Smooth({15, 12, 10}, 0, 5), moving = Smooth({16, 13, 12}, 0.6, 5);
  ExpectGradient(*MakeDescriptorMetric(fixed, moving), Offset(fixed.grid, 0.3f), fixed.grid);
}

TEST(MindTest, DoesNotChangeWithContrastAndIsOneAtTheNearestPair) {
  LevelImage image = Smooth({12, 12, 12}, 0.3);
  LevelImage inverted = image;
  for (float& value : inverted.values) value = 5 - 3 * value;
  const LevelImage a = MindDescriptors(image), b = MindDescriptors(inverted);
  ASSERT_EQ(a.channels, 12);
  for (size_t i = 0; i < a.values.size(); i += 12) {
    float most = 0;
    for (size_t c = 0; c < 12; ++c) {
      // Differences of float32 intensities up to 5.
      ASSERT_NEAR(a.values[i + c], b.values[i + c], 2e-3);
      most = std::max(most, a.values[i + c]);
    }
    ASSERT_EQ(most, 1) << "of the most alike pair";
  }
}

}  // namespace
}  // namespace gvsl
