#include "model/instance_optimisation.h"

#include <algorithm>
#include <cmath>

#include "imaging/parallel.h"
#include "model/control_grid.h"

namespace gvsl {
namespace {

constexpr double kStepVoxels = 0.2;  // of a shift, at the first step
constexpr double kDisplacementStepVoxels = 0.15;
constexpr int64_t kControlStride = 3;  // voxels
constexpr double kFirstMoment = 0.9, kSecondMoment = 0.999, kTiny = 1e-12;

// Adam's step for one parameter array, upwards along the gradient.
class Adam {
 public:
  explicit Adam(size_t count) : first_(count, 0.0f), second_(count, 0.0f) {}

  // Before the arrays of a step.
  void Begin() {
    ++step_;
    correct_first_ = 1 - std::pow(kFirstMoment, step_);
    correct_second_ = 1 - std::pow(kSecondMoment, step_);
  }
  // The change of parameter i.
  double Change(size_t i, double gradient, double rate) {
    first_[i] += static_cast<float>((1 - kFirstMoment) * (gradient - first_[i]));
    second_[i] += static_cast<float>((1 - kSecondMoment) * (gradient * gradient - second_[i]));
    return rate * first_[i] / correct_first_ / (std::sqrt(second_[i] / correct_second_) + kTiny);
  }

 private:
  std::vector<float> first_, second_;
  int step_ = 0;
  double correct_first_ = 1, correct_second_ = 1;
};

// The rate falls to a tenth along half a cosine: large steps first, a calm end.
double Rate(double first, int step, int steps) {
  const double done = steps > 1 ? static_cast<double>(step) / (steps - 1) : 1;
  return first * (0.55 + 0.45 * std::cos(M_PI * done));
}

// Index in the moving lattice of fixed voxel (x, y, z), without displacement.
AffineMap IndexToIndex(const OptimisationLevel& level, const AffineMap& fixed_to_moving) {
  return Composed(PhysicalToIndexMap(level.moving),
                  Composed(fixed_to_moving, IndexToPhysicalMap(level.fixed)));
}

void Resize(const Grid& grid, Points& points) {
  for (auto& axis : points) axis.resize(static_cast<size_t>(grid.voxel_count()));
}

void LinearPoints(const OptimisationLevel& level, const AffineMap& fixed_to_moving,
                  Points& points) {
  const AffineMap map = IndexToIndex(level, fixed_to_moving);
  const auto& size = level.fixed.size;
  Resize(level.fixed, points);
  ParallelFor(size[1] * size[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Vec3 start =
          map.Apply({0, static_cast<double>(row % size[1]), static_cast<double>(row / size[1])});
      for (int axis = 0; axis < 3; ++axis) {
        float* out = points[axis].data() + row * size[0];
        const auto first = static_cast<float>(start[axis]);
        const auto step = static_cast<float>(map.matrix[axis][0]);
        for (int64_t x = 0; x < size[0]; ++x) out[x] = first + step * static_cast<float>(x);
      }
    }
  });
}

// Points of the whole map: those of the affine part, and the displacement turned into the moving
// lattice's indices.
void DisplacedPoints(const OptimisationLevel& level, const AffineMap& affine,
                     const VectorArrays& displacement, Points& points) {
  LinearPoints(level, affine, points);
  const Mat3 to_index = Product(PhysicalToIndexMap(level.moving).matrix, affine.matrix);
  ParallelFor(level.fixed.voxel_count(), 0, [&](int64_t begin, int64_t end) {
    for (int axis = 0; axis < 3; ++axis) {
      const auto l = static_cast<float>(to_index[axis][0]);
      const auto p = static_cast<float>(to_index[axis][1]);
      const auto s = static_cast<float>(to_index[axis][2]);
      for (int64_t i = begin; i < end; ++i) {
        points[axis][i] += l * displacement[0][i] + p * displacement[1][i] + s * displacement[2][i];
      }
    }
  });
}

double Evaluate(OptimisationLevel& level, const Points& points, Points& gradient) {
  Resize(level.fixed, gradient);
  for (auto& axis : gradient) std::fill(axis.begin(), axis.end(), 0.0f);
  double similarity = 0;
  for (WeightedMetric& part : level.metrics) {
    similarity += part.weight * part.metric->Evaluate(points, part.weight, gradient);
  }
  return similarity;
}

// Sums over the voxels of gradient[r] times (column, row, slice, 1).
std::array<std::array<double, 4>, 3> LinearMoments(const Grid& grid, const Points& gradient) {
  std::vector<std::array<std::array<double, 4>, 3>> slices(static_cast<size_t>(grid.size[2]));
  ParallelFor(grid.size[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      auto& sums = slices[z];
      sums = {};
      for (int64_t y = 0; y < grid.size[1]; ++y) {
        const int64_t row = (z * grid.size[1] + y) * grid.size[0];
        for (int r = 0; r < 3; ++r) {
          float sum = 0, by_x = 0;
          for (int64_t x = 0; x < grid.size[0]; ++x) {
            sum += gradient[r][row + x];
            by_x += gradient[r][row + x] * static_cast<float>(x);
          }
          sums[r][0] += by_x;
          sums[r][1] += sum * static_cast<double>(y);
          sums[r][2] += sum * static_cast<double>(z);
          sums[r][3] += sum;
        }
      }
    }
  });
  std::array<std::array<double, 4>, 3> total = {};
  for (const auto& sums : slices) {
    for (int r = 0; r < 3; ++r) {
      for (int k = 0; k < 4; ++k) total[r][k] += sums[r][k];
    }
  }
  return total;
}

// exp of the rotation vector (Rodrigues).
Mat3 RotationOf(const Vec3& vector) {
  const double angle = std::hypot(vector[0], vector[1], vector[2]);
  if (angle < 1e-12) return AffineMap().matrix;
  const double s = std::sin(angle), c = std::cos(angle);
  const Vec3 n = {vector[0] / angle, vector[1] / angle, vector[2] / angle};
  const Mat3 cross = {{{0, -n[2], n[1]}, {n[2], 0, -n[0]}, {-n[1], n[0], 0}}};
  Mat3 rotation = {};
  for (int r = 0; r < 3; ++r) {
    for (int k = 0; k < 3; ++k) {
      rotation[r][k] = (r == k ? c : 0) + (1 - c) * n[r] * n[k] + s * cross[r][k];
    }
  }
  return rotation;
}

double LeastSpacing(const Grid& grid) {
  return *std::min_element(grid.spacing_mm.begin(), grid.spacing_mm.end());
}

}  // namespace

absl::Status OptimiseLinear(OptimisationLevel& level, LinearModel model, int steps,
                            const Vec3& centre_mm, double radius_mm, const StepWatch& watch,
                            AffineMap& fixed_to_moving) {
  // The map is matrix (x - centre) + image of the centre.
  Mat3 matrix = fixed_to_moving.matrix;
  Vec3 image = fixed_to_moving.Apply(centre_mm);
  const AffineMap fixed_index = IndexToPhysicalMap(level.fixed);
  const Mat3 moving_index = PhysicalToIndexMap(level.moving).matrix;
  const double shift = kStepVoxels * LeastSpacing(level.fixed);
  Adam adam(12);
  Points points, gradient;
  for (int step = 0; step < steps; ++step) {
    LinearPoints(level, fixed_to_moving, points);
    const double similarity = Evaluate(level, points, gradient);
    const auto moments = LinearMoments(level.fixed, gradient);
    // In mm: of the shift, and of the matrix (gradient times (x - centre), summed).
    Vec3 by_shift = {};
    Mat3 by_matrix = {};
    for (int r = 0; r < 3; ++r) {
      for (int k = 0; k < 3; ++k) {
        by_shift[r] += moving_index[k][r] * moments[k][3];
        for (int c = 0; c < 3; ++c) {
          double moment = moments[k][3] * (fixed_index.translation_mm[c] - centre_mm[c]);
          for (int i = 0; i < 3; ++i) moment += fixed_index.matrix[c][i] * moments[k][i];
          by_matrix[r][c] += moving_index[k][r] * moment;
        }
      }
    }
    adam.Begin();
    const double rate = Rate(shift, step, steps);
    for (size_t r = 0; r < 3; ++r) image[r] += adam.Change(r, by_shift[r], rate);
    if (model == LinearModel::kRigid) {
      // A small turn about the centre's image, on top: its gradient is the torque.
      Mat3 turned = {};
      for (int r = 0; r < 3; ++r) {
        for (int k = 0; k < 3; ++k) {
          for (int c = 0; c < 3; ++c) turned[r][k] += by_matrix[r][c] * matrix[k][c];
        }
      }
      const Vec3 torque = {turned[2][1] - turned[1][2], turned[0][2] - turned[2][0],
                           turned[1][0] - turned[0][1]};
      Vec3 turn;
      for (size_t r = 0; r < 3; ++r) turn[r] = adam.Change(3 + r, torque[r], rate / radius_mm);
      matrix = Product(RotationOf(turn), matrix);
    } else {
      for (size_t r = 0; r < 3; ++r) {
        for (size_t c = 0; c < 3; ++c) {
          matrix[r][c] += adam.Change(3 + 3 * r + c, by_matrix[r][c], rate / radius_mm);
        }
      }
    }
    fixed_to_moving.matrix = matrix;
    fixed_to_moving.translation_mm = {0, 0, 0};
    const Vec3 moved = fixed_to_moving.Apply(centre_mm);
    for (int r = 0; r < 3; ++r) fixed_to_moving.translation_mm[r] = image[r] - moved[r];
    if (absl::Status status = watch(step + 1, similarity); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status OptimiseDisplacement(OptimisationLevel& level, int steps, double smoothness_weight,
                                  const StepWatch& watch, SpatialMap& fixed_to_moving) {
  ControlGrid control(level.fixed, kControlStride);
  control.Fit(fixed_to_moving.displacement);
  const Mat3 to_index =
      Product(PhysicalToIndexMap(level.moving).matrix, fixed_to_moving.affine.matrix);
  const double first_rate = kDisplacementStepVoxels * LeastSpacing(level.fixed);
  const auto count = static_cast<size_t>(control.size());
  Adam adam(3 * count);
  VectorArrays displacement, by_coefficient;
  Points points, gradient;
  for (int step = 0; step < steps; ++step) {
    control.Evaluate(displacement);
    DisplacedPoints(level, fixed_to_moving.affine, displacement, points);
    const double similarity = Evaluate(level, points, gradient);
    // From indices to mm, in place.
    ParallelFor(level.fixed.voxel_count(), 0, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float by[3] = {gradient[0][i], gradient[1][i], gradient[2][i]};
        for (int c = 0; c < 3; ++c) {
          gradient[c][i] = static_cast<float>(to_index[0][c]) * by[0] +
                           static_cast<float>(to_index[1][c]) * by[1] +
                           static_cast<float>(to_index[2][c]) * by[2];
        }
      }
    });
    control.Gather(gradient, by_coefficient);
    control.Smoothness(-smoothness_weight, by_coefficient);
    adam.Begin();
    const double rate = Rate(first_rate, step, steps);
    for (size_t c = 0; c < 3; ++c) {
      float* values = control.coefficients()[c].data();
      for (size_t i = 0; i < count; ++i) {
        values[i] += static_cast<float>(adam.Change(c * count + i, by_coefficient[c][i], rate));
      }
    }
    if (absl::Status status = watch(step + 1, similarity); !status.ok()) return status;
  }
  control.Evaluate(displacement);
  DisplacementField field;
  field.grid = level.fixed;
  for (const auto& values : displacement) {
    field.values_mm.insert(field.values_mm.end(), values.begin(), values.end());
  }
  fixed_to_moving.displacement = std::move(field);
  return absl::OkStatus();
}

Points MappedPoints(const Grid& fixed, const Grid& moving, const SpatialMap& fixed_to_moving) {
  Points points;
  Resize(fixed, points);
  const PointMapper mapper(fixed_to_moving);
  const AffineMap to_physical = IndexToPhysicalMap(fixed), to_index = PhysicalToIndexMap(moving);
  ParallelFor(fixed.size[1] * fixed.size[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * fixed.size[0]; i < end * fixed.size[0]; ++i) {
      const int64_t row = i / fixed.size[0];
      const Vec3 index = {static_cast<double>(i % fixed.size[0]),
                          static_cast<double>(row % fixed.size[1]),
                          static_cast<double>(row / fixed.size[1])};
      const Vec3 at = to_index.Apply(mapper(to_physical.Apply(index)));
      for (int axis = 0; axis < 3; ++axis) points[axis][i] = static_cast<float>(at[axis]);
    }
  });
  return points;
}

}  // namespace gvsl
