#include "client/wire.h"

#include <gtest/gtest.h>

namespace gvsl {
namespace {

Grid Oblique() {
  Grid grid;
  grid.size = {3, 70000000000, 5};
  grid.spacing_mm = {0.1, 2, 1.0 / 3};
  grid.origin_mm = {-1e3, 0.5, 7};
  grid.direction = {{{0, -1, 0}, {0.6, 0, 0.8}, {-0.8, 0, 0.6}}};
  return grid;
}

TEST(Wire, CarriesAGridToTheBit) {
  const auto back = FromProto(ToProto(Oblique()));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(*back == Oblique());
}

TEST(Wire, SendsTheDirectionRowByRow) {
  const v1::Grid message = ToProto(Oblique());
  EXPECT_EQ(std::vector<double>(message.direction().begin(), message.direction().end()),
            (std::vector<double>{0, -1, 0, 0.6, 0, 0.8, -0.8, 0, 0.6}));
}

TEST(Wire, RefusesAGridThatLacksValuesAndNamesIt) {
  v1::Grid whole = ToProto(Oblique());
  for (int field = 0; field < 4; ++field) {
    v1::Grid message = whole;
    if (field == 0) message.mutable_size()->RemoveLast();
    if (field == 1) message.add_spacing_mm(1);
    if (field == 2) message.clear_origin_mm();
    if (field == 3) message.mutable_direction()->RemoveLast();
    const auto grid = FromProto(message);
    EXPECT_EQ(grid.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(grid.status().message().substr(0, 6), "grid: ");
  }
}

TEST(Wire, CarriesEveryVoxelType) {
  for (VoxelType type : {VoxelType::kUint8, VoxelType::kInt16, VoxelType::kUint16,
                         VoxelType::kInt32, VoxelType::kFloat32}) {
    EXPECT_EQ(FromProto(ToProto(type)), type);
  }
}

TEST(Wire, ChecksumIsThePublishedCrc32) {
  EXPECT_EQ(ChecksumOf("123456789"), 0xCBF43926u);  // the check value of CRC-32/ISO-HDLC
  EXPECT_EQ(ChecksumOf(""), 0u);
}

TEST(Wire, AFullChunkStaysBelowOneMebibyteInItsMessage) {
  v1::DownloadVolumeResponse message;
  message.mutable_chunk()->set_data(std::string(kMaxChunkBytes, 'x'));
  message.mutable_chunk()->set_crc32(0xFFFFFFFF);
  EXPECT_LE(message.ByteSizeLong(), size_t{1} << 20);
}

TEST(ContentDigest, IsThatOfTheContentAndNotOfTheWords) {
  v1::Volume volume;
  *volume.mutable_grid() = ToProto(Grid());
  volume.set_voxel_type(v1::Volume::INT16);
  const std::string voxels(64, 'a'), digest = ContentDigest(volume, voxels);
  v1::Volume same = volume;
  same.set_display_name("other words");
  same.mutable_grid()->set_origin_mm(0, -0.0);  // the zero that turning RAS to LPS leaves
  EXPECT_EQ(ContentDigest(same, voxels), digest);
  v1::Volume moved = volume;
  moved.mutable_grid()->set_origin_mm(0, 1e-9);
  EXPECT_NE(ContentDigest(moved, voxels), digest);
  EXPECT_NE(ContentDigest(volume, std::string(64, 'b')), digest);
}

}  // namespace
}  // namespace gvsl
