#include "imaging/spatial_map.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "imaging/parallel.h"

namespace gvsl {
namespace {

constexpr int kInversionSteps = 100;
// Half steps converge for slopes of the displacement up to 3, whole ones up to 1.
constexpr double kInversionRate = 0.5;
constexpr double kInversionToleranceMm = 1e-4;
constexpr double kSingular = 1e-9;  // a determinant; maps of anatomy have one near 1

// The change of the displacement along the field's index axes at the lower corner of cell
// (x, y, z): difference[axis][component], in mm. Axes of one voxel have none.
std::array<Vec3, 3> DifferencesAt(const DisplacementField& field, int64_t x, int64_t y, int64_t z) {
  const auto& size = field.grid.size;
  const int64_t plane = size[0] * size[1], voxels = plane * size[2];
  const int64_t stride[3] = {1, size[0], plane};
  const int64_t at = z * plane + y * size[0] + x;
  std::array<Vec3, 3> difference = {};
  for (int axis = 0; axis < 3; ++axis) {
    if (size[axis] == 1) continue;
    for (int c = 0; c < 3; ++c) {
      const float* values = field.values_mm.data() + c * voxels + at;
      difference[axis][c] = static_cast<double>(values[stride[axis]]) - values[0];
    }
  }
  return difference;
}

// Calls visit(differences) at the lower corner of every cell of the field, slice after slice of
// [begin, end).
template <typename Visit>
void ForEachCell(const DisplacementField& field, int64_t begin, int64_t end, const Visit& visit) {
  const auto& size = field.grid.size;
  for (int64_t z = begin; z < end; ++z) {
    for (int64_t y = 0; y < std::max<int64_t>(1, size[1] - 1); ++y) {
      for (int64_t x = 0; x < std::max<int64_t>(1, size[0] - 1); ++x) {
        visit(DifferencesAt(field, x, y, z));
      }
    }
  }
}

int64_t CellSlices(const DisplacementField& field) {
  return std::max<int64_t>(1, field.grid.size[2] - 1);
}

}  // namespace

double Determinant(const Mat3& m) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

Mat3 Product(const Mat3& a, const Mat3& b) {
  Mat3 product = {};
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      for (int k = 0; k < 3; ++k) product[r][c] += a[r][k] * b[k][c];
    }
  }
  return product;
}

Vec3 AffineMap::Apply(const Vec3& point_mm) const {
  Vec3 result = translation_mm;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) result[r] += matrix[r][c] * point_mm[c];
  }
  return result;
}

absl::StatusOr<AffineMap> AffineMap::Inverse() const {
  const double determinant = Determinant(matrix);
  if (!(std::abs(determinant) > kSingular)) {
    return absl::InvalidArgumentError(absl::StrCat("affine: its determinant is ", determinant,
                                                   "; a map that flattens space has no inverse"));
  }
  AffineMap inverse;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      const int r1 = (c + 1) % 3, r2 = (c + 2) % 3, c1 = (r + 1) % 3, c2 = (r + 2) % 3;
      inverse.matrix[r][c] =
          (matrix[r1][c1] * matrix[r2][c2] - matrix[r1][c2] * matrix[r2][c1]) / determinant;
    }
  }
  const Vec3 moved = inverse.Apply(translation_mm);
  for (int r = 0; r < 3; ++r) inverse.translation_mm[r] = -moved[r];
  return inverse;
}

AffineMap Composed(const AffineMap& outer, const AffineMap& inner) {
  return {Product(outer.matrix, inner.matrix), outer.Apply(inner.translation_mm)};
}

AffineMap IndexToPhysicalMap(const Grid& grid) {
  AffineMap map;
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) map.matrix[r][i] = grid.direction[r][i] * grid.spacing_mm[i];
  }
  map.translation_mm = grid.origin_mm;
  return map;
}

AffineMap PhysicalToIndexMap(const Grid& grid) {
  AffineMap map;
  map.translation_mm = grid.PhysicalToIndex({0, 0, 0});
  for (int axis = 0; axis < 3; ++axis) {
    Vec3 unit = {0, 0, 0};
    unit[axis] = 1;
    const Vec3 index = grid.PhysicalToIndex(unit);
    for (int r = 0; r < 3; ++r) map.matrix[r][axis] = index[r] - map.translation_mm[r];
  }
  return map;
}

PointMapper::PointMapper(const SpatialMap& map) : map_(map) {
  if (!map.displacement.empty()) to_index_ = PhysicalToIndexMap(map.displacement.grid);
}

Vec3 PointMapper::Displacement(const Vec3& point_mm) const {
  const DisplacementField& field = map_.displacement;
  if (field.empty()) return {0, 0, 0};
  const auto& size = field.grid.size;
  const int64_t stride[3] = {1, size[0], size[0] * size[1]};
  const Vec3 index = to_index_.Apply(point_mm);
  int64_t base = 0, step[3];
  double upper[3];
  for (int i = 0; i < 3; ++i) {
    const double at = std::clamp(index[i], 0.0, static_cast<double>(size[i] - 1));
    const int64_t low = std::min(static_cast<int64_t>(at), std::max<int64_t>(0, size[i] - 2));
    base += low * stride[i];
    step[i] = size[i] > 1 ? stride[i] : 0;
    upper[i] = at - static_cast<double>(low);
  }
  const int64_t voxels = field.grid.voxel_count();
  Vec3 result;
  for (int c = 0; c < 3; ++c) {
    const float* v = field.values_mm.data() + c * voxels + base;
    const auto along_x = [&](int64_t offset) {
      const double low = v[offset];
      return low + (v[offset + step[0]] - low) * upper[0];
    };
    const auto along_y = [&](int64_t offset) {
      const double low = along_x(offset);
      return low + (along_x(offset + step[1]) - low) * upper[1];
    };
    const double low = along_y(0);
    result[c] = low + (along_y(step[2]) - low) * upper[2];
  }
  return result;
}

Vec3 PointMapper::operator()(const Vec3& point_mm) const {
  Vec3 moved = Displacement(point_mm);
  for (int r = 0; r < 3; ++r) moved[r] += point_mm[r];
  return map_.affine.Apply(moved);
}

Vec3 SpatialMap::Apply(const Vec3& point_mm) const { return PointMapper(*this)(point_mm); }

JacobianStatistics JacobianOf(const SpatialMap& map) {
  const double affine = Determinant(map.affine.matrix);
  const DisplacementField& field = map.displacement;
  if (field.empty()) return {affine, affine, affine > 0 ? 0.0 : 100.0, 0};
  // From differences along the index axes to slopes in mm: times the inverse of the lattice's
  // matrix.
  const Mat3 to_index = PhysicalToIndexMap(field.grid).matrix;
  struct Sums {
    double min = std::numeric_limits<double>::infinity();
    double max = -std::numeric_limits<double>::infinity();
    double log = 0, log_squared = 0;
    int64_t count = 0, folds = 0;
  };
  const auto slices = static_cast<size_t>(CellSlices(field));
  std::vector<Sums> sums(slices);  // added in order: the same for any number of threads
  ParallelFor(CellSlices(field), 0, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      Sums& sum = sums[static_cast<size_t>(z)];
      ForEachCell(field, z, z + 1, [&](const std::array<Vec3, 3>& difference) {
        Mat3 jacobian = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
        for (int c = 0; c < 3; ++c) {
          for (int r = 0; r < 3; ++r) {
            for (int axis = 0; axis < 3; ++axis) {
              jacobian[c][r] += difference[axis][c] * to_index[axis][r];
            }
          }
        }
        const double determinant = affine * Determinant(jacobian);
        sum.min = std::min(sum.min, determinant);
        sum.max = std::max(sum.max, determinant);
        ++sum.count;
        if (determinant > 0) {
          const double log = std::log(determinant);
          sum.log += log;
          sum.log_squared += log * log;
        } else {
          ++sum.folds;
        }
      });
    }
  });
  Sums all;
  for (const Sums& sum : sums) {
    all.min = std::min(all.min, sum.min);
    all.max = std::max(all.max, sum.max);
    all.log += sum.log;
    all.log_squared += sum.log_squared;
    all.count += sum.count;
    all.folds += sum.folds;
  }
  JacobianStatistics statistics;
  statistics.min = all.min;
  statistics.max = all.max;
  statistics.non_positive_percent =
      100 * static_cast<double>(all.folds) / static_cast<double>(all.count);
  const double positive = static_cast<double>(std::max<int64_t>(1, all.count - all.folds));
  const double mean = all.log / positive;
  statistics.sd_log = std::sqrt(std::max(0.0, all.log_squared / positive - mean * mean));
  return statistics;
}

double DeformationEnergy(const DisplacementField& field) {
  if (field.empty()) return 0;
  double sum = 0;
  int64_t count = 0;
  ForEachCell(field, 0, CellSlices(field), [&](const std::array<Vec3, 3>& difference) {
    for (int axis = 0; axis < 3; ++axis) {
      for (double value : difference[axis]) {
        const double slope = value / field.grid.spacing_mm[axis];
        sum += slope * slope;
      }
    }
    ++count;
  });
  return sum / static_cast<double>(count);
}

absl::StatusOr<InverseMap> Invert(const SpatialMap& map, const Grid& grid) {
  auto back = map.affine.Inverse();
  if (!back.ok()) return back.status();
  InverseMap inverse;
  inverse.map.affine = *back;
  if (map.displacement.empty()) return inverse;
  DisplacementField& field = inverse.map.displacement;
  field.grid = grid;
  const int64_t voxels = grid.voxel_count(), plane = grid.size[0] * grid.size[1];
  field.values_mm.resize(static_cast<size_t>(3 * voxels));
  const PointMapper mapper(map);
  std::vector<std::array<double, 2>> residuals(static_cast<size_t>(grid.size[2]));  // sum, max
  ParallelFor(grid.size[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      auto& [sum, worst] = residuals[static_cast<size_t>(z)];
      for (int64_t i = 0; i < plane; ++i) {
        const Vec3 y =
            grid.IndexToPhysical({static_cast<double>(i % grid.size[0]),
                                  static_cast<double>(i / grid.size[0]), static_cast<double>(z)});
        const Vec3 start = back->Apply(y);
        Vec3 x = start;
        for (int step = 0; step < kInversionSteps; ++step) {
          const Vec3 u = mapper.Displacement(x);
          double change = 0;
          for (int r = 0; r < 3; ++r) {
            const double step_mm = kInversionRate * (start[r] - u[r] - x[r]);
            change = std::max(change, std::abs(step_mm));
            x[r] += step_mm;
          }
          if (change < kInversionToleranceMm) break;
        }
        const Vec3 ends = mapper(x), displaced = map.affine.Apply(x);
        const double residual = std::hypot(ends[0] - y[0], ends[1] - y[1], ends[2] - y[2]);
        sum += residual;
        worst = std::max(worst, residual);
        for (int c = 0; c < 3; ++c) {
          field.values_mm[static_cast<size_t>(c * voxels + z * plane + i)] =
              static_cast<float>(displaced[c] - y[c]);
        }
      }
    }
  });
  for (const auto& [sum, worst] : residuals) {
    inverse.mean_residual_mm += sum / static_cast<double>(voxels);
    inverse.max_residual_mm = std::max(inverse.max_residual_mm, worst);
  }
  return inverse;
}

}  // namespace gvsl
