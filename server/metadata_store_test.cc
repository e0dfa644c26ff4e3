#include "server/metadata_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

StoredVolume VolumeNamed(const std::string& id, int64_t seconds, const std::string& blob = "blob") {
  StoredVolume stored;
  stored.volume.set_name("volumes/" + id);
  stored.volume.set_display_name("name of " + id);
  stored.volume.set_kind(v1::Volume::IMAGE);
  stored.volume.set_voxel_type(v1::Volume::INT16);
  Grid grid;
  grid.size = {4, 3, 2};
  grid.spacing_mm = {0.1, 1.0 / 3, 2};
  *stored.volume.mutable_grid() = ToProto(grid);
  stored.volume.mutable_create_time()->set_seconds(seconds);
  stored.blob_sha256 = blob;
  return stored;
}

StoredModel ModelNamed(const std::string& id, int64_t seconds, const std::string& blob = "blob") {
  StoredModel stored;
  stored.model.set_name("models/" + id);
  stored.model.mutable_create_time()->set_seconds(seconds);
  stored.blob_sha256 = blob;
  return stored;
}

class MetadataStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(folder_);
    Reopen();
  }
  void TearDown() override {
    store_.reset();
    database_.reset();
    fs::remove_all(folder_);
  }
  void Reopen() {
    store_.reset();
    database_.reset();
    auto database = Database::Open(path_);
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
    store_ = std::make_unique<MetadataStore>(*database_);
  }
  void Add(const StoredVolume& volume, const Creation& creation = {}) {
    const absl::Status status = store_->AddVolume(volume, creation);
    ASSERT_TRUE(status.ok()) << status;
  }
  // The ids of one page, and of the token behind it.
  std::vector<std::string> Page(v1::ListVolumesRequest& request) {
    const auto page = store_->ListVolumes(request);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> ids;
    for (const v1::Volume& volume : page->volumes) ids.push_back(volume.name().substr(8));
    request.set_page_token(page->next_page_token);
    return ids;
  }
  std::vector<std::string> Matching(const std::string& filter) {
    v1::ListVolumesRequest request;
    request.set_filter(filter);
    request.set_order_by("create_time");
    return Page(request);
  }

  using Ids = std::vector<std::string>;
  const std::string folder_ =
      testing::TempDir() + "/metadata_store_test." + std::to_string(getpid());
  const std::string path_ = folder_ + "/metadata.sqlite";
  std::unique_ptr<Database> database_;
  std::unique_ptr<MetadataStore> store_;
};

TEST_F(MetadataStoreTest, KeepsARecordToTheBitOverAReopen) {
  StoredVolume stored = VolumeNamed("a", 1000);
  stored.volume.mutable_create_time()->set_nanos(123456000);
  stored.volume.set_min_value(-0.1);
  stored.volume.set_voxel_bytes(int64_t{1} << 40);
  stored.volume.set_display_name("\xC3\xA9tude \"quoted\"");
  stored.volume.add_tags("trial 7");
  Add(stored);
  Reopen();
  const auto back = store_->GetVolume("volumes/a");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->volume.SerializeAsString(), stored.volume.SerializeAsString());
  EXPECT_EQ(back->blob_sha256, "blob");
}

TEST_F(MetadataStoreTest, AnUnknownNameIsNotFoundWithItsReason) {
  EXPECT_EQ(ReasonOf(store_->GetVolume("volumes/x").status()), "VOLUME_NOT_FOUND");
  EXPECT_EQ(ReasonOf(store_->DeleteVolume("volumes/x").status()), "VOLUME_NOT_FOUND");
  EXPECT_EQ(ReasonOf(store_->UpdateVolume("volumes/x", [](v1::Volume&) {}).status()),
            "VOLUME_NOT_FOUND");
  EXPECT_EQ(ReasonOf(store_->GetModel("models/x").status()), "MODEL_NOT_FOUND");
  EXPECT_EQ(ReasonOf(store_->SetDefaultModel("models/x")), "MODEL_NOT_FOUND");
  EXPECT_EQ(ReasonOf(store_->DeleteModel("models/x").status()), "MODEL_NOT_FOUND");
}

TEST_F(MetadataStoreTest, ACreationIsRememberedWithWhatItAskedFor) {
  Add(VolumeNamed("a", 1), {"request", "digest"});
  EXPECT_EQ(**store_->FindCreation("volumes", {"request", "digest"}), "volumes/a");
  EXPECT_EQ(ReasonOf(store_->FindCreation("volumes", {"request", "other"}).status()),
            "REQUEST_ID_REUSED");
  EXPECT_FALSE(store_->FindCreation("volumes", {"unknown", "digest"})->has_value());
  EXPECT_FALSE(store_->FindCreation("models", {"request", "digest"})->has_value());
}

TEST_F(MetadataStoreTest, ADeletedVolumesRequestMayBeUsedAgain) {
  Add(VolumeNamed("a", 1), {"request", "digest"});
  ASSERT_TRUE(store_->DeleteVolume("volumes/a").ok());
  EXPECT_FALSE(store_->FindCreation("volumes", {"request", "other"})->has_value());
}

TEST_F(MetadataStoreTest, AFailedCreationLeavesNoHalf) {
  Add(VolumeNamed("a", 1), {"request", "digest"});
  EXPECT_FALSE(store_->AddVolume(VolumeNamed("b", 2), {"request", "digest"}).ok());
  EXPECT_EQ(store_->Totals()->volumes, 1);
  EXPECT_FALSE(store_->GetVolume("volumes/b").ok());
}

TEST_F(MetadataStoreTest, ABlobIsUnneededOnlyWhenTheLastRecordOfItGoes) {
  Add(VolumeNamed("a", 1, "shared"));
  Add(VolumeNamed("b", 2, "shared"));
  ASSERT_TRUE(store_->AddModel(ModelNamed("m", 3, "other"), {}).ok());
  EXPECT_EQ(*store_->Blobs(), (std::set<std::string>{"other", "shared"}));
  EXPECT_EQ(*store_->DeleteVolume("volumes/a"), "");
  EXPECT_EQ(*store_->DeleteVolume("volumes/b"), "shared");
  EXPECT_EQ(*store_->DeleteModel("models/m"), "other");
  EXPECT_TRUE(store_->Blobs()->empty());
}

TEST_F(MetadataStoreTest, AnUpdateChangesTheRecordAndWhatIsFiltered) {
  StoredVolume stored = VolumeNamed("a", 1);
  stored.volume.add_tags("old");
  Add(stored);
  const auto updated = store_->UpdateVolume("volumes/a", [](v1::Volume& volume) {
    volume.set_modality("MR");
    volume.clear_tags();
    volume.add_tags("new");
    volume.add_tags("new");  // a tag twice is one
  });
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(store_->GetVolume("volumes/a")->volume.modality(), "MR");
  EXPECT_EQ(Matching("modality = MR AND tags:new"), Ids{"a"});
  EXPECT_EQ(Matching("tags:old"), Ids{});
}

TEST_F(MetadataStoreTest, UpdatesOfDifferentFieldsAtTheSameTimeAllCount) {
  Add(VolumeNamed("a", 1));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 10; ++i) {
        EXPECT_TRUE(store_
                        ->UpdateVolume("volumes/a",
                                       [&](v1::Volume& volume) {
                                         volume.add_tags(absl::StrCat("t", t, "-", i));
                                       })
                        .ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->GetVolume("volumes/a")->volume.tags_size(), 40);
}

TEST_F(MetadataStoreTest, ListsNewestFirstUnlessAskedOtherwise) {
  for (const char* id : {"c", "a", "b"}) Add(VolumeNamed(id, id[0]));
  v1::ListVolumesRequest request;
  EXPECT_EQ(Page(request), (Ids{"c", "b", "a"}));
  EXPECT_EQ(request.page_token(), "");
  request.set_order_by("display_name");
  EXPECT_EQ(Page(request), (Ids{"a", "b", "c"}));
}

TEST_F(MetadataStoreTest, FiltersByEveryField) {
  StoredVolume a = VolumeNamed("a", 100), b = VolumeNamed("b", 200), c = VolumeNamed("c", 300);
  a.volume.set_modality("CT");
  b.volume.set_modality("MR");
  b.volume.add_tags("brain");
  c.volume.set_kind(v1::Volume::LABELS);
  c.volume.set_content_sha256("00ff");
  c.volume.add_tags("brain");
  c.volume.add_tags("it's");
  for (const StoredVolume& stored : {a, b, c}) Add(stored);
  EXPECT_EQ(Matching("modality = \"CT\""), Ids{"a"});
  EXPECT_EQ(Matching("modality != \"CT\""), (Ids{"b", "c"}));
  EXPECT_EQ(Matching("kind = LABELS"), Ids{"c"});
  EXPECT_EQ(Matching("display_name = \"name of b\""), Ids{"b"});
  EXPECT_EQ(Matching("content_sha256 = \"00ff\""), Ids{"c"});
  EXPECT_EQ(Matching("tags:brain"), (Ids{"b", "c"}));
  EXPECT_EQ(Matching("tags:brain AND tags:\"it's\""), Ids{"c"});
  EXPECT_EQ(Matching("create_time > \"1970-01-01T00:01:40Z\" AND create_time <= "
                     "\"1970-01-01T00:05:00Z\""),
            (Ids{"b", "c"}));
}

TEST_F(MetadataStoreTest, PagesNeitherSkipNorRepeatWhenVolumesComeAndGo) {
  for (int i = 0; i < 6; ++i) Add(VolumeNamed(absl::StrCat("v", i), 1000 + i));
  v1::ListVolumesRequest request;
  request.set_page_size(2);
  EXPECT_EQ(Page(request), (Ids{"v5", "v4"}));
  Add(VolumeNamed("newer", 2000));
  ASSERT_TRUE(store_->DeleteVolume("volumes/v4").ok());  // the row that the token points at
  EXPECT_EQ(Page(request), (Ids{"v3", "v2"}));
  EXPECT_EQ(Page(request), (Ids{"v1", "v0"}));
  EXPECT_EQ(request.page_token(), "");
}

TEST_F(MetadataStoreTest, PagesGoThroughVolumesOfTheSameInstantAndName) {
  std::set<std::string> all;
  for (int i = 0; i < 7; ++i) {
    StoredVolume stored = VolumeNamed(absl::StrCat("v", i), 1000);
    stored.volume.set_display_name("the same");
    Add(stored);
    all.insert(absl::StrCat("v", i));
  }
  for (const char* order : {"", "create_time", "display_name", "display_name desc"}) {
    v1::ListVolumesRequest request;
    request.set_order_by(order);
    request.set_page_size(3);
    Ids seen;
    do {
      for (const std::string& id : Page(request)) seen.push_back(id);
    } while (!request.page_token().empty());
    EXPECT_EQ(seen.size(), 7u) << order;
    EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()), all) << order;
  }
}

TEST_F(MetadataStoreTest, APageStaysBelowOneMebibyte) {
  // The largest records that the API allows: 1000 of them would be 4.5 MB.
  for (int i = 0; i < 300; ++i) {
    StoredVolume stored = VolumeNamed(absl::StrCat("v", i), i);
    for (int t = 0; t < 64; ++t) stored.volume.add_tags(absl::StrCat(t, std::string(62, 'x')));
    Add(stored);
  }
  v1::ListVolumesRequest request;
  request.set_page_size(1000);
  size_t listed = 0;
  do {
    const auto page = store_->ListVolumes(request);
    ASSERT_TRUE(page.ok()) << page.status();
    v1::ListVolumesResponse message;
    for (const v1::Volume& volume : page->volumes) *message.add_volumes() = volume;
    message.set_next_page_token(page->next_page_token);
    EXPECT_LE(message.ByteSizeLong(), size_t{1} << 20);
    listed += page->volumes.size();
    request.set_page_token(page->next_page_token);
  } while (!request.page_token().empty());
  EXPECT_EQ(listed, 300u);
}

TEST_F(MetadataStoreTest, ATokenOfAnotherQueryIsRefused) {
  for (const char* id : {"a", "b"}) Add(VolumeNamed(id, id[0]));
  v1::ListVolumesRequest request;
  request.set_page_size(1);
  Page(request);
  request.set_filter("modality = CT");
  EXPECT_EQ(store_->ListVolumes(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(MetadataStoreTest, TheFirstModelIsTheDefaultAndAnotherCanBeMadeIt) {
  EXPECT_EQ(ReasonOf(store_->GetModel("models/default").status()), "NO_DEFAULT_MODEL");
  EXPECT_TRUE(store_->AddModel(ModelNamed("m", 1), {})->is_default());
  EXPECT_FALSE(store_->AddModel(ModelNamed("n", 2), {})->is_default());
  EXPECT_EQ(store_->GetModel("models/default")->model.name(), "models/m");
  ASSERT_TRUE(store_->SetDefaultModel("models/n").ok());
  Reopen();
  EXPECT_EQ(store_->GetModel("models/default")->model.name(), "models/n");
  EXPECT_FALSE(store_->GetModel("models/m")->model.is_default());
}

TEST_F(MetadataStoreTest, TheDefaultModelIsDeletedLast) {
  ASSERT_TRUE(store_->AddModel(ModelNamed("m", 1), {}).ok());
  ASSERT_TRUE(store_->AddModel(ModelNamed("n", 2), {}).ok());
  EXPECT_EQ(ReasonOf(store_->DeleteModel("models/m").status()), "MODEL_IS_DEFAULT");
  EXPECT_TRUE(store_->DeleteModel("models/n").ok());
  EXPECT_TRUE(store_->DeleteModel("models/m").ok());
}

TEST_F(MetadataStoreTest, ListsModelsNewestFirstInPages) {
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(store_->AddModel(ModelNamed(absl::StrCat("m", i), i), {}).ok());
  v1::ListModelsRequest request;
  request.set_page_size(2);
  Ids seen;
  do {
    const auto page = store_->ListModels(request);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const v1::Model& model : page->models) seen.push_back(model.name());
    request.set_page_token(page->next_page_token);
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, (Ids{"models/m4", "models/m3", "models/m2", "models/m1", "models/m0"}));
}

}  // namespace
}  // namespace gvsl
