#include "model/preprocessor.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "imaging/orientation.h"
#include "model/test_features.h"

namespace gvsl {
namespace {

std::vector<float> BoxOf(const Preprocessor& input, const std::array<int64_t, 3>& begin,
                         const std::array<int64_t, 3>& size) {
  std::vector<float> values(static_cast<size_t>(size[0] * size[1] * size[2]), -1);
  input.Box(begin, size, values.data());
  return values;
}

ModelCard CardWithSpacing(const Vec3& spacing_mm) {
  ModelCard card;
  card.spacing_mm = spacing_mm;
  return card;
}

TEST(Preprocessor, WindowsACtByTheCardAndOthersByTheirOwnRange) {
  Volume volume = NoiseVolume({5, 4, 3}, {1, 1, 1});
  int16_t* voxels = volume.mutable_voxels<int16_t>();
  voxels[0] = -1000;
  voxels[1] = 512;
  voxels[2] = 3000;
  const ModelCard card;
  const auto ct = Preprocessor::Make(volume, card);  // modality CT: 0..2048
  ASSERT_TRUE(ct.ok());
  const std::vector<float> windowed = BoxOf(*ct, {0, 0, 0}, {3, 1, 1});
  EXPECT_EQ(windowed, (std::vector<float>{0, 0.25f, 1}));
  volume.set_modality("MR");
  const auto mr = Preprocessor::Make(volume, card);  // least to greatest voxel
  ASSERT_TRUE(mr.ok());
  const std::vector<float> ranged = BoxOf(*mr, {0, 0, 0}, {3, 1, 1});
  EXPECT_EQ(ranged[0], 0.0f);
  EXPECT_FLOAT_EQ(ranged[1], 1512.0f / 4000);
  EXPECT_FLOAT_EQ(ranged[2], 1.0f);
}

TEST(Preprocessor, MakesAConstantVolumeZero) {
  auto volume = Volume::Allocate(NoiseVolume({4, 4, 4}, {1, 1, 1}).grid(), VoxelType::kFloat32,
                                 VolumeKind::kImage);
  ASSERT_TRUE(volume.ok());
  std::fill_n(volume->mutable_voxels<float>(), 64, 7.0f);
  const auto input = Preprocessor::Make(*volume, ModelCard());
  ASSERT_TRUE(input.ok());
  for (float value : BoxOf(*input, {0, 0, 0}, {4, 4, 4})) EXPECT_EQ(value, 0.0f);
}

TEST(Preprocessor, ABoxIsTheCropOfTheWholeAndZeroOutside) {
  const Volume volume = NoiseVolume({23, 17, 14}, {0.7, 1.3, 2.5});
  const auto input = Preprocessor::Make(volume, CardWithSpacing({1, 1, 1}));
  ASSERT_TRUE(input.ok());
  const auto& size = input->grid().size;
  EXPECT_EQ(size, (std::array<int64_t, 3>{16, 22, 35}));
  const std::vector<float> whole = BoxOf(*input, {0, 0, 0}, size);
  for (float value : whole) ASSERT_TRUE(value >= 0 && value <= 1);
  for (const auto& begin :
       {std::array<int64_t, 3>{3, 5, 7}, {-4, -2, -9}, {10, 15, 30}, {-50, 0, 0}}) {
    const std::array<int64_t, 3> side = {13, 11, 12};
    const std::vector<float> box = BoxOf(*input, begin, side);
    for (int64_t z = 0; z < side[2]; ++z) {
      for (int64_t y = 0; y < side[1]; ++y) {
        for (int64_t x = 0; x < side[0]; ++x) {
          const std::array<int64_t, 3> v = {begin[0] + x, begin[1] + y, begin[2] + z};
          bool inside = true;
          for (int i = 0; i < 3; ++i) inside = inside && v[i] >= 0 && v[i] < size[i];
          const float expected =
              inside ? whole[static_cast<size_t>((v[2] * size[1] + v[1]) * size[0] + v[0])] : 0;
          // Along each axis two places are rounded to 2^-20 voxels, and neighbours differ by up
          // to 1.
          ASSERT_NEAR(box[static_cast<size_t>((z * side[1] + y) * side[0] + x)], expected,
                      inside ? 3e-6 : 0)
              << v[0] << " " << v[1] << " " << v[2];
        }
      }
    }
  }
}

TEST(Preprocessor, GivesTheSameBitsHoweverTheVolumeIsStored) {
  const Volume volume = NoiseVolume({23, 17, 14}, {0.7, 1.3, 2.5});
  for (const ModelCard& card : {CardWithSpacing({1, 1, 1}), CardWithSpacing({0.4, 3, 0.9})}) {
    const auto input = Preprocessor::Make(volume, card);
    ASSERT_TRUE(input.ok());
    const std::vector<float> expected = BoxOf(*input, {-3, 2, 1}, {20, 5, 9});
    for (const char* codes : {"RAS", "LAS", "SPL", "IAR", "PSL", "AIR", "SRP"}) {
      const auto stored = Reorient(volume, codes);
      ASSERT_TRUE(stored.ok());
      const auto other = Preprocessor::Make(*stored, card);
      ASSERT_TRUE(other.ok());
      EXPECT_EQ(other->grid().size, input->grid().size);
      EXPECT_TRUE(BoxOf(*other, {-3, 2, 1}, {20, 5, 9}) == expected) << codes;
    }
  }
}

TEST(Preprocessor, RefusesAVolumeThatIsAbsurdlyLargeAtTheModelsSpacing) {
  const Volume volume = NoiseVolume({20, 20, 20}, {1000, 1000, 1000});
  const absl::Status status = Preprocessor::Make(volume, CardWithSpacing({0.05, 1, 1})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("400000 x 20000 x 20000"), std::string::npos)
      << status.message();
}

}  // namespace
}  // namespace gvsl
