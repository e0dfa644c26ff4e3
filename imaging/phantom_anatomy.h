// The mean anatomy of the phantoms: what tissue lies at a point, and how bright CT shows it.
#ifndef GVSL_IMAGING_PHANTOM_ANATOMY_H_
#define GVSL_IMAGING_PHANTOM_ANATOMY_H_

#include "imaging/phantom.h"
#include "imaging/phantom_heart.h"
#include "imaging/phantom_thorax.h"

namespace gvsl {

// Brightness of the tissues in HU.
struct PhantomContrast {
  double left_blood = 380;  // left atrium and ventricle, coronaries, pulmonary veins
  double aorta = 380;
  double right_blood = 280;  // right atrium and ventricle, venae cavae
  double pulmonary_artery = 290;
  double myocardium = 100;
  double muscle = 55;
  double liver = 95;
  double fat = -100;
  double lung = -850;
  double spongy_bone = 200;
  double cortical_bone = 700;
};

struct PhantomTissue {
  PhantomLabel label;
  double hu;  // blurred over borders as a scanner would
};

// Analytic: no lattice, no table but a few polylines. Origin in the heart's middle; LPS mm.
// Immutable and safe to use from many threads.
class PhantomAnatomy {
 public:
  // The one mean anatomy.
  static const PhantomAnatomy& Mean();

  PhantomTissue At(const Vec3& point_mm, const PhantomContrast& contrast) const;

 private:
  phantom::Heart heart_;
  phantom::Thorax thorax_;
};

}  // namespace gvsl

#endif  // GVSL_IMAGING_PHANTOM_ANATOMY_H_
