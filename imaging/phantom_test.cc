#include "imaging/phantom.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "imaging/phantom_anatomy.h"
#include "imaging/phantom_random.h"
#include "imaging/phantom_shape.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

constexpr int kLabels = 13;
constexpr int kHeartLabels[] = {1, 2, 3, 4, 5, 6, 7};

PhantomOptions Patient(uint64_t patient) {
  PhantomOptions options;
  options.patient = patient;
  return options;
}

// The same field of view at another number of voxels.
PhantomOptions Coarse(uint64_t patient, double spacing_mm) {
  PhantomOptions options = Patient(patient);
  options.spacing_mm = {spacing_mm, spacing_mm, spacing_mm};
  options.size = {static_cast<int64_t>(256 / spacing_mm), static_cast<int64_t>(256 / spacing_mm),
                  static_cast<int64_t>(240 / spacing_mm)};
  return options;
}

Phantom Make(const PhantomOptions& options) {
  absl::StatusOr<Phantom> phantom = MakePhantom(options);
  EXPECT_TRUE(phantom.ok()) << phantom.status();
  return *std::move(phantom);
}

std::string HashOf(const Volume& volume) { return Sha256Of(volume.bytes(), volume.byte_count()); }

double Distance(const Vec3& a, const Vec3& b) {
  return std::sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) +
                   (a[2] - b[2]) * (a[2] - b[2]));
}

// Number of components of `label` that touch by faces, and the size of the largest.
struct Components {
  int count = 0;
  int64_t largest = 0;
};
Components ComponentsOf(const Volume& labels, uint8_t label) {
  const auto& size = labels.grid().size;
  const uint8_t* voxels = labels.voxels<uint8_t>();
  std::vector<bool> seen(labels.voxel_count(), false);
  Components result;
  std::vector<int64_t> open;
  for (int64_t seed = 0; seed < labels.voxel_count(); ++seed) {
    if (voxels[seed] != label || seen[seed]) continue;
    ++result.count;
    int64_t voxels_here = 0;
    open.push_back(seed);
    seen[seed] = true;
    while (!open.empty()) {
      const int64_t voxel = open.back();
      open.pop_back();
      ++voxels_here;
      const int64_t position[3] = {voxel % size[0], voxel / size[0] % size[1],
                                   voxel / (size[0] * size[1])};
      const int64_t stride[3] = {1, size[0], size[0] * size[1]};
      for (int axis = 0; axis < 3; ++axis) {
        for (const int64_t step : {-1, 1}) {
          const int64_t at = position[axis] + step;
          if (at < 0 || at >= size[axis]) continue;
          const int64_t next = voxel + step * stride[axis];
          if (voxels[next] != label || seen[next]) continue;
          seen[next] = true;
          open.push_back(next);
        }
      }
    }
    result.largest = std::max(result.largest, voxels_here);
  }
  return result;
}

// A mean anatomy point of every kind of place, from a fixed stream.
Vec3 RandomPoint(PhantomRandom* random) {
  return {random->Between(-120, 120), random->Between(-120, 120), random->Between(-110, 110)};
}

TEST(PhantomTest, EveryPatientHasEveryLabel) {
  for (uint64_t patient = 0; patient < 12; ++patient) {
    const Phantom phantom = Make(Coarse(patient, 4));
    std::vector<int64_t> counts(kLabels, 0);
    for (int64_t i = 0; i < phantom.labels.voxel_count(); ++i) {
      const uint8_t label = phantom.labels.voxels<uint8_t>()[i];
      ASSERT_LT(label, kLabels);
      ++counts[label];
    }
    for (int label = 0; label < kLabels; ++label) {
      EXPECT_GT(counts[label], 0) << "patient " << patient << " lacks label " << label;
    }
    // The heart's structures have the volume of real ones: 15..250 ml.
    for (int label : kHeartLabels) {
      const double millilitres = static_cast<double>(counts[label]) * 64e-3;
      EXPECT_GT(millilitres, 15) << "patient " << patient << " label " << label;
      EXPECT_LT(millilitres, 250) << "patient " << patient << " label " << label;
    }
  }
}

TEST(PhantomTest, HeartStructuresAreOnePieceEach) {
  for (uint64_t patient : {1, 2}) {
    PhantomOptions options = Patient(patient);
    options.spacing_mm = {1.5, 1.5, 1.5};
    options.size = {140, 130, 140};
    const Phantom phantom = Make(options);
    for (int label : kHeartLabels) {
      const Components components = ComponentsOf(phantom.labels, static_cast<uint8_t>(label));
      EXPECT_EQ(components.count, 1) << "patient " << patient << " label " << label;
      EXPECT_GT(components.largest, 0);
    }
  }
}

TEST(PhantomTest, LungsAreTwoPieces) {
  const Phantom phantom = Make(Coarse(3, 2));
  const Components components =
      ComponentsOf(phantom.labels, static_cast<uint8_t>(PhantomLabel::kLung));
  EXPECT_GE(components.count, 2);
  int64_t all = 0;
  for (int64_t i = 0; i < phantom.labels.voxel_count(); ++i) {
    all += phantom.labels.voxels<uint8_t>()[i] == static_cast<uint8_t>(PhantomLabel::kLung);
  }
  // Neither holds nearly all: they do not touch in front of or behind the heart.
  EXPECT_LT(components.largest, 0.7 * static_cast<double>(all));
}

// From the cavity of the left ventricle one comes only into myocardium, or through the valves into
// the left atrium and the aorta; only at the rim of the valve plane may a voxel meet other tissue.
TEST(PhantomTest, MyocardiumWrapsTheLeftVentricle) {
  const Phantom phantom = Make(Coarse(4, 2));
  const auto& size = phantom.labels.grid().size;
  const uint8_t* voxels = phantom.labels.voxels<uint8_t>();
  const auto is = [](uint8_t voxel, PhantomLabel label) {
    return voxel == static_cast<uint8_t>(label);
  };
  int64_t muscle = 0, valves = 0, elsewhere = 0;
  const int64_t strides[] = {1, size[0], size[0] * size[1]};
  for (int64_t i = strides[2]; i < phantom.labels.voxel_count() - strides[2]; ++i) {
    if (!is(voxels[i], PhantomLabel::kLeftVentricle)) continue;
    for (const int64_t stride : strides) {
      for (const int64_t next : {i - stride, i + stride}) {
        if (is(voxels[next], PhantomLabel::kLeftVentricle)) continue;
        if (is(voxels[next], PhantomLabel::kMyocardium)) {
          ++muscle;
        } else if (is(voxels[next], PhantomLabel::kLeftAtrium) ||
                   is(voxels[next], PhantomLabel::kAscendingAorta)) {
          ++valves;
        } else {
          ++elsewhere;
        }
      }
    }
  }
  EXPECT_GT(muscle, 1500);
  EXPECT_GT(valves, 100);
  // The fibrous ring between atrium and aorta, 2 mm wide.
  EXPECT_LT(static_cast<double>(elsewhere), 0.06 * static_cast<double>(muscle));
}

TEST(PhantomTest, BrightnessFollowsTheTissue) {
  for (uint64_t patient = 20; patient < 24; ++patient) {
    const Phantom phantom = Make(Coarse(patient, 3));
    std::vector<std::vector<int16_t>> values(kLabels);
    for (int64_t i = 0; i < phantom.image.voxel_count(); ++i) {
      values[phantom.labels.voxels<uint8_t>()[i]].push_back(phantom.image.voxels<int16_t>()[i]);
    }
    std::vector<double> median(kLabels);
    for (int label = 0; label < kLabels; ++label) {
      auto middle = values[label].begin() + values[label].size() / 2;
      std::nth_element(values[label].begin(), middle, values[label].end());
      median[label] = *middle;
    }
    const auto of = [&](PhantomLabel label) { return median[static_cast<int>(label)]; };
    // Medians move by the noise's 15 HU over the root of hundreds of voxels: 10 HU is ample.
    EXPECT_NEAR(of(PhantomLabel::kBackground), -1000, 15);
    EXPECT_GT(of(PhantomLabel::kLung), -900);
    EXPECT_LT(of(PhantomLabel::kLung), -790);
    EXPECT_GT(of(PhantomLabel::kMyocardium), 70);
    EXPECT_LT(of(PhantomLabel::kMyocardium), 135);
    EXPECT_GT(of(PhantomLabel::kLeftVentricle), 270);
    EXPECT_LT(of(PhantomLabel::kLeftVentricle), 490);
    EXPECT_NEAR(of(PhantomLabel::kLeftAtrium), of(PhantomLabel::kLeftVentricle), 10);
    EXPECT_NEAR(of(PhantomLabel::kAscendingAorta), of(PhantomLabel::kLeftVentricle), 35);
    EXPECT_NEAR(of(PhantomLabel::kRightAtrium), of(PhantomLabel::kRightVentricle), 10);
    EXPECT_GT(of(PhantomLabel::kRightVentricle), 150);
    EXPECT_GT(of(PhantomLabel::kRib), 140);
    EXPECT_GT(of(PhantomLabel::kSpine), 100);
  }
}

TEST(PhantomTest, NoiseHasTheStandardDeviationAskedFor) {
  PhantomOptions options = Coarse(5, 3);
  const Phantom noisy = Make(options);
  options.noise_hu = 0;
  const Phantom clean = Make(options);
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < clean.image.voxel_count(); ++i) {
    const double before = clean.image.voxels<int16_t>()[i];
    if (before < -950) continue;  // there the scanner's floor of -1024 cuts the noise
    const double noise = noisy.image.voxels<int16_t>()[i] - before;
    sum += noise;
    squares += noise * noise;
    ++count;
  }
  const double mean = sum / static_cast<double>(count);
  // 400,000 voxels: standard errors 0.03 and 0.02 HU; rounding to whole HU adds 0.01.
  EXPECT_NEAR(mean, 0, 0.15);
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(count) - mean * mean), 15, 0.15);
  EXPECT_EQ(HashOf(noisy.labels), HashOf(clean.labels));
}

TEST(PhantomTest, SameOptionsGiveTheSameVoxelsAndPatientsDiffer) {
  PhantomOptions options = Coarse(6, 4);
  const Phantom once = Make(options);
  const Phantom again = Make(options);
  EXPECT_EQ(HashOf(once.image), HashOf(again.image));
  EXPECT_EQ(HashOf(once.labels), HashOf(again.labels));
  options.patient = 7;
  const Phantom other = Make(options);
  EXPECT_NE(HashOf(once.image), HashOf(other.image));
  EXPECT_NE(HashOf(once.labels), HashOf(other.labels));
}

// The digests pin the anatomy: a machine, compiler or flag that changes one voxel is found here.
// They change with the anatomy, and only on purpose.
TEST(PhantomTest, VoxelsAreTheSameOnEveryMachine) {
  const Phantom phantom = Make(Coarse(11, 4));
  EXPECT_EQ(HashOf(phantom.image),
            "121f185cd1bc16abfc4a64a2118c5180f5d861c02154b851b09b7b799c5e9db8");
  EXPECT_EQ(HashOf(phantom.labels),
            "e9e151a19435966cddc58e1fb1840b173768561a9c904f3810891c5c186279cd");
}

TEST(PhantomTest, SpacingSamplesTheSameAnatomy) {
  PhantomOptions fine = Coarse(8, 2);
  fine.size = {127, 127, 119};
  fine.noise_hu = 0;
  PhantomOptions coarse = fine;
  coarse.spacing_mm = {4, 4, 4};
  coarse.size = {64, 64, 60};  // every second voxel of the fine grid: both are centred
  const Phantom a = Make(fine);
  const Phantom b = Make(coarse);
  for (int64_t z = 0; z < 60; z += 3) {
    for (int64_t y = 0; y < 64; ++y) {
      for (int64_t x = 0; x < 64; ++x) {
        const int64_t in_b = (z * 64 + y) * 64 + x;
        const int64_t in_a = (2 * z * 127 + 2 * y) * 127 + 2 * x;
        ASSERT_EQ(a.labels.voxels<uint8_t>()[in_a], b.labels.voxels<uint8_t>()[in_b]);
        // Origins differ in rounding only, which may turn a half.
        ASSERT_NEAR(a.image.voxels<int16_t>()[in_a], b.image.voxels<int16_t>()[in_b], 1);
      }
    }
  }
}

TEST(PhantomTest, GridIsCentredAndDescribed) {
  const Phantom phantom = Make(Coarse(9, 8));
  EXPECT_EQ(phantom.image.modality(), "CT");
  EXPECT_EQ(phantom.image.type(), VoxelType::kInt16);
  EXPECT_EQ(phantom.labels.kind(), VolumeKind::kLabels);
  EXPECT_TRUE(phantom.image.grid() == phantom.labels.grid());
  EXPECT_EQ(phantom.image.grid().origin_mm, (Vec3{-124, -124, -116}));
}

TEST(PhantomTest, RefusesGridsAndAmountsThatMakeNoSense) {
  PhantomOptions options;
  options.size = {128, 0, 96};
  EXPECT_EQ(MakePhantom(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = PhantomOptions();
  options.spacing_mm[2] = -1;
  EXPECT_EQ(MakePhantom(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = PhantomOptions();
  options.spacing_mm[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(MakePhantom(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = PhantomOptions();
  options.noise_hu = -1;
  EXPECT_EQ(MakePhantom(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = PhantomOptions();
  options.shape_variation = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(MakePhantom(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MapBetweenPhantomsTest, ThereAndBackIsTheSamePoint) {
  PhantomRandom random(1, 1);
  for (uint64_t patient = 0; patient < 20; ++patient) {
    PhantomOptions from = Patient(patient), to = Patient(patient + 100);
    // Up to the strongest shapes there are.
    from.shape_variation = to.shape_variation = 0.15 * static_cast<double>(patient + 1);
    for (int i = 0; i < 50; ++i) {
      const Vec3 point = RandomPoint(&random);
      const Vec3 there = MapBetweenPhantoms(from, to, point);
      const Vec3 back = MapBetweenPhantoms(to, from, there);
      // The header promises 1e-6 mm a way; back may stretch it by 1 / (0.2^3 * 0.73), less than
      // 200.
      EXPECT_LT(Distance(back, point), 2e-6) << "patient " << patient;
      EXPECT_LT(Distance(MapBetweenPhantoms(from, from, point), point), 1e-6);
    }
  }
}

TEST(MapBetweenPhantomsTest, PatientsDifferByMillimetres) {
  PhantomRandom random(2, 1);
  double sum = 0;
  int count = 0;
  for (uint64_t patient = 0; patient < 10; ++patient) {
    PhantomOptions from = Patient(patient), to = Patient(patient + 50);
    from.vary_pose = to.vary_pose = false;
    for (int i = 0; i < 50; ++i, ++count) {
      const Vec3 point = {random.Between(-60, 60), random.Between(-60, 60),
                          random.Between(-60, 60)};
      sum += Distance(MapBetweenPhantoms(from, to, point), point);
    }
  }
  // Shape alone: enough to make registration necessary, little enough to keep one topology.
  EXPECT_GT(sum / count, 3);
  EXPECT_LT(sum / count, 15);
}

// The map carries a point to the same tissue: exactly, because both patients ask one mean anatomy.
// Points within rounding of a border could differ; none of these does.
TEST(MapBetweenPhantomsTest, CarriesLabelsExactly) {
  const PhantomOptions from = Coarse(30, 3);
  PhantomOptions to = Patient(31);
  const Phantom phantom = Make(from);
  const PhantomShape to_shape(to.patient, to.shape_variation, to.vary_pose);
  const PhantomContrast contrast;
  int64_t heart_points = 0;
  for (int64_t i = 0; i < phantom.labels.voxel_count(); i += 7) {
    const auto& size = phantom.labels.grid().size;
    const Vec3 point = phantom.labels.grid().IndexToPhysical(
        {static_cast<double>(i % size[0]), static_cast<double>(i / size[0] % size[1]),
         static_cast<double>(i / (size[0] * size[1]))});
    const Vec3 mapped = MapBetweenPhantoms(from, to, point);
    const PhantomLabel there = PhantomAnatomy::Mean().At(to_shape.ToMean(mapped), contrast).label;
    ASSERT_EQ(static_cast<int>(there), phantom.labels.voxels<uint8_t>()[i]) << "voxel " << i;
    heart_points += there >= PhantomLabel::kMyocardium && there <= PhantomLabel::kPulmonaryArtery;
  }
  EXPECT_GT(heart_points, 2000);
}

// Without the map the same positions in two patients agree far less: the test above is no accident.
TEST(MapBetweenPhantomsTest, UnmappedPatientsOverlapOnlyPartly) {
  const Phantom a = Make(Coarse(30, 3));
  const Phantom b = Make(Coarse(31, 3));
  int64_t both = 0, either = 0;
  for (int64_t i = 0; i < a.labels.voxel_count(); ++i) {
    const bool in_a = a.labels.voxels<uint8_t>()[i] == 1, in_b = b.labels.voxels<uint8_t>()[i] == 1;
    both += 2 * (in_a && in_b);
    either += in_a + in_b;
  }
  EXPECT_LT(static_cast<double>(both) / static_cast<double>(either),
            0.8);  // Dice of the myocardium
}

TEST(PhantomShapeTest, JacobianIsPositiveEverywhere) {
  PhantomRandom random(3, 1);
  for (double variation : {0.0, 1.0, 3.0}) {
    for (uint64_t patient = 0; patient < 10; ++patient) {
      const PhantomShape shape(patient, variation, true);
      for (int i = 0; i < 100; ++i) {
        const Vec3 p = RandomPoint(&random);
        constexpr double kStep = 1e-3;
        double j[3][3];
        for (int axis = 0; axis < 3; ++axis) {
          Vec3 ahead = p, behind = p;
          ahead[axis] += kStep;
          behind[axis] -= kStep;
          const Vec3 a = shape.ToMean(ahead), b = shape.ToMean(behind);
          for (int r = 0; r < 3; ++r) j[r][axis] = (a[r] - b[r]) / (2 * kStep);
        }
        const double determinant = j[0][0] * (j[1][1] * j[2][2] - j[1][2] * j[2][1]) -
                                   j[0][1] * (j[1][0] * j[2][2] - j[1][2] * j[2][0]) +
                                   j[0][2] * (j[1][0] * j[2][1] - j[1][1] * j[2][0]);
        // Three warps of at least (1 - 0.8)^3 each and a scale of at least 0.73 an axis: proven
        // bound.
        EXPECT_GT(determinant, 0.389 * 0.008 * 0.008 * 0.008);
        if (variation == 0) {  // a rigid pose; the tolerance is rounding over the step
          EXPECT_NEAR(determinant, 1, 1e-6);
        }
      }
    }
  }
}

TEST(SmoothWarpTest, KeepsTheLipschitzBoundAskedFor) {
  PhantomRandom random(4, 1);
  double largest = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const SmoothWarp warp(seed, 9, 40, 200, 0.6);
    for (int i = 0; i < 500; ++i) {
      const Vec3 a = RandomPoint(&random);
      Vec3 b = a;
      for (double& c : b) c += random.Between(-2, 2);
      const Vec3 fa = warp.Forward(a), fb = warp.Forward(b);
      const Vec3 ua = {fa[0] - a[0], fa[1] - a[1], fa[2] - a[2]};
      const Vec3 ub = {fb[0] - b[0], fb[1] - b[1], fb[2] - b[2]};
      largest = std::max(largest, Distance(ua, ub) / Distance(a, b));
    }
  }
  EXPECT_LT(largest, 0.6);
  EXPECT_GT(largest, 0.08);  // the proven bound is loose, but the warp does move
}

TEST(SmoothWarpTest, IsTheIdentityFarOutside) {
  const SmoothWarp warp(1, 9, 40, 200, 0.6);
  const Vec3 far = {1000, -5e9, 20};
  EXPECT_EQ(warp.Forward(far), far);
  EXPECT_EQ(warp.Inverse(far), far);
}

}  // namespace
}  // namespace gvsl
