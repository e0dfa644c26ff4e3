// The heart of the mean phantom: four chambers, myocardium, great vessels and coronaries.
#ifndef GVSL_IMAGING_PHANTOM_HEART_H_
#define GVSL_IMAGING_PHANTOM_HEART_H_

#include <vector>

#include "imaging/phantom_geometry.h"

namespace gvsl::phantom {

// Signed distances at one point. Where bodies overlap, the one named first here wins;
// `left_ventricle` is the cavity, `myocardium` the outer surface of its wall (cavity included).
struct HeartDistances {
  double left_ventricle = kFarMm;
  double myocardium = kFarMm;
  double aorta = kFarMm;
  double left_atrium = kFarMm;
  double right_ventricle = kFarMm;
  double pulmonary_artery = kFarMm;
  double right_atrium = kFarMm;
  double coronary = kFarMm;
  double vein = kFarMm;  // venae cavae
  double pulmonary_vein = kFarMm;
  double descending_aorta = kFarMm;  // arch and descending part: not a label of its own
  double hull = kFarMm;              // all of the above but the coronaries
};

class Heart {
 public:
  Heart();
  HeartDistances At(const Vec3& point_mm) const;

 private:
  double MyocardiumDistance(const Vec3& local) const;
  double RightVentricleDistance(const Vec3& point_mm, const Vec3& local) const;
  // Coordinates in the left ventricle's frame: toward the septum, toward the inferior wall, toward
  // the apex.
  Vec3 ToLocal(const Vec3& point_mm) const;
  Vec3 FromLocal(const Vec3& local) const;
  // The point on the ray from `origin` in the local direction (a, b, 0) that lies `offset_mm` off
  // the ventricles and atria, seen from outside.
  Vec3 OnSurface(const Vec3& local_origin, double a, double b, double offset_mm) const;
  void BuildCoronaries();

  Vec3 septal_, inferior_, apical_;  // unit vectors of the frame
  Tube ascending_aorta_, descending_aorta_, pulmonary_trunk_, left_pulmonary_, right_pulmonary_;
  std::vector<Tube> veins_, pulmonary_veins_, coronaries_;
};

}  // namespace gvsl::phantom

#endif  // GVSL_IMAGING_PHANTOM_HEART_H_
