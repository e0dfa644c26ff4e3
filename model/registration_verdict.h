// The figures of a registration and what they are worth. No LibTorch.
#ifndef GVSL_MODEL_REGISTRATION_VERDICT_H_
#define GVSL_MODEL_REGISTRATION_VERDICT_H_

#include "imaging/spatial_map.h"
#include "model/registration.h"
#include "model/registration_metric.h"

namespace gvsl {

struct AlignmentFigures {
  double ncc = 0;        // Pearson
  double local_ncc = 0;  // mean squared, where the fixed image is not flat
  double overlap_percent = 0;
};
// Of two images of one channel under a map.
AlignmentFigures FiguresOf(const LevelImage& fixed, const LevelImage& moving,
                           const SpatialMap& fixed_to_moving);

// The same for each of at most `regions` parts of the fixed lattice along each axis.
RegionSimilarity RegionsOf(const LevelImage& fixed, const LevelImage& moving,
                           const SpatialMap& fixed_to_moving, int regions);

// 1 - mean cosine of dense features (as DenseFeatures has them) under a map; 1 without overlap.
double FeatureResidual(const LevelImage& fixed, const LevelImage& moving,
                       const SpatialMap& fixed_to_moving);

// Mean distance between the voxels of `fixed` and where the two maps bring them back to, over those
// that the moving volume shows.
double InverseConsistencyMm(const Grid& fixed, const Grid& moving,
                            const SpatialMap& fixed_to_moving, const SpatialMap& moving_to_fixed);

// Sets quality and reason by the other figures and the affine part. More local correlation is asked
// for where a deformation has climbed just that.
void Judge(const AffineMap& fixed_to_moving, bool climbed, RegistrationVerdict& verdict);

}  // namespace gvsl

#endif  // GVSL_MODEL_REGISTRATION_VERDICT_H_
