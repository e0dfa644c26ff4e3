#include "imaging/intensity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/parallel.h"

namespace gvsl {
namespace {

// A key that orders as the values do, so that one selection serves every type.
template <typename T>
uint32_t OrderedKey(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  } else {
    return static_cast<uint32_t>(static_cast<int64_t>(value) + (int64_t{1} << 31));
  }
}

template <typename T>
double ValueOfKey(uint32_t key) {
  if constexpr (std::is_floating_point_v<T>) {
    const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  } else {
    return static_cast<double>(static_cast<int64_t>(key) - (int64_t{1} << 31));
  }
}

// Counts of the 16 key bits above `shift`, over the keys whose higher bits are `prefix`.
template <typename T>
std::vector<int64_t> Histogram(const T* values, int64_t count, int shift, uint32_t prefix) {
  std::vector<int64_t> total(1 << 16);
  std::mutex mutex;
  ParallelFor(count, 0, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> own(1 << 16);
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t key = OrderedKey(values[i]);
      if (shift == 16 || key >> 16 == prefix) ++own[(key >> shift) & 0xffff];
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < own.size(); ++i) total[i] += own[i];
  });
  return total;
}

// The bin that holds the `rank`-th count (from 1); `rank` becomes the rank within it.
uint32_t BinOf(const std::vector<int64_t>& histogram, int64_t& rank) {
  uint32_t bin = 0;
  while (rank > histogram[bin]) rank -= histogram[bin++];
  return bin;
}

}  // namespace

ValueRange RangeOf(const Volume& volume) {
  return VisitVoxelType(volume.type(), [&](auto zero) {
    using T = decltype(zero);
    const T* values = volume.voxels<T>();
    ValueRange range = {static_cast<double>(values[0]), static_cast<double>(values[0])};
    std::mutex mutex;
    ParallelFor(volume.voxel_count(), 0, [&](int64_t begin, int64_t end) {
      T low = values[begin], high = low;
      for (int64_t i = begin; i < end; ++i) {
        low = std::min(low, values[i]);
        high = std::max(high, values[i]);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      range.min = std::min(range.min, static_cast<double>(low));
      range.max = std::max(range.max, static_cast<double>(high));
    });
    return range;
  });
}

double PercentileOf(const Volume& volume, double percent) {
  const int64_t count = volume.voxel_count();
  // In this order: 7 / 100.0 * 100 is above 7.
  int64_t rank = static_cast<int64_t>(std::ceil(percent * static_cast<double>(count) / 100));
  rank = std::clamp<int64_t>(rank, 1, count);
  return VisitVoxelType(volume.type(), [&](auto zero) {
    using T = decltype(zero);
    const T* values = volume.voxels<T>();
    const uint32_t high = BinOf(Histogram(values, count, 16, 0), rank);
    const uint32_t low = BinOf(Histogram(values, count, 0, high), rank);
    return ValueOfKey<T>(high << 16 | low);
  });
}

absl::StatusOr<LinearIntensity> MakeLinearIntensity(const IntensityRule& rule,
                                                    const Volume& volume) {
  if (!std::isfinite(rule.shift) || !std::isfinite(rule.low) || !std::isfinite(rule.high)) {
    return absl::InvalidArgumentError("intensity: shift, low and high must be finite");
  }
  double low = rule.low, high = rule.high;
  if (rule.method == IntensityRule::Method::kMinMax) {
    const ValueRange range = RangeOf(volume);
    low = range.min + rule.shift;
    high = range.max + rule.shift;
  } else if (low >= high) {
    return absl::InvalidArgumentError(
        absl::StrCat("intensity.low: ", low, " is not below intensity.high, ", high));
  } else if (rule.method == IntensityRule::Method::kPercentile) {
    if (low < 0 || high > 100) {
      return absl::InvalidArgumentError(
          absl::StrCat("intensity: percentiles ", low, " and ", high, " must lie in 0 to 100"));
    }
    low = PercentileOf(volume, rule.low) + rule.shift;
    high = PercentileOf(volume, rule.high) + rule.shift;
  }
  LinearIntensity linear;
  linear.offset = static_cast<float>(low - rule.shift);
  // A range below float32's reach is constant, too.
  linear.scale =
      high - low > std::numeric_limits<float>::min() ? static_cast<float>(1 / (high - low)) : 0;
  return linear;
}

void ApplyIntensity(const LinearIntensity& intensity, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] = std::clamp((values[i] - intensity.offset) * intensity.scale, 0.0f, 1.0f);
  }
}

}  // namespace gvsl
