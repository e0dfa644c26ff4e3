#include "imaging/phantom_anatomy.h"

namespace gvsl {
namespace {

using phantom::Coverage;

constexpr double kAirHu = -1000;
constexpr double kSkinHu = 20;
constexpr double kAirwayHu = -990;
constexpr double kStomachHu = 25;
constexpr double kSpleenHu = 115;
constexpr double kCartilageHu = 110;
constexpr double kDiscHu = 85;
constexpr double kCordHu = 35;
constexpr double kCortexMm = 1.6;  // thickness of dense bone
constexpr double kSkinMm = 2;
constexpr double kHeartWallMm = 2.5;  // of the thin-walled chambers and great vessels
constexpr double kPericardialFatMm = 7;

// Paints body after body: a later one covers an earlier one, in brightness by the share of a voxel
// that it fills, in label wherever its signed distance is negative.
class Painter {
 public:
  void Paint(double distance_mm, double hu, PhantomLabel label) {
    tissue_.hu += Coverage(distance_mm) * (hu - tissue_.hu);
    if (distance_mm < 0) tissue_.label = label;
  }
  const PhantomTissue& tissue() const { return tissue_; }

 private:
  PhantomTissue tissue_ = {PhantomLabel::kBackground, kAirHu};
};

}  // namespace

const PhantomAnatomy& PhantomAnatomy::Mean() {
  static const PhantomAnatomy* const mean =
      new PhantomAnatomy;  // never destroyed: no exit-time order
  return *mean;
}

PhantomTissue PhantomAnatomy::At(const Vec3& point_mm, const PhantomContrast& contrast) const {
  const phantom::HeartDistances heart = heart_.At(point_mm);
  const phantom::ThoraxDistances chest = thorax_.At(point_mm, heart);
  constexpr PhantomLabel kSoft = PhantomLabel::kSoftTissue;
  Painter painter;
  painter.Paint(chest.body, kSkinHu, kSoft);
  painter.Paint(chest.body + kSkinMm, contrast.fat, kSoft);
  painter.Paint(chest.muscle, contrast.muscle, kSoft);
  painter.Paint(chest.cavity + 1, contrast.fat, kSoft);
  painter.Paint(chest.stomach, kStomachHu, kSoft);
  painter.Paint(chest.spleen, kSpleenHu, kSoft);
  painter.Paint(chest.liver, contrast.liver, kSoft);
  painter.Paint(chest.lung, contrast.lung, PhantomLabel::kLung);
  // Vessels belong to the lung's label, as in segmentations made by hand.
  painter.Paint(std::max(chest.lung_vessel, chest.lung), contrast.pulmonary_artery,
                PhantomLabel::kLung);
  painter.Paint(chest.cartilage, kCartilageHu, kSoft);
  painter.Paint(chest.rib, contrast.cortical_bone, PhantomLabel::kRib);
  painter.Paint(chest.rib + kCortexMm, contrast.spongy_bone, PhantomLabel::kRib);
  painter.Paint(chest.canal, kCordHu, kSoft);
  painter.Paint(chest.spine, contrast.cortical_bone, PhantomLabel::kSpine);
  painter.Paint(chest.spine + kCortexMm, contrast.spongy_bone, PhantomLabel::kSpine);
  painter.Paint(std::max(chest.disc, chest.spine), kDiscHu, PhantomLabel::kSpine);

  painter.Paint(heart.hull - kPericardialFatMm, contrast.fat, kSoft);
  painter.Paint(chest.airway, kAirwayHu, kSoft);
  painter.Paint(heart.hull - kHeartWallMm, contrast.muscle, kSoft);
  painter.Paint(heart.coronary, contrast.left_blood, PhantomLabel::kCoronary);
  painter.Paint(heart.pulmonary_vein, contrast.left_blood, kSoft);
  painter.Paint(heart.vein, contrast.right_blood, kSoft);
  painter.Paint(heart.descending_aorta, contrast.aorta, kSoft);
  // The chambers, in the reverse of HeartDistances' order.
  painter.Paint(heart.right_atrium, contrast.right_blood, PhantomLabel::kRightAtrium);
  painter.Paint(heart.pulmonary_artery, contrast.pulmonary_artery, PhantomLabel::kPulmonaryArtery);
  painter.Paint(heart.right_ventricle, contrast.right_blood, PhantomLabel::kRightVentricle);
  painter.Paint(heart.left_atrium, contrast.left_blood, PhantomLabel::kLeftAtrium);
  painter.Paint(heart.aorta, contrast.aorta, PhantomLabel::kAscendingAorta);
  painter.Paint(heart.myocardium, contrast.myocardium, PhantomLabel::kMyocardium);
  painter.Paint(heart.left_ventricle, contrast.left_blood, PhantomLabel::kLeftVentricle);
  return painter.tissue();
}

}  // namespace gvsl
