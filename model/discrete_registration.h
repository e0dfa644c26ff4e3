// A discrete search for large displacements: ConvexAdam's first half (Siebert, Hansen and Heinrich,
// 2021), by coupled convex optimisation (Heinrich, Papiez et al., 2014). No LibTorch.
#ifndef GVSL_MODEL_DISCRETE_REGISTRATION_H_
#define GVSL_MODEL_DISCRETE_REGISTRATION_H_

#include "imaging/spatial_map.h"
#include "model/registration_metric.h"

namespace gvsl {

// The displacement in fixed space, before `affine`, that makes the descriptors agree: one vector
// for each cell of 4^3 voxels, of whole cells up to 4 away along each axis, made smooth. Both
// images are descriptors with equal channels. Memory: twice 729 float32 a cell.
DisplacementField DiscreteDisplacement(const LevelImage& fixed, const LevelImage& moving,
                                       const AffineMap& affine);

}  // namespace gvsl

#endif  // GVSL_MODEL_DISCRETE_REGISTRATION_H_
