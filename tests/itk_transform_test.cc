// ITK, an independent implementation, reads our transform files and resamples the moving image with
// them: it gets our warped volume. ITK runs in a program of its own (tests/itk_resample_main.cc),
// since its niftilib has the names of ours.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "imaging/image_file.h"
#include "imaging/testing.h"
#include "imaging/transform_file.h"
#include "imaging/warp_volume.h"

namespace gvsl {
namespace {

// A map that turns, scales and bends, with its field on a lattice around `fixed`.
SpatialMap SomeMap(const Grid& fixed) {
  SpatialMap map;
  map.affine.matrix = Product(Rotation(4), {{{1.05, 0.02, 0}, {0, 0.96, 0}, {0.01, 0, 1.03}}});
  // About the middle of the volume.
  Vec3 middle;
  for (int i = 0; i < 3; ++i) middle[i] = static_cast<double>(fixed.size[i] - 1) / 2;
  const Vec3 centre = fixed.IndexToPhysical(middle), turned = map.affine.Apply(centre);
  for (int r = 0; r < 3; ++r) map.affine.translation_mm[r] = centre[r] - turned[r] + r - 1;
  Grid lattice = fixed;
  for (int i = 0; i < 3; ++i) {
    lattice.spacing_mm[i] *= 2;
    lattice.size[i] = fixed.size[i] / 2 + 3;
  }
  lattice.origin_mm = fixed.IndexToPhysical({-1.5, -1.5, -1.5});
  map.displacement.grid = lattice;
  const int64_t voxels = lattice.voxel_count();
  map.displacement.values_mm.resize(static_cast<size_t>(3 * voxels));
  for (int64_t i = 0; i < voxels; ++i) {
    const double x = static_cast<double>(i % lattice.size[0]),
                 y = static_cast<double>(i / lattice.size[0] % lattice.size[1]),
                 z = static_cast<double>(i / (lattice.size[0] * lattice.size[1]));
    float* values = map.displacement.values_mm.data() + i;
    values[0] = static_cast<float>(1.5 * std::sin(y / 3));
    values[voxels] = static_cast<float>(std::cos(z / 4 + x / 5));
    values[2 * voxels] = static_cast<float>(1.2 * std::sin(x / 4));
  }
  return map;
}

class ItkTransformTest : public testing::TestWithParam<const char*> {
 protected:
  TemporaryFolder folder_;
};

TEST_P(ItkTransformTest, ResamplesWithOurFilesAsWeDo) {
  const char* data = std::getenv("GVSL_TEST_DATA");
  const std::string path =
      std::string(data != nullptr ? data : GVSL_TEST_DATA_DEFAULT) + "/volumes/" + GetParam();
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  auto moving = ReadVolume(path);
  ASSERT_TRUE(moving.ok()) << moving.status();
  // Fixed space: oblique to the moving volume, with voxels of another size.
  Grid fixed = moving->grid();
  for (int i = 0; i < 3; ++i) {
    fixed.spacing_mm[i] *= 1.25;
    fixed.size[i] = fixed.size[i] * 4 / 5;
  }
  fixed.direction = Product(Rotation(6), fixed.direction);
  const SpatialMap map = SomeMap(fixed);
  const std::string affine = folder_ / "fixed_to_moving.tfm", field = folder_ / "u.nii.gz",
                    target = folder_ / "fixed.nii";
  ASSERT_TRUE(WriteItkAffine(map.affine, affine).ok());
  ASSERT_TRUE(WriteDisplacementField(map.displacement, field).ok());
  auto blank = Volume::Allocate(fixed, VoxelType::kUint8, VolumeKind::kImage);
  ASSERT_TRUE(WriteVolume(*blank, target).ok());
  const Volume source = Filled<float>(moving->grid(), [&](auto x, auto y, auto z) {
    const auto& size = moving->grid().size;
    return VisitVoxelType(moving->type(), [&](auto zero) {
      return static_cast<float>(
          moving->template voxels<decltype(zero)>()[(z * size[1] + y) * size[0] + x]);
    });
  });
  ASSERT_TRUE(WriteVolume(source, folder_ / "moving.nii").ok());

  const auto ours = WarpVolume(source, map, fixed);
  ASSERT_TRUE(ours.ok()) << ours.status();
  const std::string command = std::string(GVSL_BIN_DIR) + "/gvsl_itk_resample '" +
                              (folder_ / "moving.nii") + "' '" + affine + "' '" + field + "' '" +
                              target + "' '" + (folder_ / "itk.nii") + "'";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  const auto by_itk = ReadVolume(folder_ / "itk.nii");
  ASSERT_TRUE(by_itk.ok()) << by_itk.status();
  ASSERT_EQ(by_itk->grid().size, fixed.size);

  const float* its = by_itk->voxels<float>();
  const float* values = ours->voxels<float>();
  double sum = 0;
  int64_t shown = 0, apart = 0;
  double range = 0;
  for (int64_t i = 0; i < ours->voxel_count(); ++i) {
    range = std::max(range, static_cast<double>(std::abs(values[i])));
  }
  for (int64_t i = 0; i < ours->voxel_count(); ++i) {
    if (values[i] == 0 && its[i] == 0) continue;
    const double difference = values[i] - its[i];
    sum += std::abs(difference);
    apart += std::abs(difference) > 0.01 * range ? 1 : 0;
    ++shown;
  }
  ASSERT_GT(shown, ours->voxel_count() / 2) << "most of the fixed space shows the moving volume";
  // The headers hold geometry in float32: 1e-5 mm, times slopes of a tenth of the range a mm. A
  // voxel on the very edge may be inside for one and outside for the other.
  EXPECT_LT(sum / static_cast<double>(shown), 1e-5 * range);
  EXPECT_LT(apart, shown / 10000 + 1);
}

INSTANTIATE_TEST_SUITE_P(Volumes, ItkTransformTest,
                         testing::Values("hippocampus_mr/images/hippocampus_169.nii.gz",
                                         "totalsegmentator_abdomen/ct_crop30.nii.gz"));

}  // namespace
}  // namespace gvsl
