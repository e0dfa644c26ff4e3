// SpatialMap: where the points of one volume lie in another. An affine map and a displacement
// field, in LPS mm; the result of a registration, and all that is needed to apply it later.
//
//   SpatialMap fixed_to_moving;                        // the identity
//   Vec3 in_moving = fixed_to_moving.Apply(in_fixed);  // affine(x + u(x))
#ifndef GVSL_IMAGING_SPATIAL_MAP_H_
#define GVSL_IMAGING_SPATIAL_MAP_H_

#include <vector>

#include "absl/status/statusor.h"
#include "imaging/volume.h"

namespace gvsl {

// x -> matrix x + translation, in LPS mm.
struct AffineMap {
  Mat3 matrix = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  Vec3 translation_mm = {0, 0, 0};

  Vec3 Apply(const Vec3& point_mm) const;
  // The one that undoes it. INVALID_ARGUMENT where the matrix is singular.
  absl::StatusOr<AffineMap> Inverse() const;
};
// x -> outer(inner(x)).
AffineMap Composed(const AffineMap& outer, const AffineMap& inner);
double Determinant(const Mat3& matrix);
Mat3 Product(const Mat3& a, const Mat3& b);
// A lattice's two maps between (fractional) indices and points in mm.
AffineMap IndexToPhysicalMap(const Grid& grid);
AffineMap PhysicalToIndexMap(const Grid& grid);

// Displacements in LPS mm on a lattice, linear in between. Outside of the lattice the nearest value
// of its border holds, so that a map has no step there.
struct DisplacementField {
  Grid grid;                     // a direction of any kind; sides of at least 1
  std::vector<float> values_mm;  // [component L, P, S][slice][row][column]; empty: zero everywhere

  bool empty() const { return values_mm.empty(); }
};

struct SpatialMap {
  AffineMap affine;
  DisplacementField displacement;  // applied first

  Vec3 Apply(const Vec3& point_mm) const;
};

// A map made ready for many points; the map must outlive it. Thread-safe: const.
class PointMapper {
 public:
  explicit PointMapper(const SpatialMap& map);
  Vec3 operator()(const Vec3& point_mm) const;
  // u(x) alone.
  Vec3 Displacement(const Vec3& point_mm) const;

 private:
  const SpatialMap& map_;
  AffineMap to_index_;
};

// The determinants of the map's Jacobian (change of volume), by differences on the field's own
// lattice, one a voxel; an affine map alone has one.
struct JacobianStatistics {
  double min = 1;
  double max = 1;
  double non_positive_percent = 0;  // folds
  double sd_log = 0;                // standard deviation of the logarithm where positive (SDlogJ)
};
JacobianStatistics JacobianOf(const SpatialMap& map);

// Mean over the lattice of the squared slopes of the displacement (mm a mm), summed over its nine
// parts; 0 for none.
double DeformationEnergy(const DisplacementField& field);

// The inverse of a map on the lattice `grid` of its target, by fixed-point iteration (Chen et al.,
// Medical Physics 2008), and how far map(inverse(y)) ends from y over the lattice.
struct InverseMap {
  SpatialMap map;
  double mean_residual_mm = 0;
  double max_residual_mm = 0;  // large where the map folds, or y has no source
};
// INVALID_ARGUMENT where the affine part is singular.
absl::StatusOr<InverseMap> Invert(const SpatialMap& map, const Grid& grid);

}  // namespace gvsl

#endif  // GVSL_IMAGING_SPATIAL_MAP_H_
