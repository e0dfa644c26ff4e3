#include "server/embedding_catalog.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/metadata_store.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

constexpr int kDimension = 16;
const std::string kModel(64, 'a'), kOtherModel(64, 'b');

// A unit vector, different for each number, the same each time.
std::vector<float> Vector(uint32_t number) {
  std::mt19937 random(number);
  std::normal_distribution<float> normal;
  std::vector<float> values(kDimension);
  for (float& value : values) value = normal(random);
  const float length =
      std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0F));
  for (float& value : values) value /= length;
  return values;
}

std::string Name(int number) { return absl::StrCat("volumes/v", number); }

class EmbeddingCatalogTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ + "/search");
    auto database = Database::Open(folder_ + "/metadata.sqlite");
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
    volumes_ = std::make_unique<MetadataStore>(*database_);
    catalog_ = Opened();
  }
  void TearDown() override {
    catalog_.reset();
    fs::remove_all(folder_);
  }
  std::unique_ptr<EmbeddingCatalog> Opened(const EmbeddingCatalog::Options& options = {}) {
    return std::make_unique<EmbeddingCatalog>(*database_, folder_ + "/search", options);
  }
  void AddVolume(int number, const std::string& modality = "MR", const std::string& tag = "") {
    StoredVolume stored;
    stored.volume.set_name(Name(number));
    stored.volume.set_display_name(absl::StrCat("volume ", number));
    stored.volume.set_kind(v1::Volume::IMAGE);
    stored.volume.set_modality(modality);
    if (!tag.empty()) stored.volume.add_tags(tag);
    stored.volume.mutable_create_time()->set_seconds(number);
    stored.blob_sha256 = "blob";
    ASSERT_TRUE(volumes_->AddVolume(stored, {}).ok());
  }
  void Embed(int number, const std::string& model = kModel) {
    const absl::Status status = catalog_->Add(model, Name(number), Vector(number));
    ASSERT_TRUE(status.ok()) << status;
  }
  void DeleteVolume(int number) { ASSERT_TRUE(volumes_->DeleteVolume(Name(number)).ok()); }
  std::vector<std::string> Search(int number, int k, const std::string& filter = "",
                                  const std::string& model = kModel) {
    auto answer = catalog_->Search(model, Vector(number), k, filter, Name(number));
    EXPECT_TRUE(answer.ok()) << answer.status();
    std::vector<std::string> names;
    if (!answer.ok()) return names;
    for (const CatalogHit& hit : answer->hits) names.push_back(hit.volume.volume);
    return names;
  }
  std::string IndexFile(const std::string& model = kModel) const {
    return absl::StrCat(folder_, "/search/", model, ".index");
  }

  const std::string folder_ =
      absl::StrCat(testing::TempDir(), "/embedding_catalog_test.", getpid());
  std::unique_ptr<Database> database_;
  std::unique_ptr<MetadataStore> volumes_;
  std::unique_ptr<EmbeddingCatalog> catalog_;
};

TEST_F(EmbeddingCatalogTest, TheNearestVolumesComeFirstAndTheQueryIsNotAmongThem) {
  for (int number = 0; number < 30; ++number) {
    AddVolume(number);
    Embed(number);
  }
  auto answer = catalog_->Search(kModel, Vector(3), 30, "", Name(3));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->candidates, 29);
  EXPECT_TRUE(answer->exact);
  ASSERT_EQ(answer->hits.size(), 29U);
  for (size_t i = 0; i < answer->hits.size(); ++i) {
    const CatalogHit& hit = answer->hits[i];
    EXPECT_NE(hit.volume.volume, Name(3));
    const auto other = Vector(std::stoi(hit.volume.volume.substr(9)));
    const auto own = Vector(3);
    // Float sums of 16 products.
    EXPECT_NEAR(hit.similarity, std::inner_product(own.begin(), own.end(), other.begin(), 0.0),
                1e-6);
    EXPECT_LE(hit.similarity, answer->hits[i == 0 ? 0 : i - 1].similarity);
  }
  EXPECT_EQ(answer->hits[0].volume.modality, "MR");
}

TEST_F(EmbeddingCatalogTest, VectorsOfDifferentFingerprintsAreNeverCompared) {
  for (int number = 0; number < 4; ++number) AddVolume(number);
  Embed(0);
  Embed(1);
  Embed(2, kOtherModel);
  Embed(3, kOtherModel);
  EXPECT_EQ(Search(0, 10), std::vector<std::string>{Name(1)});
  EXPECT_EQ(Search(2, 10, "", kOtherModel), std::vector<std::string>{Name(3)});
}

TEST_F(EmbeddingCatalogTest, AFilterIsAppliedBeforeTheSearchAndLosesNothing) {
  for (int number = 0; number < 200; ++number) {
    AddVolume(number, number % 50 == 0 ? "CT" : "MR", number % 2 == 0 ? "even" : "odd");
    Embed(number);
  }
  auto found = Search(7, 3, "modality = \"CT\"");
  EXPECT_EQ(found.size(), 3U);  // of four: however far they are
  for (const std::string& name : found) EXPECT_EQ(std::stoi(name.substr(9)) % 50, 0);
  EXPECT_EQ(Search(7, 100, "modality = \"CT\" AND tags:\"even\"").size(), 4U);
  EXPECT_EQ(Search(7, 100, "tags:\"odd\"").size(), 99U);  // itself left out
  EXPECT_TRUE(Search(7, 100, "modality = \"PT\"").empty());
  EXPECT_EQ(catalog_->Search(kModel, Vector(7), 3, "colour = \"red\"", Name(7)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(EmbeddingCatalogTest, AnEmbeddingOfADeletedVolumeIsRefusedAndOneThatIsThereStays) {
  EXPECT_EQ(ReasonOf(catalog_->Add(kModel, Name(1), Vector(1))), "VOLUME_NOT_FOUND");
  AddVolume(1);
  Embed(1);
  ASSERT_TRUE(catalog_->Add(kModel, Name(1), Vector(2)).ok());
  auto kept = catalog_->store().Find(kModel, Name(1));
  ASSERT_TRUE(kept.ok() && kept->has_value());
  EXPECT_EQ((*kept)->values, Vector(1));  // to the bit
}

TEST_F(EmbeddingCatalogTest, ADeletedVolumeIsNeverFoundWhetherTheIndexWasToldOrNot) {
  for (int number = 0; number < 10; ++number) {
    AddVolume(number);
    Embed(number);
  }
  const std::string nearest = Search(0, 1).front();
  DeleteVolume(std::stoi(nearest.substr(9)));  // a crash came before the index was told
  auto found = Search(0, 8);
  EXPECT_EQ(found.size(), 8U);  // no one's place was lost
  EXPECT_EQ(std::count(found.begin(), found.end(), nearest), 0);
  DeleteVolume(std::stoi(found.front().substr(9)));
  ASSERT_TRUE(catalog_->Forget(found.front()).ok());
  EXPECT_EQ(Search(0, 8).size(), 7U);
}

TEST_F(EmbeddingCatalogTest, AnIndexThatWasNeverWrittenIsMadeFromTheStore) {
  for (int number = 0; number < 10; ++number) {
    AddVolume(number);
    Embed(number);
  }
  const auto before = Search(0, 9);
  EXPECT_FALSE(fs::exists(IndexFile()));
  const auto killed = std::move(catalog_);  // still there: it writes nothing
  catalog_ = Opened();
  EXPECT_EQ(Search(0, 9), before);
}

TEST_F(EmbeddingCatalogTest, AnIndexIsWrittenAtTheEndAndReadAgain) {
  AddVolume(0);
  AddVolume(1);
  Embed(0);
  Embed(1);
  catalog_.reset();
  ASSERT_TRUE(fs::exists(IndexFile()));
  catalog_ = Opened();
  EXPECT_EQ(Search(0, 9), std::vector<std::string>{Name(1)});
}

TEST_F(EmbeddingCatalogTest, AStaleIndexIsBroughtUpToTheStore) {
  for (int number = 0; number < 20; ++number) {
    AddVolume(number);
    if (number < 10) Embed(number);
  }
  catalog_.reset();
  const std::string old = folder_ + "/old.index";
  fs::copy_file(IndexFile(), old);
  catalog_ = Opened();
  for (int number = 10; number < 20; ++number) Embed(number);
  for (int number = 1; number < 6; ++number) DeleteVolume(number);
  catalog_.reset();
  fs::copy_file(old, IndexFile(), fs::copy_options::overwrite_existing);
  catalog_ = Opened();
  const auto found = Search(0, 100);
  EXPECT_EQ(found.size(), 14U);  // 6 to 19
  for (const std::string& name : found) EXPECT_GE(std::stoi(name.substr(9)), 6);
}

TEST_F(EmbeddingCatalogTest, ADamagedIndexIsMadeAnew) {
  for (int number = 0; number < 10; ++number) {
    AddVolume(number);
    Embed(number);
  }
  const auto before = Search(0, 9);
  catalog_.reset();
  std::fstream(IndexFile(), std::ios::in | std::ios::out | std::ios::binary).seekp(300).put('!');
  catalog_ = Opened();
  EXPECT_EQ(Search(0, 9), before);
}

TEST_F(EmbeddingCatalogTest, BeyondItsMemoryTheIndexNotUsedForLongestGoesAndComesBack) {
  EmbeddingCatalog::Options options;
  options.memory_bytes = 1;  // room for none but the last
  catalog_ = Opened(options);
  for (int number = 0; number < 4; ++number) {
    AddVolume(number);
    Embed(number);
    Embed(number, kOtherModel);
    EXPECT_TRUE(fs::exists(IndexFile()));  // written when it went
  }
  EXPECT_EQ(Search(0, 9).size(), 3U);
  EXPECT_EQ(Search(0, 9, "", kOtherModel).size(), 3U);
}

TEST_F(EmbeddingCatalogTest, WhatIsMissingIsListedInPagesLabelsLeftOut) {
  for (int number = 0; number < 9; ++number) AddVolume(number, number < 3 ? "CT" : "MR");
  StoredVolume labels;
  labels.volume.set_name("volumes/labels");
  labels.volume.set_kind(v1::Volume::LABELS);
  labels.blob_sha256 = "blob";
  ASSERT_TRUE(volumes_->AddVolume(labels, {}).ok());
  Embed(2);
  Embed(5, kOtherModel);
  EmbeddingStore& store = catalog_->store();
  EXPECT_EQ(*store.CountMissing(kModel, ""), 8);
  EXPECT_EQ(*store.CountMissing(kModel, "modality = \"CT\""), 2);
  std::vector<std::string> all;
  for (std::string last;;) {
    auto page = store.Missing(kModel, "", last, 3);
    ASSERT_TRUE(page.ok()) << page.status();
    if (page->empty()) break;
    EXPECT_LE(page->size(), 3U);
    last = page->back();
    all.insert(all.end(), page->begin(), page->end());
  }
  EXPECT_EQ(all, (std::vector<std::string>{Name(0), Name(1), Name(3), Name(4), Name(5), Name(6),
                                           Name(7), Name(8)}));
}

}  // namespace
}  // namespace gvsl
