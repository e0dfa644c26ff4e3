#include "server/blob_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "imaging/status_reason.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

const std::string kA(64, 'a'), kB(64, 'b');

class BlobStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(folder_);
    auto store = BlobStore::Open(folder_ + "/blobs");
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Aside(const std::string& content) const {
    const std::string path = folder_ + "/aside";
    std::ofstream(path) << content;
    return path;
  }
  static std::string Content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  const std::string folder_ = testing::TempDir() + "/blob_store_test." + std::to_string(getpid());
  std::unique_ptr<BlobStore> store_;
};

TEST_F(BlobStoreTest, AFinishedFileMovesToTheNameOfItsContent) {
  const std::string aside = Aside("voxels");
  ASSERT_TRUE(store_->Commit(aside, kA).ok());
  EXPECT_FALSE(fs::exists(aside));
  EXPECT_EQ(Content(store_->PathOf(kA)), "voxels");
}

TEST_F(BlobStoreTest, TheSameContentTwiceIsOneBlobThatReadersKeep) {
  ASSERT_TRUE(store_->Commit(Aside("voxels"), kA).ok());
  std::ifstream reader(store_->PathOf(kA));
  const std::string again = Aside("voxels");
  ASSERT_TRUE(store_->Commit(again, kA).ok());
  EXPECT_FALSE(fs::exists(again));
  std::string text;
  reader >> text;
  EXPECT_EQ(text, "voxels");
}

TEST_F(BlobStoreTest, TheSameContentAgainMendsABlobThatTheDiskDamaged) {
  ASSERT_TRUE(store_->Commit(Aside("voxels"), kA).ok());
  std::ofstream(store_->PathOf(kA)) << "vox";
  ASSERT_TRUE(store_->Commit(Aside("voxels"), kA).ok());
  EXPECT_EQ(Content(store_->PathOf(kA)), "voxels");
}

TEST_F(BlobStoreTest, ARemovedBlobStaysReadableForWhoHasItOpen) {
  ASSERT_TRUE(store_->Commit(Aside("voxels"), kA).ok());
  std::ifstream reader(store_->PathOf(kA));
  store_->Remove(kA);
  EXPECT_FALSE(fs::exists(store_->PathOf(kA)));
  std::string text;
  reader >> text;
  EXPECT_EQ(text, "voxels");
}

TEST_F(BlobStoreTest, SetsAsideWhatNoRecordNamesAndTakesItBackOnceOneDoes) {
  ASSERT_TRUE(store_->Commit(Aside("a"), kA).ok());
  ASSERT_TRUE(store_->Commit(Aside("b"), kB).ok());
  const std::string unreferenced = folder_ + "/unreferenced";
  auto moved = store_->SetAside({kA}, unreferenced);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(*moved, 1);
  EXPECT_TRUE(fs::exists(store_->PathOf(kA)));
  EXPECT_FALSE(fs::exists(store_->PathOf(kB)));
  EXPECT_EQ(Content(unreferenced + "/" + kB), "b");
  EXPECT_EQ(*store_->SetAside({kA}, unreferenced), 0);

  // The database that names it was put back.
  EXPECT_EQ(*store_->SetAside({kA, kB}, unreferenced), 0);
  EXPECT_EQ(Content(store_->PathOf(kB)), "b");
  EXPECT_TRUE(fs::is_empty(unreferenced));
}

TEST_F(BlobStoreTest, KnowsTheBytesOfAllItsBlobs) {
  ASSERT_TRUE(store_->Commit(Aside("four"), kA).ok());
  ASSERT_TRUE(store_->Commit(Aside("four"), kA).ok());  // the same blob
  ASSERT_TRUE(store_->Commit(Aside("seventy"), kB).ok());
  EXPECT_EQ(store_->bytes(), 11);
  EXPECT_EQ((*BlobStore::Open(folder_ + "/blobs"))->bytes(), 11) << "as after a restart";
  store_->Remove(kB);
  store_->Remove(kB);
  EXPECT_EQ(store_->bytes(), 4);
  ASSERT_TRUE(store_->SetAside({}, folder_ + "/unreferenced").ok());
  EXPECT_EQ(store_->bytes(), 0);
}

TEST_F(BlobStoreTest, AFileThatIsNotThereIsAnErrorAndNoBlob) {
  EXPECT_EQ(store_->Commit(folder_ + "/absent", kA).code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(fs::exists(store_->PathOf(kA)));
}

TEST_F(BlobStoreTest, AFolderThatCannotBeMadeIsToldInTheOperatorsWords) {
  const auto store = BlobStore::Open(Aside("a file") + "/blobs");
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store.status().message().substr(0, 9), "data_dir:");
}

TEST(WriteError, TellsAFullDiskFromOtherFaults) {
  const absl::Status full = WriteError("cannot keep the voxels", ENOSPC);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "DISK_FULL");
  EXPECT_EQ(WriteError("cannot keep the voxels", EIO).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gvsl
