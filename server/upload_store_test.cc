#include "server/upload_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "client/wire.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

v1::Volume Header(v1::Volume::VoxelType type = v1::Volume::INT16) {
  Grid grid;
  grid.size = {4, 3, 2};
  v1::Volume header;
  *header.mutable_grid() = ToProto(grid);
  header.set_voxel_type(type);
  header.set_kind(v1::Volume::IMAGE);
  return header;
}

// The voxels of Header() as bytes.
template <typename T>
std::string Bytes(std::vector<T> voxels) {
  return std::string(reinterpret_cast<const char*>(voxels.data()), voxels.size() * sizeof(T));
}

std::string Ramp() {
  std::vector<int16_t> voxels;
  for (int16_t i = 0; i < 24; ++i) voxels.push_back(static_cast<int16_t>(10 * i - 100));
  return Bytes(voxels);
}

absl::Status Append(UploadWriter& writer, const std::string& data) {
  return writer.Append(data, ChecksumOf(data));
}

class UploadStoreTest : public testing::Test {
 protected:
  void SetUp() override { Reopen(); }
  void TearDown() override {
    store_.reset();
    fs::remove_all(folder_);
  }
  // As after a restart of the server.
  void Reopen() {
    store_.reset();
    auto store = UploadStore::Open(folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::unique_ptr<UploadWriter> Begin(int64_t offset, const v1::Volume& header = Header()) {
    auto writer = store_->Begin("request", header, offset);
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }

  const std::string folder_ = testing::TempDir() + "/upload_store_test." + std::to_string(getpid());
  std::unique_ptr<UploadStore> store_;
};

TEST_F(UploadStoreTest, GivesTheVoxelsTheirDigestAndRange) {
  auto writer = Begin(0);
  EXPECT_EQ(writer->total_bytes(), 48);
  ASSERT_TRUE(Append(*writer, Ramp()).ok());
  const auto voxels = writer->Finish(Sha256Of(Ramp()));
  ASSERT_TRUE(voxels.ok()) << voxels.status();
  EXPECT_EQ(voxels->sha256, Sha256Of(Ramp()));
  EXPECT_EQ(voxels->min, -100);
  EXPECT_EQ(voxels->max, 130);
  EXPECT_EQ(fs::file_size(voxels->path), 48u);
}

TEST_F(UploadStoreTest, TakesChunksThatCutVoxelsAnywhere) {
  auto writer = Begin(0);
  const std::string ramp = Ramp();
  for (size_t at = 0; at < ramp.size(); at += 5)
    ASSERT_TRUE(Append(*writer, ramp.substr(at, 5)).ok());
  const auto voxels = writer->Finish("");
  ASSERT_TRUE(voxels.ok()) << voxels.status();
  EXPECT_EQ(voxels->sha256, Sha256Of(ramp));
  EXPECT_EQ(voxels->min, -100);
  EXPECT_EQ(voxels->max, 130);
}

TEST_F(UploadStoreTest, ACutUploadGoesOnAtItsByteAlsoAfterARestart) {
  ASSERT_TRUE(Append(*Begin(0), Ramp().substr(0, 21)).ok());  // in the middle of a voxel
  Reopen();
  const auto held = store_->Get("request");
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(held->name(), "uploads/request");
  EXPECT_EQ(held->received_bytes(), 21);
  EXPECT_EQ(held->total_bytes(), 48);

  auto writer = Begin(21);
  ASSERT_TRUE(Append(*writer, Ramp().substr(21)).ok());
  const auto voxels = writer->Finish(Sha256Of(Ramp()));
  ASSERT_TRUE(voxels.ok()) << voxels.status();
  EXPECT_EQ(voxels->min, -100);
  EXPECT_EQ(voxels->max, 130);
}

TEST_F(UploadStoreTest, AnotherOffsetIsAMismatchAndAnotherHeaderAReusedRequest) {
  ASSERT_TRUE(Append(*Begin(0), Ramp().substr(0, 20)).ok());
  EXPECT_EQ(ReasonOf(store_->Begin("request", Header(), 19).status()), "OFFSET_MISMATCH");
  for (int64_t offset : {0, 20}) {
    EXPECT_EQ(ReasonOf(store_->Begin("request", Header(v1::Volume::UINT16), offset).status()),
              "REQUEST_ID_REUSED");
  }
  EXPECT_EQ(ReasonOf(store_->Begin("never begun", Header(), 20).status()), "OFFSET_MISMATCH");
  EXPECT_EQ(store_->Get("request")->received_bytes(), 20);  // still there
}

TEST_F(UploadStoreTest, OffsetZeroBeginsAnew) {
  ASSERT_TRUE(Append(*Begin(0), Ramp().substr(0, 20)).ok());
  auto writer = Begin(0);
  EXPECT_EQ(store_->Get("request")->received_bytes(), 0);
  ASSERT_TRUE(Append(*writer, Ramp()).ok());
  EXPECT_TRUE(writer->Finish(Sha256Of(Ramp())).ok());
}

TEST_F(UploadStoreTest, HalfOfAnUploadsFilesIsClearedAwayAtTheNextStart) {
  ASSERT_TRUE(Append(*Begin(0), Ramp().substr(0, 20)).ok());
  std::ofstream(folder_ + "/lonely.header") << "header";
  std::ofstream(folder_ + "/bytes.part") << "bytes";
  ASSERT_TRUE(UploadStore::Open(folder_).ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/lonely.header"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/bytes.part"));
  EXPECT_EQ(store_->Get("request")->received_bytes(), 20);
}

TEST_F(UploadStoreTest, OnlyOneCallWritesAnUpload) {
  {
    auto writer = Begin(0);
    EXPECT_EQ(ReasonOf(store_->Begin("request", Header(), 0).status()), "UPLOAD_IN_USE");
    EXPECT_EQ(ReasonOf(store_->Delete("request")), "UPLOAD_IN_USE");
    EXPECT_TRUE(store_->Begin("another", Header(), 0).ok());
  }
  EXPECT_TRUE(store_->Begin("request", Header(), 0).ok());
}

TEST_F(UploadStoreTest, AWrongChecksumLeavesWhatCameBefore) {
  auto writer = Begin(0);
  ASSERT_TRUE(Append(*writer, Ramp().substr(0, 20)).ok());
  const absl::Status wrong = writer->Append(Ramp().substr(20), 12345);
  EXPECT_EQ(wrong.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(wrong), "CHECKSUM_MISMATCH");
  EXPECT_EQ(writer->received_bytes(), 20);
  ASSERT_TRUE(Append(*writer, Ramp().substr(20)).ok());
  EXPECT_TRUE(writer->Finish(Sha256Of(Ramp())).ok());
}

TEST_F(UploadStoreTest, MoreBytesThanTheVolumeHasAreRefused) {
  auto writer = Begin(0);
  ASSERT_TRUE(Append(*writer, Ramp()).ok());
  const absl::Status status = Append(*writer, "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "TOO_MANY_BYTES");
}

TEST_F(UploadStoreTest, FewerBytesAreNoVolume) {
  auto writer = Begin(0);
  ASSERT_TRUE(Append(*writer, Ramp().substr(0, 47)).ok());
  EXPECT_EQ(writer->Finish("").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(UploadStoreTest, VoxelsThatAreNotTheDigestsAreDropped) {
  {
    auto writer = Begin(0);
    ASSERT_TRUE(Append(*writer, Ramp()).ok());
    EXPECT_EQ(ReasonOf(writer->Finish(Sha256Of("others")).status()), "CHECKSUM_MISMATCH");
  }
  EXPECT_EQ(ReasonOf(store_->Get("request").status()), "UPLOAD_NOT_FOUND");
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(UploadStoreTest, NonFiniteVoxelsAreRefusedWithTheirPlace) {
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    std::vector<float> voxels(24, 1);
    voxels[(1 * 3 + 2) * 4 + 3] = bad;  // (3, 2, 1)
    auto writer = Begin(0, Header(v1::Volume::FLOAT));
    ASSERT_TRUE(Append(*writer, Bytes(voxels).substr(0, 30)).ok());
    const absl::Status status = Append(*writer, Bytes(voxels).substr(30));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(status), "NON_FINITE_VOXELS");
    EXPECT_NE(std::string(status.message()).find("(3, 2, 1)"), std::string::npos) << status;
  }
}

TEST_F(UploadStoreTest, RangesAreThoseOfEveryVoxelType) {
  const struct {
    v1::Volume::VoxelType type;
    std::string bytes;
    double min, max;
  } cases[] = {
      {v1::Volume::UINT8, Bytes(std::vector<uint8_t>(24, 200)), 200, 200},
      {v1::Volume::UINT16, Bytes(std::vector<uint16_t>(24, 65535)), 65535, 65535},
      {v1::Volume::INT32, Bytes(std::vector<int32_t>(24, -2147483647 - 1)), -2147483648.0,
       -2147483648.0},
      {v1::Volume::FLOAT, Bytes(std::vector<float>(24, -0.5f)), -0.5, -0.5},
  };
  for (const auto& c : cases) {
    auto writer = Begin(0, Header(c.type));
    ASSERT_TRUE(Append(*writer, c.bytes).ok());
    const auto voxels = writer->Finish("");
    ASSERT_TRUE(voxels.ok()) << voxels.status();
    EXPECT_EQ(voxels->min, c.min) << c.type;
    EXPECT_EQ(voxels->max, c.max) << c.type;
    writer->Discard();
  }
}

TEST_F(UploadStoreTest, DeleteFreesTheBytes) {
  ASSERT_TRUE(Append(*Begin(0), Ramp()).ok());
  EXPECT_TRUE(store_->Delete("request").ok());
  EXPECT_TRUE(fs::is_empty(folder_));
  EXPECT_EQ(store_->Delete("request").code(), absl::StatusCode::kNotFound);
}

TEST_F(UploadStoreTest, ExpiryTakesWhatNobodyTouchedAndNothingInUse) {
  ASSERT_TRUE(Append(*Begin(0), Ramp()).ok());
  store_->Expire(3600);
  EXPECT_TRUE(store_->Get("request").ok());
  for (const auto& entry : fs::directory_iterator(folder_)) {
    fs::last_write_time(entry, fs::file_time_type::clock::now() - std::chrono::hours(2));
  }
  {
    const auto held = store_->Begin("request", Header(), 48);
    store_->Expire(3600);
    EXPECT_TRUE(store_->Get("request").ok());
  }
  store_->Expire(3600);
  EXPECT_TRUE(fs::is_empty(folder_));
}

}  // namespace
}  // namespace gvsl
