// Signed distances, in mm and negative inside, of the bodies a phantom is made of. They need only
// be right in sign everywhere and near the surface in size. Nothing but + - * / sqrt: exactly
// rounded, the same on every machine.
#ifndef GVSL_IMAGING_PHANTOM_GEOMETRY_H_
#define GVSL_IMAGING_PHANTOM_GEOMETRY_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "imaging/volume.h"

namespace gvsl::phantom {

inline Vec3 operator+(const Vec3& a, const Vec3& b) {
  return {a[0] + b[0], a[1] + b[1], a[2] + b[2]};
}
inline Vec3 operator-(const Vec3& a, const Vec3& b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}
inline Vec3 operator*(double s, const Vec3& v) { return {s * v[0], s * v[1], s * v[2]}; }
inline double Dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
inline Vec3 Cross(const Vec3& a, const Vec3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
inline double Length(const Vec3& v) { return std::sqrt(Dot(v, v)); }
inline Vec3 Unit(const Vec3& v) { return (1 / Length(v)) * v; }

// Far from every body.
constexpr double kFarMm = 1e3;

// An ellipsoid about the origin of its frame.
inline double EllipsoidDistance(const Vec3& p, const Vec3& semi_axes) {
  const Vec3 scaled = {p[0] / semi_axes[0], p[1] / semi_axes[1], p[2] / semi_axes[2]};
  const Vec3 gradient = {scaled[0] / semi_axes[0], scaled[1] / semi_axes[1],
                         scaled[2] / semi_axes[2]};
  const double level = Length(scaled);
  const double slope = Length(gradient);
  if (slope == 0) return -std::min({semi_axes[0], semi_axes[1], semi_axes[2]});
  return level * (level - 1) / slope;
}

// An ellipse in the plane, squared off: u^4 + v^4 + 2 c u^2 v^2 = 1 with c = 0.55 (1: a true
// ellipse).
inline double OvalDistance(double x, double y, double semi_x, double semi_y) {
  constexpr double kSquareness = 0.55;
  const double u = x / semi_x, v = y / semi_y;
  const double uu = u * u, vv = v * v;
  const double level = std::sqrt(std::sqrt(uu * uu + vv * vv + 2 * kSquareness * uu * vv));
  const double gx = u * (uu + kSquareness * vv) / semi_x;
  const double gy = v * (vv + kSquareness * uu) / semi_y;
  const double slope = std::sqrt(gx * gx + gy * gy);
  if (slope == 0) return -std::min(semi_x, semi_y);
  return (level - 1) * level * level * level / slope;
}

// A chain of straight segments, round in section, the radius running linearly from node to node.
class Tube {
 public:
  struct Node {
    Vec3 point_mm;
    double radius_mm;
  };

  explicit Tube(std::vector<Node> nodes) : nodes_(std::move(nodes)) {
    for (const Node& node : nodes_) {
      centre_ = centre_ + (1.0 / static_cast<double>(nodes_.size())) * node.point_mm;
    }
    for (const Node& node : nodes_) {
      reach_mm_ = std::max(reach_mm_, Length(node.point_mm - centre_) + node.radius_mm);
    }
  }

  // Exact below `cutoff_mm`; above it any number from there up.
  double Distance(const Vec3& p, double cutoff_mm = 12) const {
    const Vec3 from_centre = p - centre_;
    const double bound = reach_mm_ + cutoff_mm;
    if (Dot(from_centre, from_centre) > bound * bound) return kFarMm;
    double nearest = kFarMm;
    for (size_t i = 0; i + 1 < nodes_.size(); ++i) {
      const Vec3 along = nodes_[i + 1].point_mm - nodes_[i].point_mm;
      const Vec3 offset = p - nodes_[i].point_mm;
      const double t = std::clamp(Dot(offset, along) / Dot(along, along), 0.0, 1.0);
      const double radius =
          nodes_[i].radius_mm + t * (nodes_[i + 1].radius_mm - nodes_[i].radius_mm);
      nearest = std::min(nearest, Length(offset - t * along) - radius);
    }
    return nearest;
  }

 private:
  std::vector<Node> nodes_;
  Vec3 centre_ = {0, 0, 0};
  double reach_mm_ = 0;
};

// The share of a voxel that a body fills, from the signed distance: a smooth step 1.8 mm wide that
// stands for a scanner's blur, the same whatever the voxels' size.
inline double Coverage(double distance_mm) {
  constexpr double kHalfWidthMm = 0.9;
  const double t = std::clamp(0.5 - distance_mm / (2 * kHalfWidthMm), 0.0, 1.0);
  return t * t * (3 - 2 * t);
}

}  // namespace gvsl::phantom

#endif  // GVSL_IMAGING_PHANTOM_GEOMETRY_H_
