// The shape of one phantom patient: an invertible map between the patient's space and the mean
// anatomy's.
#ifndef GVSL_IMAGING_PHANTOM_SHAPE_H_
#define GVSL_IMAGING_PHANTOM_SHAPE_H_

#include <cstdint>
#include <vector>

#include "imaging/volume.h"

namespace gvsl {

// x -> x + u(x), u a cubic B-spline field on a finite lattice of control vectors (zero outside it).
//
// Invertible by construction: the partial derivative of u along axis j is a convex combination of
// the differences of neighbouring control vectors along j, divided by the lattice's spacing. So
// with D_j = max |c[i + 1] - c[i]|_2 along j, u is Lipschitz with L = sqrt(D_0^2 + D_1^2 + D_2^2) /
// spacing (the Frobenius norm of the Jacobian of u). The control vectors are scaled until L is what
// the caller asks for, less than 1; then x -> q - u(x) is a contraction for every q (Banach), the
// map is a bijection of space, and its Jacobian determinant is at least (1 - L)^3 > 0.
class SmoothWarp {
 public:
  // Random control vectors of stream (seed, purpose) on a lattice of `spacing_mm` that covers
  // [-reach_mm, reach_mm]^3. 0 <= lipschitz < 1.
  SmoothWarp(uint64_t seed, uint64_t purpose, double spacing_mm, double reach_mm, double lipschitz);

  Vec3 Forward(const Vec3& point_mm) const;
  // Fixed-point iteration to a residual of 1e-11 mm.
  Vec3 Inverse(const Vec3& point_mm) const;

 private:
  Vec3 Displacement(const Vec3& point_mm) const;

  double spacing_mm_;
  double first_mm_;            // position of control vector 0 on every axis
  int count_;                  // control vectors an axis
  std::vector<Vec3> control_;  // [z][y][x]
};

// patient -> mean: a rigid pose, scaling with shear, then three smooth warps from coarse to fine.
class PhantomShape {
 public:
  // `variation` is clamped to [0, 3].
  PhantomShape(uint64_t patient, double variation, bool vary_pose);

  Vec3 ToMean(const Vec3& patient_mm) const;
  Vec3 FromMean(const Vec3& mean_mm) const;  // its inverse, to 1e-6 mm and much better

 private:
  Mat3 linear_;
  Mat3 linear_inverse_;
  Vec3 translation_mm_;  // subtracted from a patient's point before linear_
  std::vector<SmoothWarp> warps_;
};

}  // namespace gvsl

#endif  // GVSL_IMAGING_PHANTOM_SHAPE_H_
