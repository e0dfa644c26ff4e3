// Intensity rules that bring voxel values to a network's input range [0, 1].
#ifndef GVSL_IMAGING_INTENSITY_H_
#define GVSL_IMAGING_INTENSITY_H_

#include "imaging/volume.h"

namespace gvsl {

// How values become [0, 1]; part of a model card.
struct IntensityRule {
  enum class Method {
    kWindow,      // (clip(v + shift, low, high) - low) / (high - low)
    kMinMax,      // (v + shift - min) / (max - min) over the volume
    kPercentile,  // as kMinMax between the percentiles low and high (0..100) of the volume, clipped
  };
  Method method = Method::kWindow;
  double shift = 0;
  double low = 0;
  double high = 2048;
};

// y = clip((v - offset) * scale, 0, 1): any rule made concrete for one volume.
struct LinearIntensity {
  float offset = 0;
  float scale = 1;
};
// A constant volume gives scale 0 (all zero). Percentiles are exact over all voxels (histogram for
// integer types, selection in bounded memory for float32) and so do not depend on the voxels'
// order. INVALID_ARGUMENT if the rule itself is wrong (low >= high, percentages outside 0..100).
absl::StatusOr<LinearIntensity> MakeLinearIntensity(const IntensityRule& rule,
                                                    const Volume& volume);

void ApplyIntensity(const LinearIntensity& intensity, float* values, int64_t count);

struct ValueRange {
  double min = 0;
  double max = 0;
};
// Least and greatest voxel.
ValueRange RangeOf(const Volume& volume);
// Value at a percentage 0..100 (nearest rank).
double PercentileOf(const Volume& volume, double percent);

}  // namespace gvsl

#endif  // GVSL_IMAGING_INTENSITY_H_
