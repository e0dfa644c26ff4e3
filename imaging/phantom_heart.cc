#include "imaging/phantom_heart.h"

namespace gvsl::phantom {
namespace {

// The left ventricle: two nested ellipsoids cut by the plane of the mitral and aortic valves.
constexpr Vec3 kVentricleCentre = {30, -5, -15};
constexpr Vec3 kCavity = {22, 22, 40};
constexpr Vec3 kOuterWall = {32, 32, 50};
constexpr double kValvePlane = -20;  // along the long axis, from the centre towards the atria

// The right ventricle: an ellipsoid on the septal side less the left one's outer wall: a crescent.
constexpr Vec3 kRightCentre = {30, 0, -4};  // in the left ventricle's frame
constexpr Vec3 kRightCavity = {24, 36, 44};
constexpr double kTricuspidPlane = -32;

constexpr Vec3 kLeftAtriumCentre = {10, 19, 8};
constexpr Vec3 kLeftAtrium = {33, 21, 25};
constexpr Vec3 kRightAtriumCentre = {-32, 0, -6};
constexpr Vec3 kRightAtrium = {25, 27, 31};

// The pulmonary valve: the plane between outlet and trunk.
constexpr Vec3 kPulmonaryValve = {15.5, -31, 12};
constexpr Vec3 kPulmonaryFlow = {0.1, 0.34, 0.94};  // unit length but for rounding

constexpr double kThinWallMm = 2;  // between neighbours that no valve joins

// Nothing of the chambers is farther from here.
constexpr Vec3 kChambersCentre = {5, -5, -5};
constexpr double kChambersReachMm = 95;

}  // namespace

Heart::Heart()
    : apical_(Unit({0.60, -0.52, -0.60})),
      ascending_aorta_({{{10, 0, -3}, 12},
                        {{4, -6, 12}, 15},
                        {{-5, -9, 30}, 13.5},
                        {{-8, -7, 55}, 13.5},
                        {{-7, -1, 72}, 13}}),
      descending_aorta_({{{-7, -1, 72}, 13},
                         {{-2, 8, 86}, 12.5},
                         {{8, 24, 91}, 12},
                         {{18, 42, 84}, 11.5},
                         {{25, 50, 68}, 11},
                         {{26, 53, 40}, 10.5},
                         {{24, 54, -40}, 10.5},
                         {{16, 50, -170}, 10}}),
      pulmonary_trunk_(
          {{{15, -33, 6}, 13}, {{17, -26, 26}, 13.5}, {{19, -12, 42}, 13}, {{19, 4, 50}, 12}}),
      left_pulmonary_({{{19, 4, 50}, 11}, {{34, 20, 52}, 10}, {{50, 30, 46}, 8.5}}),
      right_pulmonary_(
          {{{19, 4, 50}, 11}, {{4, 14, 50}, 9.5}, {{-22, 17, 47}, 9.5}, {{-42, 20, 42}, 8}}) {
  // The septal direction points right and forward, made perpendicular to the long axis.
  const Vec3 rightward = {-0.80, -0.55, 0.0};
  septal_ = Unit(rightward - Dot(rightward, apical_) * apical_);
  inferior_ = Cross(apical_, septal_);
  veins_.push_back(Tube({{{-32, 4, 8}, 10}, {{-35, 4, 40}, 9.5}, {{-33, 0, 150}, 9}}));
  veins_.push_back(Tube({{{-28, 10, -22}, 12}, {{-26, 18, -50}, 12}, {{-22, 24, -170}, 12}}));
  pulmonary_veins_.push_back(Tube({{{28, 26, 20}, 7}, {{44, 30, 30}, 6.5}, {{58, 30, 38}, 5}}));
  pulmonary_veins_.push_back(Tube({{{28, 28, 2}, 7}, {{46, 38, -2}, 6.5}, {{60, 46, -8}, 5}}));
  pulmonary_veins_.push_back(Tube({{{-10, 24, 18}, 7}, {{-34, 27, 26}, 6.5}, {{-50, 24, 32}, 5}}));
  pulmonary_veins_.push_back(Tube({{{-10, 27, 2}, 7}, {{-34, 36, -6}, 6.5}, {{-52, 42, -14}, 5}}));
  BuildCoronaries();
}

Vec3 Heart::ToLocal(const Vec3& point_mm) const {
  const Vec3 offset = point_mm - kVentricleCentre;
  return {Dot(offset, septal_), Dot(offset, inferior_), Dot(offset, apical_)};
}

Vec3 Heart::FromLocal(const Vec3& local) const {
  return kVentricleCentre + local[0] * septal_ + local[1] * inferior_ + local[2] * apical_;
}

double Heart::MyocardiumDistance(const Vec3& local) const {
  return std::max(EllipsoidDistance(local, kOuterWall), kValvePlane - local[2]);
}

double Heart::RightVentricleDistance(const Vec3& point_mm, const Vec3& local) const {
  const double cavity = EllipsoidDistance(local - kRightCentre, kRightCavity);
  const double outlet = pulmonary_trunk_.Distance(point_mm, 3);
  return std::max({std::min(cavity, outlet), Dot(point_mm - kPulmonaryValve, kPulmonaryFlow),
                   -EllipsoidDistance(local, kOuterWall), kTricuspidPlane - local[2]});
}

HeartDistances Heart::At(const Vec3& point_mm) const {
  HeartDistances d;
  d.aorta = ascending_aorta_.Distance(point_mm);
  d.descending_aorta = descending_aorta_.Distance(point_mm);
  d.pulmonary_artery =
      std::max({std::min({pulmonary_trunk_.Distance(point_mm), left_pulmonary_.Distance(point_mm),
                          right_pulmonary_.Distance(point_mm)}),
                Dot(kPulmonaryValve - point_mm, kPulmonaryFlow), kThinWallMm - d.aorta});
  for (const Tube& vein : veins_) d.vein = std::min(d.vein, vein.Distance(point_mm));
  for (const Tube& vein : pulmonary_veins_) {
    d.pulmonary_vein = std::min(d.pulmonary_vein, vein.Distance(point_mm));
  }
  const Vec3 offset = point_mm - kChambersCentre;
  if (Dot(offset, offset) < kChambersReachMm * kChambersReachMm) {
    const Vec3 local = ToLocal(point_mm);
    d.left_ventricle = std::max(EllipsoidDistance(local, kCavity), kValvePlane - local[2]);
    d.myocardium = MyocardiumDistance(local);
    d.left_atrium =
        std::max({EllipsoidDistance(point_mm - kLeftAtriumCentre, kLeftAtrium),
                  local[2] - kValvePlane, kThinWallMm - d.aorta, kThinWallMm - d.pulmonary_artery});
    d.right_ventricle = std::max(RightVentricleDistance(point_mm, local), kThinWallMm - d.aorta);
    d.right_atrium =
        std::max({EllipsoidDistance(point_mm - kRightAtriumCentre, kRightAtrium),
                  kThinWallMm - d.aorta, kThinWallMm - d.left_atrium, kThinWallMm - d.myocardium});
    for (const Tube& coronary : coronaries_) {
      d.coronary = std::min(d.coronary, coronary.Distance(point_mm, 2));
    }
  }
  d.hull =
      std::min({d.myocardium, d.left_ventricle, d.aorta, d.left_atrium, d.right_ventricle,
                d.pulmonary_artery, d.right_atrium, d.vein, d.pulmonary_vein, d.descending_aorta});
  return d;
}

Vec3 Heart::OnSurface(const Vec3& local_origin, double a, double b, double offset_mm) const {
  const double length = std::sqrt(a * a + b * b);
  const Vec3 direction = {a / length, b / length, 0};
  const auto distance = [&](double r) {
    const Vec3 local = local_origin + r * direction;
    const Vec3 point = FromLocal(local);
    return std::min({MyocardiumDistance(local), RightVentricleDistance(point, local),
                     EllipsoidDistance(point - kLeftAtriumCentre, kLeftAtrium),
                     EllipsoidDistance(point - kRightAtriumCentre, kRightAtrium)}) -
           offset_mm;
  };
  double outside = 110;
  while (outside > 0 && distance(outside) > 0) outside -= 0.5;
  double inside = outside;
  outside += 0.5;
  for (int step = 0; step < 30; ++step) {
    const double middle = 0.5 * (inside + outside);
    (distance(middle) > 0 ? outside : inside) = middle;
  }
  return FromLocal(local_origin + outside * direction);
}

void Heart::BuildCoronaries() {
  constexpr double kOffsetMm = 2.4;  // their middle above the muscle
  constexpr int kSteps = 24;
  // A vessel over the heart: from one place (height along the long axis, direction about it) to
  // another.
  struct Place {
    double height, a, b;
  };
  const auto vessel = [&](const std::vector<Place>& places, double first_radius, double last_radius,
                          const Vec3& axis) {
    std::vector<Tube::Node> nodes;
    const double spans = static_cast<double>(places.size() - 1);
    for (int step = 0; step <= kSteps; ++step) {
      const double t = spans * step / kSteps;
      const size_t span = std::min(static_cast<size_t>(t), places.size() - 2);
      const double f = t - static_cast<double>(span);
      const Place& p = places[span];
      const Place& q = places[span + 1];
      const Vec3 origin = {axis[0], axis[1], p.height + f * (q.height - p.height)};
      nodes.push_back({OnSurface(origin, p.a + f * (q.a - p.a), p.b + f * (q.b - p.b), kOffsetMm),
                       first_radius + (last_radius - first_radius) * step / kSteps});
    }
    coronaries_.push_back(Tube(std::move(nodes)));
  };
  const Vec3 left_axis = {0, 0, 0};
  // Left anterior descending: down the groove between the ventricles to the apex.
  vessel({{-16, 0.15, -1}, {10, 0.32, -1}, {44, 0.35, -1}}, 2.1, 1.3, left_axis);
  // A diagonal branch over the free wall.
  vessel({{-4, 0.2, -1}, {8, -0.5, -1}, {30, -1, -0.6}}, 1.5, 1.1, left_axis);
  // Circumflex: round the left side in the groove of atrium and ventricle.
  vessel({{-17, 0.1, -1}, {-17, -1, -0.7}, {-16, -1, 0.6}, {-14, -0.4, 1}}, 2.0, 1.3, left_axis);
  // Posterior descending: along the inferior groove.
  vessel({{-16, 0.55, 1}, {14, 0.5, 1}, {40, 0.5, 1}}, 1.7, 1.2, left_axis);
  // Right coronary: round the right side in the groove of the right atrium and ventricle.
  vessel({{-28, 0.3, -1}, {-24, 1, -0.6}, {-24, 1, 0.4}, {-22, 0.4, 1}}, 2.1, 1.6,
         {kRightCentre[0], kRightCentre[1], 0});
}

}  // namespace gvsl::phantom
