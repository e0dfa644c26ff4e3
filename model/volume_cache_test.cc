#include "model/volume_cache.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "imaging/status_reason.h"
#include "model/preprocessor.h"
#include "model/training_volumes.h"

namespace gvsl {
namespace {

ModelCard CardAt(double spacing) {
  ModelCard card;
  card.spacing_mm = {spacing, spacing, spacing};
  return card;
}

TEST(VolumeCache, HoldsWhatThePreprocessorMakesInHalfPrecision) {
  const TestFolder folder("cache_content");
  const auto sources = MakeTrainingVolumes(folder, 1, {20, 24, 18});
  const ModelCard card = CardAt(1.3);
  VolumeCache cache(folder / "cache", 0);
  auto cached = cache.Get(sources[0], card);
  ASSERT_TRUE(cached.ok()) << cached.status();

  auto volume = Volume::Map(sources[0].path, sources[0].grid, sources[0].type, VolumeKind::kImage);
  volume->set_modality("MR");
  auto preprocessor = Preprocessor::Make(*volume, card);
  const auto& size = preprocessor->grid().size;
  EXPECT_EQ((*cached)->size(), (std::array<int64_t, 3>{size[2], size[1], size[0]}));
  // A box that reaches over the border on every side but one.
  std::vector<float> expected(12 * 30 * 28), read(expected.size());
  preprocessor->Box({-4, -3, -5}, {28, 30, 12}, expected.data());
  (*cached)->Read({-5, -3, -4}, {12, 30, 28}, read.data());
  double largest = 0;
  for (size_t i = 0; i < read.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[i]) - read[i]));
  }
  EXPECT_LT(largest, 5e-4) << "half precision has 11 bits below 1";
  EXPECT_GT(*std::max_element(read.begin(), read.end()), 0.5f);
}

TEST(VolumeCache, PreparesAVolumeOnceForEveryCardAndSurvivesItsProcess) {
  const TestFolder folder("cache_once");
  const auto sources = MakeTrainingVolumes(folder, 1, {16, 16, 16});
  ASSERT_TRUE(VolumeCache(folder / "cache", 0).Get(sources[0], CardAt(1)).ok());
  std::filesystem::remove(sources[0].path);  // so that it cannot be read again
  EXPECT_TRUE(VolumeCache(folder / "cache", 0).Get(sources[0], CardAt(1)).ok());
  EXPECT_FALSE(VolumeCache(folder / "cache", 0).Get(sources[0], CardAt(2)).ok());
}

TEST(VolumeCache, DeletesWhatWasNotUsedForLongestAboveItsLimit) {
  const TestFolder folder("cache_limit");
  const auto sources = MakeTrainingVolumes(folder, 4, {16, 16, 16});
  const int64_t one = 32 + 2 * 16 * 16 * 16;
  const auto files = [&] {
    return std::distance(std::filesystem::directory_iterator(folder / "cache"), {});
  };
  ASSERT_TRUE(VolumeCache(folder / "cache", 2 * one).Get(sources[0], CardAt(1)).ok());
  ASSERT_TRUE(VolumeCache(folder / "cache", 2 * one).Get(sources[1], CardAt(1)).ok());
  VolumeCache third(folder / "cache", 2 * one);
  ASSERT_TRUE(third.Get(sources[1], CardAt(1)).ok());  // the first is now the oldest
  ASSERT_TRUE(third.Get(sources[2], CardAt(1)).ok());
  EXPECT_EQ(files(), 2);
  const absl::Status full = third.Get(sources[3], CardAt(1)).status();
  EXPECT_EQ(ReasonOf(full), "CACHE_TOO_SMALL") << full;
  EXPECT_EQ(files(), 2) << "what this run uses stays";
}

TEST(VolumeCache, CountsWhatOthersAreWritingAndDeletesWhatTheyLeft) {
  const TestFolder folder("cache_aside");
  const auto sources = MakeTrainingVolumes(folder, 2, {16, 16, 16});
  const int64_t one = 32 + 2 * 16 * 16 * 16;
  ASSERT_TRUE(VolumeCache(folder / "cache", 2 * one).Get(sources[0], CardAt(1)).ok());
  const std::string written = folder / "cache/a.f16.part-AbCd12";
  const std::string left = folder / "cache/b.f16.part-AbCd12";
  for (const std::string& aside : {written, left}) WriteBytes(aside, std::string(one, 'x'));
  std::filesystem::last_write_time(
      left, std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  ASSERT_TRUE(VolumeCache(folder / "cache", 2 * one).Get(sources[1], CardAt(1)).ok());
  EXPECT_TRUE(std::filesystem::exists(written));
  EXPECT_FALSE(std::filesystem::exists(left));
  const auto files = std::distance(std::filesystem::directory_iterator(folder / "cache"), {});
  EXPECT_EQ(files, 2) << "the first volume made room";
}

TEST(VolumeCache, MakesADamagedFileAnew) {
  const TestFolder folder("cache_damaged");
  const auto sources = MakeTrainingVolumes(folder, 1, {16, 16, 16});
  ASSERT_TRUE(VolumeCache(folder / "cache", 0).Get(sources[0], CardAt(1)).ok());
  for (const auto& entry : std::filesystem::directory_iterator(folder / "cache")) {
    std::filesystem::resize_file(entry.path(), 1000);
  }
  const auto cached = VolumeCache(folder / "cache", 0).Get(sources[0], CardAt(1));
  ASSERT_TRUE(cached.ok()) << cached.status();
  EXPECT_EQ((*cached)->size(), (std::array<int64_t, 3>{16, 16, 16}));
}

TEST(VolumeCache, NamesTheVolumeThatCannotBeRead) {
  const TestFolder folder("cache_missing");
  auto sources = MakeTrainingVolumes(folder, 1, {16, 16, 16});
  sources[0].path = folder / "nothing";
  const absl::Status status = VolumeCache(folder / "cache", 0).Get(sources[0], CardAt(1)).status();
  EXPECT_NE(Message(status).find("volumes/0"), std::string::npos) << status;
}

}  // namespace
}  // namespace gvsl
