// Features of real images: a TotalSegmentator CT, a fetal brain, a hippocampus.
#include <gtest/gtest.h>

#include "imaging/image_file.h"
#include "imaging/orientation.h"
#include "model/test_features.h"

namespace gvsl {
namespace {

std::string DataFile(const std::string& name) {
  const char* folder = std::getenv("GVSL_TEST_DATA");
  return std::string(folder != nullptr ? folder : GVSL_TEST_DATA_DEFAULT) + "/volumes/" + name;
}

struct Case {
  const char* file;
  const char* modality;
  Vec3 spacing_mm;  // of the model's grid: coarse, so that the test is quick
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.file; }

class RealVolumeTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string path = DataFile(GetParam().file);
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
    auto volume = ReadVolume(path);
    ASSERT_TRUE(volume.ok()) << Message(volume.status());
    volume_ = *std::move(volume);
    volume_.set_modality(GetParam().modality);
    ModelCard card;
    card.spacing_mm = GetParam().spacing_mm;
    card.ct = {IntensityRule::Method::kWindow, 1024, 0, 2048};
    extractor_ = TinyExtractor(folder_ / "tiny.safetensors", card);
    options_.window.window = 32;
  }

  TestFolder folder_{"real_volume_test"};
  Volume volume_;
  std::unique_ptr<Extractor> extractor_;
  DenseOptions options_;
};

TEST_P(RealVolumeTest, HasTheSameFeaturesHoweverItIsStored) {
  const auto global = extractor_->Global(volume_, options_.window, nullptr);
  ASSERT_TRUE(global.ok()) << Message(global.status());
  const DenseField dense = DenseOf(*extractor_, volume_, options_);
  for (const char* codes : {"RAS", "SPL"}) {
    const Volume stored = *Reorient(volume_, codes);
    EXPECT_TRUE(*extractor_->Global(stored, options_.window, nullptr) == *global) << codes;
    EXPECT_TRUE(DenseOf(*extractor_, stored, options_).values == dense.values) << codes;
  }
}

TEST_P(RealVolumeTest, HasFeaturesThatVaryWithItsAnatomy) {
  const DenseField dense = DenseOf(*extractor_, volume_, options_);
  double mean = 0, square = 0;
  for (float value : dense.values) {
    ASSERT_TRUE(std::isfinite(value));
    mean += value;
    square += static_cast<double>(value) * value;
  }
  mean /= static_cast<double>(dense.values.size());
  square /= static_cast<double>(dense.values.size());
  EXPECT_GT(square - mean * mean, 0.01);
}

TEST_P(RealVolumeTest, IsComputedAsOneWindowWhereverItFitsIntoOne) {
  options_.window.window = 64;
  const DenseField first = DenseOf(*extractor_, volume_, options_);
  options_.window.window = 512;
  options_.window.overlap = 0.5;
  options_.window.gaussian = false;
  EXPECT_TRUE(DenseOf(*extractor_, volume_, options_).values == first.values);
}

// Group norm's statistics span the window, so no voxel's features are the same in another window,
// however far it lies from the border (docs/adr/0005-windows-and-group-norm.md). These windows are
// small; they differ from the whole by less than the features vary.
TEST_P(RealVolumeTest, HasFeaturesInWindowsThatDifferFromTheWholeByLessThanTheyVary) {
  const DenseField windowed = DenseOf(*extractor_, volume_, options_);
  options_.window.window = 64;
  const DenseField whole = DenseOf(*extractor_, volume_, options_);
  const double count = static_cast<double>(whole.values.size());
  double mean = 0, variance = 0, squares = 0;
  for (float value : whole.values) mean += value / count;
  for (size_t i = 0; i < whole.values.size(); ++i) {
    variance += (whole.values[i] - mean) * (whole.values[i] - mean) / count;
    squares += std::pow(windowed.values[i] - whole.values[i], 2) / count;
  }
  const double share = std::sqrt(squares / variance);
  EXPECT_GT(share, 0.01);
  EXPECT_LT(share, 1);
}

INSTANTIATE_TEST_SUITE_P(
    TestData, RealVolumeTest,
    testing::Values(
        Case{"totalsegmentator_abdomen/ct.nii.gz", "CT", {8, 8, 8}},
        Case{"fetal_brain_t2_cc0/fetal_SB_atlas_GA22_notoperated/srr.nii.gz", "MR", {3, 3, 3}},
        Case{"hippocampus_mr/images/hippocampus_017.nii.gz", "MR", {1, 1, 1}}));

}  // namespace
}  // namespace gvsl
