#include "imaging/intensity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "imaging/testing.h"

namespace gvsl {
namespace {

using Method = IntensityRule::Method;

IntensityRule Rule(Method method, double low = 0, double high = 1, double shift = 0) {
  IntensityRule rule;
  rule.method = method;
  rule.low = low;
  rule.high = high;
  rule.shift = shift;
  return rule;
}

// A volume of 10 x 10 x `slices` voxels with these values, repeated from the first if too few.
template <typename T>
Volume Of(const std::vector<T>& values, int64_t slices = 10) {
  return Filled<T>(GridOf({10, 10, slices}), [&](int64_t x, int64_t y, int64_t z) {
    return values[static_cast<size_t>(x + 10 * y + 100 * z) % values.size()];
  });
}

std::vector<float> Applied(const IntensityRule& rule, const Volume& volume,
                           std::vector<float> values) {
  auto intensity = MakeLinearIntensity(rule, volume);
  EXPECT_TRUE(intensity.ok()) << intensity.status();
  ApplyIntensity(*intensity, values.data(), static_cast<int64_t>(values.size()));
  return values;
}

// The definition: the ceil(percent / 100 * count)-th value in order.
template <typename T>
double SortedPercentile(const Volume& volume, double percent) {
  std::vector<T> values(volume.voxels<T>(), volume.voxels<T>() + volume.voxel_count());
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(percent * static_cast<double>(values.size()) / 100);
  return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

TEST(Window, ClipsAndScalesTheShiftedValue) {
  const Volume ct = Of<int16_t>({-1024, 3000});
  // (clip(v + 1024, 0, 2048) - 0) / 2048
  EXPECT_EQ(Applied(Rule(Method::kWindow, 0, 2048, 1024), ct, {-2000, -1024, -512, 0, 1024, 3000}),
            (std::vector<float>{0, 0, 0.25, 0.5, 1, 1}));
}

TEST(Window, DoesNotLookAtTheVolume) {
  const IntensityRule rule = Rule(Method::kWindow, -160, 240);
  const std::vector<float> values = {-300, -160, 40, 140, 240};
  EXPECT_EQ(Applied(rule, Of<int16_t>({0}), values), Applied(rule, Of<float>({1e6, -1e6}), values));
}

TEST(MinMax, SpansTheVolumeWhateverTheShift) {
  const Volume volume = Of<int16_t>({-100, 0, 300});
  for (const double shift : {0.0, 1024.0}) {
    EXPECT_EQ(Applied(Rule(Method::kMinMax, 0, 1, shift), volume, {-100, 0, 100, 300}),
              (std::vector<float>{0, 0.25, 0.5, 1}));
  }
}

TEST(MinMax, FindsTheExtremesOfEveryType) {
  const std::vector<double> values = {100, 3, 250, 7, 44};
  EXPECT_EQ(RangeOf(Of<uint8_t>({100, 3, 250, 7})).max, 250);
  EXPECT_EQ(RangeOf(Of<int16_t>({-32768, 3, 32767})).min, -32768);
  EXPECT_EQ(RangeOf(Of<uint16_t>({65535, 3, 1})).max, 65535);
  EXPECT_EQ(RangeOf(Of<int32_t>({-2147483647 - 1, 3, 2147483647})).min, -2147483648.0);
  EXPECT_EQ(RangeOf(Of<int32_t>({-2147483647 - 1, 3, 2147483647})).max, 2147483647);
  EXPECT_EQ(RangeOf(Of<float>({-0.5f, 3, 1e30f})).max, static_cast<double>(1e30f));
}

TEST(Percentile, IsTheNearestRankForEveryType) {
  const Grid grid = GridOf({20, 25, 3});
  const Volume uint8 = Filled<uint8_t>(
      grid, [](auto x, auto y, auto z) { return (Scrambled(x, y, z) + 1000) % 256; });
  const Volume int16 = Filled<int16_t>(grid, Scrambled);
  const Volume uint16 = Filled<uint16_t>(
      grid, [](auto x, auto y, auto z) { return 31 * (Scrambled(x, y, z) + 1000); });
  const Volume int32 =
      Filled<int32_t>(grid, [](auto x, auto y, auto z) { return 2000000 * Scrambled(x, y, z); });
  // Over 60 decades and both signs.
  const Volume float32 = Filled<float>(grid, [](auto x, auto y, auto z) {
    const double value = Scrambled(x, y, z);
    return std::copysign(std::pow(10.0, std::abs(value) / 17 - 30), value);
  });
  for (const double percent : {0.0, 0.01, 0.5, 1.0, 7.0, 25.0, 50.0, 66.6, 99.5, 99.99, 100.0}) {
    EXPECT_EQ(PercentileOf(uint8, percent), SortedPercentile<uint8_t>(uint8, percent)) << percent;
    EXPECT_EQ(PercentileOf(int16, percent), SortedPercentile<int16_t>(int16, percent)) << percent;
    EXPECT_EQ(PercentileOf(uint16, percent), SortedPercentile<uint16_t>(uint16, percent));
    EXPECT_EQ(PercentileOf(int32, percent), SortedPercentile<int32_t>(int32, percent)) << percent;
    EXPECT_EQ(PercentileOf(float32, percent), SortedPercentile<float>(float32, percent)) << percent;
  }
}

TEST(Percentile, OfAWholePercentageIsItsVoxel) {
  // 7 / 100.0 * 100 is above 7 in double: the rank must not become 8.
  std::vector<int16_t> values(100);
  for (int i = 0; i < 100; ++i) values[static_cast<size_t>(i)] = static_cast<int16_t>(i + 1);
  const Volume volume = Of(values, 2);  // each value twice
  for (int percent = 1; percent <= 100; ++percent) {
    EXPECT_EQ(PercentileOf(volume, percent), percent);
  }
}

TEST(Percentile, RuleClipsToThePercentiles) {
  std::vector<float> values(1000);
  for (int i = 0; i < 1000; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i + 1);
  const Volume volume = Of(values);
  // Percentiles 10 and 90 are the values 100 and 900.
  EXPECT_EQ(Applied(Rule(Method::kPercentile, 10, 90), volume, {-5, 100, 300, 500, 900, 5000}),
            (std::vector<float>{0, 0, 0.25, 0.5, 1, 1}));
}

TEST(Percentile, OutlierOfFloatDoesNotCoarsenIt) {
  // A histogram of equal bins would lose everything beside one huge voxel.
  std::vector<float> values(1000, 0.25f);
  for (size_t i = 0; i < 500; ++i) values[i] = 0.125f;
  values[999] = std::numeric_limits<float>::max();
  EXPECT_EQ(PercentileOf(Of(values), 50), 0.125);
  EXPECT_EQ(PercentileOf(Of(values), 51), 0.25);
}

TEST(Intensity, DoesNotDependOnTheOrderOfVoxels) {
  const Grid grid = GridOf({23, 17, 5});
  const auto value = [](int64_t x, int64_t y, int64_t z) { return 1e-3 * Scrambled(x, y, z); };
  const Volume volume = Filled<float>(grid, value);
  const Volume turned = Filled<float>(
      grid, [&](int64_t x, int64_t y, int64_t z) { return value(22 - x, 16 - y, 4 - z); });
  for (const Method method : {Method::kMinMax, Method::kPercentile}) {
    auto a = MakeLinearIntensity(Rule(method, 0.5, 99.5), volume);
    auto b = MakeLinearIntensity(Rule(method, 0.5, 99.5), turned);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(a->offset, b->offset);
    EXPECT_EQ(a->scale, b->scale);
  }
}

TEST(Intensity, OfAConstantVolumeIsZero) {
  for (const float constant : {0.0f, -7.5f, 1e20f}) {
    const Volume volume = Of<float>({constant});
    for (const Method method : {Method::kMinMax, Method::kPercentile}) {
      EXPECT_EQ(Applied(Rule(method, 1, 99), volume, {constant}), std::vector<float>{0});
    }
  }
}

TEST(Intensity, StaysFiniteWhereTheRangeIsTiny) {
  // 1 / 1e-40 is infinite in float32, and infinity times 0 is no number.
  for (const float value : Applied(Rule(Method::kMinMax), Of<float>({0, 1e-40f}), {0, 1e-40f})) {
    EXPECT_TRUE(value >= 0 && value <= 1) << value;
  }
}

TEST(Intensity, RefusesRulesThatMeanNothing) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::pair<IntensityRule, std::string> bad[] = {
      {Rule(Method::kWindow, 100, 100), "intensity.low"},
      {Rule(Method::kWindow, 200, 100), "intensity.low"},
      {Rule(Method::kPercentile, 99, 1), "intensity.low"},
      {Rule(Method::kPercentile, -1, 99), "percentiles"},
      {Rule(Method::kPercentile, 1, 100.5), "percentiles"},
      {Rule(Method::kWindow, nan, 1), "finite"},
      {Rule(Method::kWindow, 0, infinity), "finite"},
      {Rule(Method::kMinMax, 0, 1, nan), "finite"}};
  const Volume volume = Of<int16_t>({1, 2, 3});
  for (const auto& [rule, reason] : bad) {
    auto intensity = MakeLinearIntensity(rule, volume);
    EXPECT_EQ(intensity.status().code(), absl::StatusCode::kInvalidArgument) << reason;
    EXPECT_TRUE(Contains(intensity.status(), reason)) << intensity.status();
  }
}

}  // namespace
}  // namespace gvsl
