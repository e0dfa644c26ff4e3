// The source samples, and their weights, that make one sample of a resampled axis.
#ifndef GVSL_IMAGING_AXIS_TAPS_H_
#define GVSL_IMAGING_AXIS_TAPS_H_

#include <cstdint>
#include <vector>

#include "imaging/resample.h"

namespace gvsl {

struct Taps {
  bool outside = false;        // more than half a voxel beyond the source
  int64_t first = 0;           // source index of weights[0]
  std::vector<float> weights;  // sum to 1
};

// How one source axis is read: interpolated, and low-passed first where the target is coarser.
class AxisFilter {
 public:
  // `ratio`: target spacing in source voxels. Anti-aliasing sets in above 1.05
  // (imaging/resample.h).
  AxisFilter(int64_t source_size, double ratio, Interpolation interpolation);

  bool anti_aliased() const { return !gaussian_.empty(); }
  // For the source coordinate `at` (voxels; 0 is the centre of the first).
  void At(double at, Taps& taps) const;

 private:
  int64_t size_;
  Interpolation interpolation_;
  std::vector<double> gaussian_;  // one side, from the centre on; empty without anti-aliasing
};

}  // namespace gvsl

#endif  // GVSL_IMAGING_AXIS_TAPS_H_
