// Registration: known maps of real volumes are found again, hopeless pairs are called so, and wrong
// input is named.
#include "model/registration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "imaging/image_file.h"
#include "imaging/testing.h"
#include "imaging/warp_volume.h"
#include "model/network.h"
#include "model/test_files.h"

namespace gvsl {
namespace {

std::string DataFile(const std::string& name) {
  const char* folder = std::getenv("GVSL_TEST_DATA");
  return std::string(folder != nullptr ? folder : GVSL_TEST_DATA_DEFAULT) + "/volumes/" + name;
}

constexpr char kHippocampus[] = "hippocampus_mr/images/hippocampus_169.nii.gz";
constexpr char kOtherHippocampus[] = "hippocampus_mr/images/hippocampus_155.nii.gz";
constexpr char kFetus[] = "fetal_brain_t2_cc0/fetal_SB_atlas_GA24_notoperated/srr.nii.gz";

RegistrationOptions WithoutNetwork() {
  RegistrationOptions options;
  options.use_network = false;
  return options;
}

Vec3 CentreOf(const Grid& grid) {
  Vec3 middle;
  for (int i = 0; i < 3; ++i) middle[i] = static_cast<double>(grid.size[i] - 1) / 2;
  return grid.IndexToPhysical(middle);
}

// x -> matrix (x - centre) + centre + shift.
AffineMap About(const Vec3& centre, const Mat3& matrix, const Vec3& shift) {
  AffineMap map;
  map.matrix = matrix;
  const Vec3 moved = map.Apply(centre);
  for (int r = 0; r < 3; ++r) map.translation_mm[r] = centre[r] + shift[r] - moved[r];
  return map;
}

// A smooth field of bumps with this greatest displacement along each axis, `period_mm` across.
DisplacementField Waves(const Grid& grid, double amplitude_mm, double period_mm) {
  DisplacementField field;
  field.grid = grid;
  const int64_t voxels = grid.voxel_count();
  field.values_mm.resize(static_cast<size_t>(3 * voxels));
  const double k = 2 * M_PI / period_mm;
  for (int64_t i = 0; i < voxels; ++i) {
    const Vec3 at = grid.IndexToPhysical({static_cast<double>(i % grid.size[0]),
                                          static_cast<double>(i / grid.size[0] % grid.size[1]),
                                          static_cast<double>(i / (grid.size[0] * grid.size[1]))});
    const double waves[3] = {std::sin(k * at[1]) * std::cos(k * at[2]),
                             std::sin(k * at[2] + 1) * std::cos(k * at[0]),
                             std::sin(k * at[0] + 2) * std::cos(k * at[1])};
    for (int c = 0; c < 3; ++c) {
      field.values_mm[static_cast<size_t>(c * voxels + i)] =
          static_cast<float>(amplitude_mm * waves[c]);
    }
  }
  return field;
}

// Mean distance in mm of two maps over the middle of a lattice: `margin` of each side left out.
double MeanDistanceMm(const SpatialMap& a, const SpatialMap& b, const Grid& grid, double margin) {
  const PointMapper first(a), second(b);
  double sum = 0, count = 0;
  for (double z = margin; z <= 1 - margin; z += 0.1) {
    for (double y = margin; y <= 1 - margin; y += 0.1) {
      for (double x = margin; x <= 1 - margin; x += 0.1) {
        const Vec3 point = grid.IndexToPhysical({x * static_cast<double>(grid.size[0] - 1),
                                                 y * static_cast<double>(grid.size[1] - 1),
                                                 z * static_cast<double>(grid.size[2] - 1)});
        const Vec3 p = first(point), q = second(point);
        sum += std::hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
        ++count;
      }
    }
  }
  return sum / count;
}

class RegistrationTest : public testing::Test {
 protected:
  // A volume of the test data as float32. Skips the test where it is absent.
  Volume Read(const std::string& name) {
    auto volume = ReadVolume(DataFile(name));
    EXPECT_TRUE(volume.ok()) << Message(volume.status());
    return *std::move(volume);
  }
  void SetUp() override {
    if (!std::filesystem::exists(DataFile(kHippocampus))) {
      GTEST_SKIP() << "no " << DataFile(kHippocampus);
    }
  }

  // Moves `volume` by the inverse of `truth`, onto `lattice`: registering gives `truth` back.
  Volume Moved(const Volume& volume, const SpatialMap& truth, const Grid& lattice) {
    const auto moving_to_fixed = Invert(truth, lattice);
    EXPECT_TRUE(moving_to_fixed.ok());
    return *WarpVolume(volume, moving_to_fixed->map, lattice);
  }

  Registration Registered(const Volume& fixed, const Volume& moving,
                          const RegistrationOptions& options) {
    auto registration = Register({&fixed, &moving}, card_, nullptr, options, {});
    EXPECT_TRUE(registration.ok()) << Message(registration.status());
    return registration.ok() ? *std::move(registration) : Registration();
  }

  absl::Status ErrorOf(const Volume* fixed, const Volume* moving,
                       const RegistrationOptions& options = WithoutNetwork()) {
    return Register({fixed, moving}, card_, nullptr, options, {}).status();
  }

  ModelCard card_;
};

TEST_F(RegistrationTest, AVolumeLiesOnItself) {
  const Volume volume = Read(kHippocampus);
  const Registration registration = Registered(volume, volume, WithoutNetwork());
  // The optimum is at the start; Adam's first steps leave it and come back.
  EXPECT_LT(MeanDistanceMm(registration.fixed_to_moving, {}, volume.grid(), 0), 0.1);
  EXPECT_GT(registration.verdict.ncc_after, 0.99);
  EXPECT_EQ(registration.verdict.quality, RegistrationQuality::kGood)
      << registration.verdict.reason;
}

TEST_F(RegistrationTest, FindsAShiftATurnAndAScale) {
  const Volume volume = Read(kHippocampus);
  const Vec3 centre = CentreOf(volume.grid());
  const double c = std::cos(0.2), s = std::sin(0.2);  // 11 degrees
  const struct {
    const char* name;
    AffineMap truth;
  } cases[] = {
      {"shift", About(centre, AffineMap().matrix, {4, -3, 2})},
      {"turn", About(centre, {{{c, -s, 0}, {s, c, 0}, {0, 0, 1}}}, {0, 0, 0})},
      {"scale", About(centre, {{{1.12, 0, 0}, {0, 0.9, 0}, {0, 0, 1.08}}}, {1, 0, 0})},
  };
  RegistrationOptions options = WithoutNetwork();
  options.deformable = false;
  for (const auto& one : cases) {
    SpatialMap truth;
    truth.affine = one.truth;
    const Volume moving = Moved(volume, truth, volume.grid());
    const Registration registration = Registered(volume, moving, options);
    // A fifth of a voxel; the moving volume has been interpolated once more than the fixed one.
    EXPECT_LT(MeanDistanceMm(registration.fixed_to_moving, truth, volume.grid(), 0.2), 0.2)
        << one.name;
    EXPECT_TRUE(registration.fixed_to_moving.displacement.empty());
  }
}

TEST_F(RegistrationTest, ARigidFitOnlyTurnsAndShifts) {
  const Volume volume = Read(kHippocampus);
  SpatialMap truth;
  truth.affine = About(CentreOf(volume.grid()), Rotation(5), {2, 1, -1});
  RegistrationOptions options = WithoutNetwork();
  options.linear = LinearModel::kRigid;
  options.deformable = false;
  const Registration registration =
      Registered(volume, Moved(volume, truth, volume.grid()), options);
  const Mat3& matrix = registration.fixed_to_moving.affine.matrix;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      double dot = 0;
      for (int r = 0; r < 3; ++r) dot += matrix[r][i] * matrix[r][j];
      EXPECT_NEAR(dot, i == j ? 1 : 0, 1e-9);
    }
  }
  EXPECT_LT(MeanDistanceMm(registration.fixed_to_moving, truth, volume.grid(), 0.2), 0.2);
}

TEST_F(RegistrationTest, FindsASmoothFieldOnAnisotropicAndObliqueLattices) {
  const Volume volume = Read(kFetus);
  // The moving volume is stored with other voxels, along other axes.
  Grid lattice = volume.grid();
  lattice.direction = Product(Rotation(12), lattice.direction);
  lattice.spacing_mm = {0.9, 1.1, 2.2};
  for (int i = 0; i < 3; ++i) {
    lattice.size[i] = std::llround(static_cast<double>(volume.grid().size[i]) *
                                   volume.grid().spacing_mm[i] / lattice.spacing_mm[i]);
  }
  const Vec3 centre = CentreOf(volume.grid()), off = CentreOf(lattice);
  for (int r = 0; r < 3; ++r) lattice.origin_mm[r] += centre[r] - off[r];
  SpatialMap truth;
  truth.affine = About(centre, Rotation(3), {3, -2, 1});
  truth.displacement = Waves(volume.grid(), 2, 60);
  RegistrationOptions options = WithoutNetwork();
  options.max_voxels = 250000;  // about 2 mm: quick
  options.inverse = true;
  const Registration registration = Registered(volume, Moved(volume, truth, lattice), options);
  const double before = MeanDistanceMm({}, truth, volume.grid(), 0.3),
               after = MeanDistanceMm(registration.fixed_to_moving, truth, volume.grid(), 0.3);
  // 0.7 voxels of the level; where the image is flat nothing can be seen.
  EXPECT_GT(before, 4);
  EXPECT_LT(after, 1.4);
  EXPECT_LT(registration.verdict.jacobian.non_positive_percent, 1);
  ASSERT_TRUE(registration.moving_to_fixed.has_value());
  EXPECT_LT(registration.moving_to_fixed->mean_residual_mm, 0.05);
  // The field covers the fixed volume: its corners lie inside the lattice.
  const Grid& field = registration.fixed_to_moving.displacement.grid;
  for (const Vec3& corner : {Vec3{0, 0, 0}, Vec3{134, 188, 154}}) {
    const Vec3 index = field.PhysicalToIndex(volume.grid().IndexToPhysical(corner));
    for (int i = 0; i < 3; ++i) {
      EXPECT_GE(index[i], 0);
      EXPECT_LE(index[i], static_cast<double>(field.size[i] - 1));
    }
  }
}

TEST_F(RegistrationTest, EveryMetricImprovesARealPairAndFoldsLittle) {
  const Volume fixed = Read(kHippocampus), moving = Read(kOtherHippocampus);
  for (const MetricWeights& weights : {MetricWeights{1, 0, 0}, MetricWeights{0, 1, 0}}) {
    RegistrationOptions options = WithoutNetwork();
    options.metric = weights;
    const RegistrationVerdict verdict = Registered(fixed, moving, options).verdict;
    EXPECT_GT(verdict.local_ncc_after, verdict.local_ncc_before + 0.1);
    EXPECT_GT(verdict.ncc_after, verdict.ncc_before);
    EXPECT_LT(verdict.jacobian.non_positive_percent, 1);
    EXPECT_NE(verdict.quality, RegistrationQuality::kFailed) << verdict.reason;
  }
}

TEST_F(RegistrationTest, AnUntrainedNetworkDoesNoHarmAndItsFeaturesAreAMetric) {
  card_.size = "tiny";
  card_.widths = *WidthsOf("tiny");
  GvslNetwork network(card_);
  ASSERT_TRUE(network->LoadState(InitialState(card_.widths, 7)).ok());
  const Volume fixed = Read(kHippocampus), moving = Read(kOtherHippocampus);
  RegistrationOptions options;
  options.metric = {1, 0, 0.5};
  options.refine_steps = 20;
  const auto registration = Register({&fixed, &moving}, card_, network.get(), options, {});
  ASSERT_TRUE(registration.ok()) << Message(registration.status());
  const RegistrationVerdict& verdict = registration->verdict;
  EXPECT_GT(verdict.local_ncc_after, verdict.local_ncc_before + 0.05);
  ASSERT_TRUE(verdict.feature_residual_after.has_value());
  EXPECT_LT(*verdict.feature_residual_after, *verdict.feature_residual_before);
}

TEST_F(RegistrationTest, TheNetworksAnswerAloneIsItsOwnMap) {
  // A network whose heads say "identity" (all weights 0) puts centre onto centre.
  card_.size = "tiny";
  card_.widths = *WidthsOf("tiny");
  GvslNetwork network(card_);
  {
    const torch::NoGradGuard no_grad;
    for (torch::Tensor& parameter : network->parameters()) parameter.zero_();
  }
  const Volume fixed = Read(kHippocampus), moving = Read(kOtherHippocampus);
  RegistrationOptions options;
  options.refine_steps = 0;
  const auto registration = Register({&fixed, &moving}, card_, network.get(), options, {});
  ASSERT_TRUE(registration.ok()) << Message(registration.status());
  const Vec3 from = CentreOf(fixed.grid()), to = CentreOf(moving.grid());
  const Vec3 found = registration->fixed_to_moving.Apply(from);
  // Boxes are centred to half a voxel: the padding is a whole number of voxels.
  for (int r = 0; r < 3; ++r) EXPECT_NEAR(found[r], to[r], 0.5 + 1e-4);
}

TEST_F(RegistrationTest, VolumesThatDoNotOverlapAreBroughtTogether) {
  const Volume fixed = Read(kHippocampus);
  Grid away = fixed.grid();
  for (double& mm : away.origin_mm) mm += 400;
  SpatialMap shift;
  shift.affine.translation_mm = {400, 400, 400};
  const Volume moving = Moved(fixed, shift, away);
  const Registration registration = Registered(fixed, moving, WithoutNetwork());
  EXPECT_LT(MeanDistanceMm(registration.fixed_to_moving, shift, fixed.grid(), 0), 0.2);
  RegistrationOptions stay = WithoutNetwork();
  stay.initialisation = Initialisation::kNone;
  const absl::Status status = ErrorOf(&fixed, &moving, stay);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(status, "share no voxel")) << Message(status);
}

TEST_F(RegistrationTest, MasksDecideWhatCounts) {
  // Right and left half of the moving volume are shifted against each other; the mask shows one.
  const Volume fixed = Read(kHippocampus);
  const Grid& grid = fixed.grid();
  SpatialMap shift;
  shift.affine.translation_mm = {0, 3, 0};
  const Volume moved = Moved(fixed, shift, grid);
  const auto value = [&](const Volume& volume, int64_t i) {
    return VisitVoxelType(volume.type(), [&](auto zero) {
      return static_cast<float>(volume.voxels<decltype(zero)>()[i]);
    });
  };
  const Volume moving = Filled<float>(grid, [&](auto x, auto y, auto z) {
    const int64_t i = (z * grid.size[1] + y) * grid.size[0] + x;
    return value(z < grid.size[2] / 2 ? moved : fixed, i);
  });
  const Volume mask = Filled<uint8_t>(
      grid, [&](auto, auto, auto z) { return z < grid.size[2] / 2 ? 1 : 0; }, VolumeKind::kLabels);
  RegistrationOptions options = WithoutNetwork();
  options.deformable = false;
  options.linear = LinearModel::kRigid;
  options.initialisation = Initialisation::kNone;
  auto registration = Register({&fixed, &moving, &mask, &mask}, card_, nullptr, options, {});
  ASSERT_TRUE(registration.ok()) << Message(registration.status());
  Grid half = grid;
  half.size[2] = grid.size[2] / 2;
  EXPECT_LT(MeanDistanceMm(registration->fixed_to_moving, shift, half, 0.2), 0.5);
}

TEST_F(RegistrationTest, ForthAndBackIsMeasuredWhenAsked) {
  const Volume fixed = Read(kHippocampus), moving = Read(kOtherHippocampus);
  RegistrationOptions options = WithoutNetwork();
  options.refine_steps = 30;
  EXPECT_FALSE(Registered(fixed, moving, options).verdict.inverse_consistency_mm.has_value());
  options.consistency = true;
  const auto consistency = Registered(fixed, moving, options).verdict.inverse_consistency_mm;
  ASSERT_TRUE(consistency.has_value());
  EXPECT_GT(*consistency, 0);
  EXPECT_LT(*consistency, 3);
}

TEST_F(RegistrationTest, HopelessPairsAreCalledFailed) {
  const Volume hippocampus = Read(kHippocampus);
  const Volume noise = Filled<float>(hippocampus.grid(), [](auto x, auto y, auto z) {
    return static_cast<float>(Scrambled(x, y, z));
  });
  Volume abdomen = Read("totalsegmentator_abdomen/ct.nii.gz");
  abdomen.set_modality("CT");
  RegistrationOptions options = WithoutNetwork();
  options.max_voxels = 100000;
  for (const Volume* moving : {&noise, static_cast<const Volume*>(&abdomen)}) {
    const Registration registration = Registered(hippocampus, *moving, options);
    EXPECT_EQ(registration.verdict.quality, RegistrationQuality::kFailed)
        << registration.verdict.reason;
    EXPECT_FALSE(registration.verdict.reason.empty());
  }
  // Black surrounds, which lie on each other however different the rest is.
  const Volume brain = Read("fetal_brain_t2_cc0/fetal_SB_atlas_GA30_operated/srr.nii.gz");
  abdomen.set_modality("MR");
  options.max_voxels = 300000;  // of 2 mm
  const Registration outlines = Registered(brain, abdomen, options);
  EXPECT_EQ(outlines.verdict.quality, RegistrationQuality::kFailed) << outlines.verdict.reason;
}

TEST_F(RegistrationTest, StopsBetweenStepsWithTheWatchersStatus) {
  const Volume fixed = Read(kHippocampus), moving = Read(kOtherHippocampus);
  for (const std::string stop_in : {"linear", "deformable", "verdict"}) {
    int calls_after = 0;
    bool stopped = false;
    const auto watch = [&](const RegistrationProgress& progress) {
      EXPECT_GE(progress.step, 1);
      EXPECT_LE(progress.step, progress.steps);
      calls_after += stopped ? 1 : 0;
      if (progress.stage != stop_in) return absl::OkStatus();
      stopped = true;
      return absl::CancelledError("the caller is gone");
    };
    const auto registration = Register({&fixed, &moving}, card_, nullptr, WithoutNetwork(), watch);
    EXPECT_EQ(registration.status().code(), absl::StatusCode::kCancelled) << stop_in;
    EXPECT_EQ(calls_after, 0) << stop_in;
  }
}

TEST_F(RegistrationTest, WrongVolumesAreNamed) {
  const Volume good = Read(kHippocampus);
  const Grid& grid = good.grid();
  const Volume constant = Filled<int16_t>(grid, [](auto, auto, auto) { return 7; });
  const Volume labels = Filled<uint8_t>(
      grid, [](auto x, auto, auto) { return x; }, VolumeKind::kLabels);
  Volume nan = Filled<float>(grid, [](auto x, auto, auto) { return static_cast<float>(x); });
  nan.mutable_voxels<float>()[17] = NAN;
  const Volume thin = Filled<int16_t>(GridOf({30, 30, 4}), Scrambled);
  const Volume empty;
  const struct {
    const Volume* volume;
    const char* message;
  } cases[] = {{nullptr, "there is no volume"}, {&empty, "there is no volume"},
               {&constant, "every voxel is 7"}, {&labels, "it is a label map"},
               {&nan, "NaN or infinity"},       {&thin, "30 x 30 x 4 voxels; at least 8"}};
  for (const auto& one : cases) {
    const absl::Status as_fixed = ErrorOf(one.volume, &good),
                       as_moving = ErrorOf(&good, one.volume);
    EXPECT_EQ(as_fixed.code(), absl::StatusCode::kInvalidArgument) << one.message;
    EXPECT_EQ(Message(as_fixed).rfind("fixed: ", 0), 0u) << Message(as_fixed);
    EXPECT_EQ(Message(as_moving).rfind("moving: ", 0), 0u) << Message(as_moving);
    EXPECT_TRUE(Contains(as_fixed, one.message)) << Message(as_fixed);
  }
  const Volume blank = Filled<uint8_t>(
      grid, [](auto, auto, auto) { return 0; }, VolumeKind::kLabels);
  const auto masked =
      Register({&good, &good, nullptr, &blank}, card_, nullptr, WithoutNetwork(), {});
  EXPECT_TRUE(Contains(masked.status(), "moving_mask: all of its voxels are 0"));
}

TEST_F(RegistrationTest, WrongOptionsAreNamed) {
  const Volume good = Read(kHippocampus);
  const auto with = [&](auto change) {
    RegistrationOptions options = WithoutNetwork();
    change(options);
    return ErrorOf(&good, &good, options);
  };
  const auto expect = [](const absl::Status& status, const char* message) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(Contains(status, message)) << Message(status);
  };
  expect(with([](auto& o) { o.refine_steps = kMaxRefineSteps + 1; }), "refine_steps: 1001");
  expect(with([](auto& o) { o.refine_steps = 0; }), "nothing to do");
  expect(with([](auto& o) {
           o.refine_steps = 0;
           o.discrete_stage = true;
           o.deformable = false;
         }),
         "nothing to do");
  expect(with([](auto& o) { o.metric = {0, 0, 0}; }), "metric: all weights are 0");
  expect(with([](auto& o) { o.metric.mind = NAN; }), "metric: the weight nan");
  expect(with([](auto& o) { o.smoothness_weight = -1; }), "smoothness_weight");
  expect(with([](auto& o) { o.max_voxels = 1; }), "max_voxels");
  EXPECT_EQ(with([](auto& o) { o.use_network = true; }).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(RegistrationTest, AModelOfTheOfficialGeometryDoesNotAlign) {
  card_.size = "tiny";
  card_.widths = *WidthsOf("tiny");
  card_.geometry = Geometry::kOfficial;
  GvslNetwork network(card_);
  const Volume volume = Read(kHippocampus);
  const auto registration =
      Register({&volume, &volume}, card_, network.get(), RegistrationOptions(), {});
  EXPECT_EQ(registration.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Contains(registration.status(), "official"));
}

}  // namespace
}  // namespace gvsl
