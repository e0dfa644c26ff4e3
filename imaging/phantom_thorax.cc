#include "imaging/phantom_thorax.h"

#include "imaging/phantom_random.h"

namespace gvsl::phantom {
namespace {

constexpr double kChestMiddleY = 16;
constexpr double kBodyX = 152, kBodyY = 112;
constexpr double kSubcutaneousFatMm = 11;
constexpr double kRibsX = 126, kRibsY = 85;  // middle of the ribs
constexpr double kChestWallMm = 7;           // from there to the pleura

constexpr double kRibPitchMm = 27;
constexpr double kRibSlope = 0.5;  // ribs descend this much a mm forward
constexpr double kRibHalfThicknessMm = 4;
constexpr double kRibHalfHeightMm = 6.5;

constexpr double kVertebraPitchMm = 26;
constexpr double kDiscHalfMm = 3;

// Seed of the one pattern of lung vessels that all patients share.
constexpr uint64_t kLungVesselSeed = 20230617;

// Distance to the nearest multiple of `pitch`.
double OffBeat(double x, double pitch) {
  const double beats = x / pitch;
  return pitch * (beats - std::floor(beats + 0.5));
}

// The chest narrows toward the neck.
double Narrowing(double z) {
  const double above = std::max(0.0, z - 20) / 110;
  return std::max(0.3, 1 - 0.38 * above * above);
}

}  // namespace

Thorax::Thorax() {
  airways_.push_back(Tube({{{-12, 14, 170}, 8}, {{-14, 27, 74}, 8}}));
  airways_.push_back(Tube({{{-14, 27, 74}, 6.5}, {{-28, 33, 58}, 6}, {{-50, 34, 38}, 4}}));
  airways_.push_back(Tube({{{-14, 27, 74}, 6.5}, {{24, 37, 60}, 5.5}, {{52, 40, 36}, 3.5}}));
  // From each hilum six vessels fan out, each dividing three times.
  PhantomRandom random(kLungVesselSeed, 0);
  for (const double side : {-1.0, 1.0}) {
    const Vec3 hilum = {side * 48, 30, 26};
    const Vec3 fans[] = {{0.6, -0.7, 0.75}, {0.8, 0.4, 0.7},   {1.0, -0.5, 0.0},
                         {1.0, 0.55, -0.1}, {0.7, -0.7, -0.6}, {0.55, 0.5, -0.9}};
    for (const Vec3& fan : fans) {
      struct Branch {
        Vec3 from, along;
        double length, radius;
        int depth;
      };
      std::vector<Branch> open = {{hilum, Unit({side * fan[0], fan[1], fan[2]}), 27, 4.6, 0}};
      while (!open.empty()) {
        const Branch branch = open.back();
        open.pop_back();
        const Vec3 to = branch.from + branch.length * branch.along;
        lung_vessels_.push_back(Tube({{branch.from, branch.radius}, {to, 0.75 * branch.radius}}));
        if (branch.depth == 3) continue;
        // Children part to either side of a random plane through the parent.
        const Vec3 spread = Cross(branch.along, random.InBall(1));
        const Vec3 apart = (0.55 / std::max(1e-3, Length(spread))) * spread;
        for (const double sign : {-1.0, 1.0}) {
          open.push_back({to, Unit(branch.along + sign * apart), 0.80 * branch.length,
                          0.70 * branch.radius, branch.depth + 1});
        }
      }
    }
  }
}

void Thorax::Ribs(const Vec3& point_mm, double narrowing, ThoraxDistances* d) const {
  const double x = point_mm[0], y = point_mm[1] - kChestMiddleY, z = point_mm[2];
  const double cage = OvalDistance(x, y, kRibsX * narrowing, kRibsY * narrowing);
  if (std::abs(cage) < 4 * kRibHalfThicknessMm) {
    const double beat = OffBeat(z - kRibSlope * y, kRibPitchMm);
    const double across = cage / kRibHalfThicknessMm, up = 0.9 * beat / kRibHalfHeightMm;
    const double bar = kRibHalfThicknessMm * (std::sqrt(across * across + up * up) - 1);
    // Bone from the transverse processes to the front, where cartilage goes on to the sternum.
    const bool behind = y > 0;
    const double side = std::abs(x);
    d->rib = std::max(bar, (behind ? 30.0 : 58.0) - side);
    if (!behind) d->cartilage = std::max({bar, side - 58, z - 90});
    if (!behind && side < 30) {
      const Vec3 from_sternum = {x / 19, cage / 6, 0};
      const double slab = 6 * (Length(from_sternum) - 1);
      d->rib = std::min(d->rib, std::max({slab, -48 - z, z - 92}));
    }
  }
}

void Thorax::Spine(const Vec3& point_mm, ThoraxDistances* d) const {
  const double z = point_mm[2];
  const double x = point_mm[0];
  // Kyphosis: the column lies farthest back at the heart's height.
  const double y = point_mm[1] - (70 - 0.0006 * z * z);
  if (std::abs(x) > 60 || y < -40 || y > 75) return;
  const double beat = OffBeat(z, kVertebraPitchMm);  // 0 in the middle of a vertebral body
  const double waist = 1.06 - 0.10 * (1 - 4 * beat * beat / (kVertebraPitchMm * kVertebraPitchMm));
  const double column = OvalDistance(x, y, 18 * waist, 14 * waist);
  // The canal runs behind the bodies; the arch closes it at each vertebra.
  d->canal = OvalDistance(x, y - 23, 9.5, 8);
  const double level = std::abs(beat) - 8;
  const double arch = std::max(OvalDistance(x, y - 23, 15, 13.5), level);
  const double transverse =
      kRibHalfThicknessMm *
      (Length({std::max(0.0, std::abs(x) - 30) / 5, (y - 24) / 5, (beat - 2) / 6}) - 1);
  // The spinous process slopes down and back.
  const double down = OffBeat(z + 0.5 * (y - 30), kVertebraPitchMm);
  const double spinous = std::max({std::abs(x) - 3.5, std::abs(down) - 6, 34 - y, y - 54});
  d->spine = std::max(std::min({column, arch, transverse, spinous}), -d->canal);
  d->disc = std::max(column, kVertebraPitchMm / 2 - kDiscHalfMm - std::abs(beat));
}

void Thorax::Lungs(const Vec3& point_mm, const HeartDistances& heart, ThoraxDistances* d) const {
  const double x = point_mm[0], y = point_mm[1], z = point_mm[2];
  // The domes of the diaphragm, the right one higher.
  const auto dome = [&](double top, double middle_x) {
    const double dx = x - middle_x, dy = y - 18;
    return top - 0.010 * dx * dx - 0.012 * dy * dy;
  };
  const double diaphragm = 0.8 * (std::max(dome(-38, -62), dome(-46, 62)) - z);
  const double mediastinum = std::min({heart.hull - 8, d->spine - 6, std::abs(x - 4) - 9});
  d->lung = std::max({d->cavity, diaphragm, -mediastinum, z - 122});
  const double below = std::max(d->cavity + 2, 3 - diaphragm);
  d->liver = std::max({below, 0.8 * (x - 28 - 0.25 * z - 20), 0.9 * (y - 74)});
  d->spleen = std::max(below, EllipsoidDistance(point_mm - Vec3{84, 44, -104}, {28, 38, 34}));
  d->stomach = std::max(below, EllipsoidDistance(point_mm - Vec3{64, -14, -108}, {34, 36, 40}));
  if (d->lung < 3) {
    for (const Tube& vessel : lung_vessels_) {
      d->lung_vessel = std::min(d->lung_vessel, vessel.Distance(point_mm, 2));
    }
  }
  for (const Tube& airway : airways_) d->airway = std::min(d->airway, airway.Distance(point_mm, 4));
}

ThoraxDistances Thorax::At(const Vec3& point_mm, const HeartDistances& heart) const {
  ThoraxDistances d;
  const double x = point_mm[0], y = point_mm[1] - kChestMiddleY;
  d.body = OvalDistance(x, y, kBodyX, kBodyY);
  if (d.body > 2) return d;
  d.muscle = d.body + kSubcutaneousFatMm;
  if (d.muscle > 2) return d;
  const double narrowing = Narrowing(point_mm[2]);
  d.cavity =
      OvalDistance(x, y, kRibsX * narrowing - kChestWallMm, kRibsY * narrowing - kChestWallMm);
  Ribs(point_mm, narrowing, &d);
  Spine(point_mm, &d);
  if (d.cavity < 4) Lungs(point_mm, heart, &d);
  return d;
}

}  // namespace gvsl::phantom
