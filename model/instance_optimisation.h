// Instance optimisation: Adam (Kingma and Ba, 2015) on the map of one pair of volumes, at one level
// of resolution. No LibTorch.
#ifndef GVSL_MODEL_INSTANCE_OPTIMISATION_H_
#define GVSL_MODEL_INSTANCE_OPTIMISATION_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "imaging/spatial_map.h"
#include "model/registration.h"
#include "model/registration_metric.h"

namespace gvsl {

struct WeightedMetric {
  double weight = 1;
  std::unique_ptr<Metric> metric;
};

// One resolution: lattices, and what is compared on them.
struct OptimisationLevel {
  Grid fixed, moving;
  std::vector<WeightedMetric> metrics;  // weights sum to 1
};

// Told after each step; a status that is not OK stops.
using StepWatch = std::function<absl::Status(int step, double similarity)>;

// Improves the affine part (rotations and shifts alone where kRigid) about `centre_mm` of fixed
// space; the displacement field must be empty. `radius_mm`: how far a typical voxel is from the
// centre, so that turns and shifts step alike.
absl::Status OptimiseLinear(OptimisationLevel& level, LinearModel model, int steps,
                            const Vec3& centre_mm, double radius_mm, const StepWatch& watch,
                            AffineMap& fixed_to_moving);

// Improves the displacement; the affine part stays. The field that comes back lies on level.fixed.
absl::Status OptimiseDisplacement(OptimisationLevel& level, int steps, double smoothness_weight,
                                  const StepWatch& watch, SpatialMap& fixed_to_moving);

// The indices in `moving` of the voxels of `fixed`.
Points MappedPoints(const Grid& fixed, const Grid& moving, const SpatialMap& fixed_to_moving);

}  // namespace gvsl

#endif  // GVSL_MODEL_INSTANCE_OPTIMISATION_H_
