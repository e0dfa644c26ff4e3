#include "imaging/phantom_shape.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "imaging/phantom_random.h"

namespace gvsl {
namespace {

// Purposes of a patient's random streams; the warps take kWarpPurpose, + 1, + 2.
constexpr uint64_t kPosePurpose = 1;
constexpr uint64_t kScalePurpose = 2;
constexpr uint64_t kWarpPurpose = 3;

// Beyond this distance from the centre the warps are the identity.
constexpr double kWarpReachMm = 300;
constexpr double kMaxLipschitz = 0.8;

struct WarpLevel {
  double spacing_mm;
  double lipschitz;  // at variation 1
};
// Coarse: how organs lie; middle: the size of a chamber; fine: the outline of a wall.
constexpr WarpLevel kWarpLevels[] = {{110, 0.55}, {62, 0.50}, {36, 0.40}};

constexpr double kMaxScaleChange = 0.09;  // at variation 1, per axis
constexpr double kMaxShear = 0.06;
constexpr double kMaxTranslationMm = 10;
constexpr double kTanHalfMaxRotation = 0.06992681194351041;  // tan(8 degrees / 2)

// Residual at which the inverse stops; the error is at most residual / (1 - L).
constexpr double kInverseResidualMm = 1e-11;

Vec3 Apply(const Mat3& m, const Vec3& v) {
  Vec3 out;
  for (int r = 0; r < 3; ++r) out[r] = m[r][0] * v[0] + m[r][1] * v[1] + m[r][2] * v[2];
  return out;
}

Mat3 Multiply(const Mat3& a, const Mat3& b) {
  Mat3 out;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      out[r][c] = a[r][0] * b[0][c] + a[r][1] * b[1][c] + a[r][2] * b[2][c];
    }
  }
  return out;
}

Mat3 Inverted(const Mat3& m) {
  Mat3 cofactor;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      const int r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
      cofactor[r][c] = m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1];
    }
  }
  const double determinant =
      m[0][0] * cofactor[0][0] + m[0][1] * cofactor[0][1] + m[0][2] * cofactor[0][2];
  Mat3 out;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) out[r][c] = cofactor[c][r] / determinant;
  }
  return out;
}

// The rotation of the unit quaternion (1, w) / |(1, w)|, whose angle is 2 atan |w|: rational in w,
// so that no sine is needed, whose last bit would depend on the C library.
Mat3 RotationOf(const Vec3& w) {
  const double scale = 2 / (1 + w[0] * w[0] + w[1] * w[1] + w[2] * w[2]);
  Mat3 out;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) out[r][c] = scale * w[r] * w[c];
    out[r][r] += scale - 1;
  }
  out[0][1] -= scale * w[2];
  out[0][2] += scale * w[1];
  out[1][0] += scale * w[2];
  out[1][2] -= scale * w[0];
  out[2][0] -= scale * w[1];
  out[2][1] += scale * w[0];
  return out;
}

}  // namespace

SmoothWarp::SmoothWarp(uint64_t seed, uint64_t purpose, double spacing_mm, double reach_mm,
                       double lipschitz)
    : spacing_mm_(spacing_mm) {
  const int half = static_cast<int>(std::ceil(reach_mm / spacing_mm));
  count_ = 2 * half + 1;
  first_mm_ = -half * spacing_mm;
  control_.assign(static_cast<size_t>(count_) * count_ * count_, Vec3{0, 0, 0});
  PhantomRandom random(seed, purpose);
  const auto at = [this](int z, int y, int x) -> Vec3& {
    return control_[(static_cast<size_t>(z) * count_ + y) * count_ + x];
  };
  // The outermost layer stays zero, so that differences to the zero outside are counted below too.
  for (int z = 1; z + 1 < count_; ++z) {
    for (int y = 1; y + 1 < count_; ++y) {
      for (int x = 1; x + 1 < count_; ++x) at(z, y, x) = random.InBall(1);
    }
  }
  double largest[3] = {0, 0, 0};
  const auto difference = [](const Vec3& a, const Vec3& b) {
    const double dx = a[0] - b[0], dy = a[1] - b[1], dz = a[2] - b[2];
    return dx * dx + dy * dy + dz * dz;
  };
  for (int z = 0; z + 1 < count_; ++z) {
    for (int y = 0; y + 1 < count_; ++y) {
      for (int x = 0; x + 1 < count_; ++x) {
        const Vec3& here = at(z, y, x);
        largest[0] = std::max(largest[0], difference(at(z, y, x + 1), here));
        largest[1] = std::max(largest[1], difference(at(z, y + 1, x), here));
        largest[2] = std::max(largest[2], difference(at(z + 1, y, x), here));
      }
    }
  }
  const double unscaled = std::sqrt(largest[0] + largest[1] + largest[2]) / spacing_mm;
  const double scale = lipschitz / unscaled;
  for (Vec3& control : control_) {
    for (double& component : control) component *= scale;
  }
}

Vec3 SmoothWarp::Displacement(const Vec3& point_mm) const {
  int start[3];
  double weight[3][4];
  for (int axis = 0; axis < 3; ++axis) {
    const double position = (point_mm[axis] - first_mm_) / spacing_mm_;
    // No control vector within two lattice steps: nothing moves here. Also keeps the cast in range.
    if (!(position > -2 && position < count_ + 1)) return {0, 0, 0};
    const double cell = std::floor(position);
    start[axis] = static_cast<int>(cell) - 1;
    const double t = position - cell;
    const double s = 1 - t;
    weight[axis][0] = s * s * s / 6;
    weight[axis][1] = (4 - 6 * t * t + 3 * t * t * t) / 6;
    weight[axis][2] = (4 - 6 * s * s + 3 * s * s * s) / 6;
    weight[axis][3] = t * t * t / 6;
  }
  const int x_begin = std::max(0, -start[0]);
  const int x_end = std::min(4, count_ - start[0]);
  Vec3 sum = {0, 0, 0};
  for (int k = 0; k < 4; ++k) {
    const int z = start[2] + k;
    if (z < 0 || z >= count_) continue;
    for (int j = 0; j < 4; ++j) {
      const int y = start[1] + j;
      if (y < 0 || y >= count_) continue;
      const Vec3* row = &control_[(static_cast<size_t>(z) * count_ + y) * count_];
      const double row_weight = weight[2][k] * weight[1][j];
      for (int i = x_begin; i < x_end; ++i) {
        const double w = row_weight * weight[0][i];
        const Vec3& control = row[start[0] + i];
        sum[0] += w * control[0];
        sum[1] += w * control[1];
        sum[2] += w * control[2];
      }
    }
  }
  return sum;
}

Vec3 SmoothWarp::Forward(const Vec3& point_mm) const {
  const Vec3 u = Displacement(point_mm);
  return {point_mm[0] + u[0], point_mm[1] + u[1], point_mm[2] + u[2]};
}

Vec3 SmoothWarp::Inverse(const Vec3& point_mm) const {
  Vec3 x = point_mm;
  // L <= 0.8 shrinks a residual of 100 mm below the limit in 134 steps; rounding ends far-off
  // points.
  for (int step = 0; step < 200; ++step) {
    const Vec3 reached = Forward(x);
    double residual = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const double error = point_mm[axis] - reached[axis];
      x[axis] += error;
      residual = std::max(residual, std::abs(error));
    }
    if (!(residual > kInverseResidualMm)) break;
  }
  return x;
}

PhantomShape::PhantomShape(uint64_t patient, double variation, bool vary_pose) {
  variation = variation > 0 ? std::min(variation, 3.0) : 0;
  Mat3 rotation = RotationOf({0, 0, 0});
  translation_mm_ = {0, 0, 0};
  if (vary_pose) {
    PhantomRandom random(patient, kPosePurpose);
    rotation = RotationOf(random.InBall(kTanHalfMaxRotation));
    translation_mm_ = random.InBall(kMaxTranslationMm);
  }
  PhantomRandom random(patient, kScalePurpose);
  // Positive scales on an upper triangular matrix: invertible for any shear. Its determinant is at
  // least (1 - 3 * 0.09)^3.
  Mat3 scale = {{{0, 0, 0}, {0, 0, 0}, {0, 0, 0}}};
  for (int r = 0; r < 3; ++r) {
    scale[r][r] = 1 + variation * random.Between(-kMaxScaleChange, kMaxScaleChange);
    for (int c = r + 1; c < 3; ++c) scale[r][c] = variation * random.Between(-kMaxShear, kMaxShear);
  }
  linear_ = Multiply(scale, rotation);
  linear_inverse_ = Inverted(linear_);
  if (variation == 0) return;
  for (uint64_t level = 0; level < std::size(kWarpLevels); ++level) {
    const WarpLevel& warp = kWarpLevels[level];
    warps_.emplace_back(patient, kWarpPurpose + level, warp.spacing_mm, kWarpReachMm,
                        std::min(kMaxLipschitz, variation * warp.lipschitz));
  }
}

Vec3 PhantomShape::ToMean(const Vec3& patient_mm) const {
  Vec3 point =
      Apply(linear_, {patient_mm[0] - translation_mm_[0], patient_mm[1] - translation_mm_[1],
                      patient_mm[2] - translation_mm_[2]});
  for (const SmoothWarp& warp : warps_) point = warp.Forward(point);
  return point;
}

Vec3 PhantomShape::FromMean(const Vec3& mean_mm) const {
  Vec3 point = mean_mm;
  for (auto warp = warps_.rbegin(); warp != warps_.rend(); ++warp) point = warp->Inverse(point);
  point = Apply(linear_inverse_, point);
  for (int axis = 0; axis < 3; ++axis) point[axis] += translation_mm_[axis];
  return point;
}

}  // namespace gvsl
