// ControlGrid: displacements as a uniform cubic B-spline over a lattice (Rueckert et al., 1999).
#ifndef GVSL_MODEL_CONTROL_GRID_H_
#define GVSL_MODEL_CONTROL_GRID_H_

#include <array>
#include <cstdint>
#include <vector>

#include "imaging/spatial_map.h"
#include "imaging/volume.h"

namespace gvsl {

// Three components (L, P, S in mm), one array each.
using VectorArrays = std::array<std::vector<float>, 3>;

class ControlGrid {
 public:
  // A control point every `stride` voxels of `lattice`, and one row of them beyond each border.
  ControlGrid(const Grid& lattice, int64_t stride);

  int64_t size() const { return count_[0] * count_[1] * count_[2]; }
  VectorArrays& coefficients() { return coefficients_; }
  const VectorArrays& coefficients() const { return coefficients_; }

  // Sets the coefficients so that the spline follows `field`; what is finer than the control points
  // is lost.
  void Fit(const DisplacementField& field);
  // The displacement at every voxel of the lattice; resizes.
  void Evaluate(VectorArrays& displacement) const;
  // The transpose: what a gradient in the displacements is in the coefficients; resizes.
  void Gather(const VectorArrays& by_displacement, VectorArrays& by_coefficient) const;

  // Mean squared slope of the coefficients (mm a mm), over the nine parts; adds `weight` times its
  // gradient to `gradient`.
  double Smoothness(double weight, VectorArrays& gradient) const;

 private:
  struct Axis {
    std::vector<int64_t> first;                 // control point of each voxel's first weight
    std::vector<std::array<float, 4>> weights;  // of each voxel
  };

  const Grid lattice_;
  const int64_t stride_;
  std::array<int64_t, 3> count_;
  std::array<Axis, 3> axes_;
  VectorArrays coefficients_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_CONTROL_GRID_H_
