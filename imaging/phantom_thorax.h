// The chest around the mean phantom's heart: body wall, ribs, sternum, spine, lungs, airways, upper
// abdomen.
#ifndef GVSL_IMAGING_PHANTOM_THORAX_H_
#define GVSL_IMAGING_PHANTOM_THORAX_H_

#include <vector>

#include "imaging/phantom_geometry.h"
#include "imaging/phantom_heart.h"

namespace gvsl::phantom {

// Signed distances at one point. Where bodies overlap, a later one wins.
struct ThoraxDistances {
  double body = kFarMm;    // the skin
  double muscle = kFarMm;  // inside the subcutaneous fat
  double cavity = kFarMm;  // inside the rib cage
  double liver = kFarMm;
  double spleen = kFarMm;
  double stomach = kFarMm;
  double lung = kFarMm;
  double lung_vessel = kFarMm;
  double airway = kFarMm;
  double cartilage = kFarMm;
  double rib = kFarMm;  // with the sternum
  double spine = kFarMm;
  double disc = kFarMm;  // the spine's softer parts
  double canal = kFarMm;
};

class Thorax {
 public:
  Thorax();
  ThoraxDistances At(const Vec3& point_mm, const HeartDistances& heart) const;

 private:
  void Ribs(const Vec3& point_mm, double narrowing, ThoraxDistances* d) const;
  void Spine(const Vec3& point_mm, ThoraxDistances* d) const;
  void Lungs(const Vec3& point_mm, const HeartDistances& heart, ThoraxDistances* d) const;

  std::vector<Tube> airways_;
  std::vector<Tube> lung_vessels_;
};

}  // namespace gvsl::phantom

#endif  // GVSL_IMAGING_PHANTOM_THORAX_H_
