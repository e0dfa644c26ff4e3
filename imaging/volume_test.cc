#include "imaging/volume.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <vector>

#include "imaging/sha256.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void ExpectRefused(const Grid& grid, const std::string& field) {
  const absl::Status status = ValidateGrid(grid);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_TRUE(Contains(status, field)) << status;
}

TEST(ValidateGrid, AcceptsAnObliqueLattice) {
  Grid grid = GridOf({512, 512, 128}, {0.7, 0.7, 1.25}, {-180, -180, -1400});
  grid.direction = Rotation(20);
  EXPECT_TRUE(ValidateGrid(grid).ok()) << ValidateGrid(grid);
}

TEST(ValidateGrid, AcceptsAMirroredLattice) {
  Grid grid = GridOf({4, 4, 4});
  grid.direction[2][2] = -1;
  EXPECT_TRUE(ValidateGrid(grid).ok()) << ValidateGrid(grid);
}

TEST(ValidateGrid, NamesTheSizeThatIsOutOfBounds) {
  for (const int64_t size : {std::numeric_limits<int64_t>::min(), int64_t{-1}, int64_t{0},
                             int64_t{1}, int64_t{65536}, std::numeric_limits<int64_t>::max()}) {
    for (int axis = 0; axis < 3; ++axis) {
      Grid grid = GridOf({4, 4, 4});
      grid.size[axis] = size;
      ExpectRefused(grid, "grid.size[" + std::to_string(axis) + "]");
    }
  }
}

TEST(ValidateGrid, RefusesMoreVoxelsThanTwoToTheThirtyThird) {
  EXPECT_TRUE(ValidateGrid(GridOf({32768, 32768, 8})).ok());
  ExpectRefused(GridOf({32768, 32768, 9}), "grid.size: more than 8589934592 voxels");
  ExpectRefused(GridOf({65535, 65535, 65535}), "grid.size: more than 8589934592 voxels");
}

TEST(ValidateGrid, NamesTheSpacingThatIsAbsurd) {
  for (const double spacing : {0.0, -1.0, 0.00099, 1000.1, kInfinity, kNaN}) {
    for (int axis = 0; axis < 3; ++axis) {
      Grid grid = GridOf({4, 4, 4});
      grid.spacing_mm[axis] = spacing;
      ExpectRefused(grid, "grid.spacing_mm[" + std::to_string(axis) + "]");
    }
  }
}

TEST(ValidateGrid, NamesAnOriginThatIsNotFinite) {
  ExpectRefused(GridOf({4, 4, 4}, {1, 1, 1}, {0, kNaN, 0}), "grid.origin_mm");
  ExpectRefused(GridOf({4, 4, 4}, {1, 1, 1}, {0, 0, -kInfinity}), "grid.origin_mm");
  ExpectRefused(GridOf({4, 4, 4}, {1, 1, 1}, {1e300, 0, 0}), "grid.origin_mm");
}

TEST(ValidateGrid, RefusesDirectionsThatAreNoRightAngles) {
  const Mat3 bad[] = {
      {{{0, 0, 0}, {0, 1, 0}, {0, 0, 1}}},     // singular: no first axis
      {{{1, 1, 0}, {0, 0, 0}, {0, 0, 1}}},     // singular: two axes alike
      {{{1, 0.01, 0}, {0, 1, 0}, {0, 0, 1}}},  // sheared by 0.6 degrees
      {{{2, 0, 0}, {0, 1, 0}, {0, 0, 1}}},     // no unit vector
      {{{kNaN, 0, 0}, {0, 1, 0}, {0, 0, 1}}},  // not a number
      {{{1, 0, 0}, {0, kInfinity, 0}, {0, 0, 1}}},
  };
  for (const Mat3& direction : bad) {
    Grid grid = GridOf({4, 4, 4});
    grid.direction = direction;
    ExpectRefused(grid, "grid.direction");
  }
}

TEST(ValidateGrid, ForgivesTheRoundingOfDirectionsWithFourDecimals) {
  Grid grid = GridOf({4, 4, 4});
  grid.direction = Rotation(31);
  for (auto& row : grid.direction) {
    for (double& value : row) value = std::round(value * 1e4) / 1e4;
  }
  EXPECT_TRUE(ValidateGrid(grid).ok()) << ValidateGrid(grid);
}

TEST(Grid, PlacesVoxelCentresInLpsMillimetres) {
  Grid grid = GridOf({4, 5, 6}, {2, 3, 4}, {10, 20, 30});
  grid.direction = {
      {{0, 0, 1}, {1, 0, 0}, {0, -1, 0}}};  // columns run to P, rows to I, slices to L
  EXPECT_EQ(grid.IndexToPhysical({0, 0, 0}), (Vec3{10, 20, 30}));
  EXPECT_EQ(grid.IndexToPhysical({1, 0, 0}), (Vec3{10, 22, 30}));
  EXPECT_EQ(grid.IndexToPhysical({0, 1, 0}), (Vec3{10, 20, 27}));
  EXPECT_EQ(grid.IndexToPhysical({0, 0, 1}), (Vec3{14, 20, 30}));
}

TEST(Grid, PhysicalToIndexIsTheInverse) {
  Grid grid = GridOf({100, 90, 80}, {0.7, 0.8, 2.5}, {-120, 35.5, -900});
  grid.direction = Rotation(25);
  grid.direction[0][0] *= 1.0004;  // within the tolerance of ValidateGrid, so no transpose would do
  const Vec3 index = {12.25, -3, 79};
  const Vec3 back = grid.PhysicalToIndex(grid.IndexToPhysical(index));
  // Double rounding of coordinates of a metre in voxels of a millimetre.
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(back[i], index[i], 1e-10);
}

TEST(Volume, StartsZeroed) {
  auto volume = Volume::Allocate(GridOf({30, 20, 10}), VoxelType::kInt32, VolumeKind::kLabels);
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->byte_count(), size_t{24000});
  for (int64_t i = 0; i < volume->voxel_count(); ++i) ASSERT_EQ(volume->voxels<int32_t>()[i], 0);
}

TEST(Volume, RefusesFloatLabels) {
  auto volume = Volume::Allocate(GridOf({4, 4, 4}), VoxelType::kFloat32, VolumeKind::kLabels);
  EXPECT_EQ(volume.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(volume.status(), "voxel_type"));
}

TEST(Volume, RefusesABadGrid) {
  auto volume = Volume::Allocate(GridOf({4, 4, 1}), VoxelType::kInt16, VolumeKind::kImage);
  EXPECT_TRUE(Contains(volume.status(), "grid.size[2]")) << volume.status();
}

TEST(Volume, VoxelTypesHaveTheirNamesAndWidths) {
  const std::pair<VoxelType, std::pair<std::string, size_t>> types[] = {
      {VoxelType::kUint8, {"uint8", 1}},
      {VoxelType::kInt16, {"int16", 2}},
      {VoxelType::kUint16, {"uint16", 2}},
      {VoxelType::kInt32, {"int32", 4}},
      {VoxelType::kFloat32, {"float32", 4}}};
  for (const auto& [type, expected] : types) {
    EXPECT_EQ(std::string(VoxelTypeName(type)), expected.first);
    EXPECT_EQ(BytesPerVoxel(type), expected.second);
  }
}

class VolumeMap : public ::testing::Test {
 protected:
  std::string WriteVoxels(size_t count) {
    const std::string path = folder_ / "voxels";
    std::ofstream file(path, std::ios::binary);
    for (size_t i = 0; i < count; ++i) {
      const int16_t value = static_cast<int16_t>(i);
      file.write(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    return path;
  }
  TemporaryFolder folder_;
  const Grid grid_ = GridOf({4, 3, 2});
};

TEST_F(VolumeMap, ShowsTheFilesVoxels) {
  auto volume = Volume::Map(WriteVoxels(24), grid_, VoxelType::kInt16, VolumeKind::kImage);
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(At<int16_t>(*volume, 3, 2, 1), 23);
  EXPECT_EQ(At<int16_t>(*volume, 1, 0, 1), 13);
}

TEST_F(VolumeMap, IsPrivate) {
  const std::string path = WriteVoxels(24);
  {
    auto volume = Volume::Map(path, grid_, VoxelType::kInt16, VolumeKind::kImage);
    ASSERT_TRUE(volume.ok()) << volume.status();
    volume->mutable_voxels<int16_t>()[5] = -1;
  }
  auto again = Volume::Map(path, grid_, VoxelType::kInt16, VolumeKind::kImage);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->voxels<int16_t>()[5], 5);
}

TEST_F(VolumeMap, OutlivesTheFilesName) {
  const std::string path = WriteVoxels(24);
  auto volume = Volume::Map(path, grid_, VoxelType::kInt16, VolumeKind::kImage);
  ASSERT_TRUE(volume.ok()) << volume.status();
  std::filesystem::remove(path);
  const Volume moved = *std::move(volume);
  EXPECT_EQ(moved.voxels<int16_t>()[23], 23);
}

TEST_F(VolumeMap, WithoutTheFileIsNotFound) {
  auto volume = Volume::Map(folder_ / "none", grid_, VoxelType::kInt16, VolumeKind::kImage);
  EXPECT_EQ(volume.status().code(), absl::StatusCode::kNotFound) << volume.status();
}

TEST_F(VolumeMap, OfAnotherLengthIsDataLossAndSaysBoth) {
  for (const size_t voxels : {size_t{0}, size_t{23}, size_t{25}}) {
    auto volume = Volume::Map(WriteVoxels(voxels), grid_, VoxelType::kInt16, VolumeKind::kImage);
    EXPECT_EQ(volume.status().code(), absl::StatusCode::kDataLoss) << volume.status();
    EXPECT_TRUE(Contains(volume.status(), "has " + std::to_string(2 * voxels) + " bytes"));
    EXPECT_TRUE(Contains(volume.status(), "needs 48"));
  }
}

TEST_F(VolumeMap, RefusesABadGridAndFloatLabels) {
  const std::string path = WriteVoxels(24);
  EXPECT_EQ(
      Volume::Map(path, GridOf({0, 3, 2}), VoxelType::kInt16, VolumeKind::kImage).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Volume::Map(path, grid_, VoxelType::kFloat32, VolumeKind::kLabels).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Vectors of FIPS 180-4's examples (NIST, "SHA256.pdf", and its long-message one).
TEST(Sha256, GivesTheStandardsExamples) {
  const std::pair<std::string, std::string> vectors[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1000000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
  for (const auto& [message, digest] : vectors) {
    EXPECT_EQ(Sha256Of(message), digest);
  }
}

TEST(Sha256, DoesNotDependOnThePartsOfTheMessage) {
  const std::string message(1000000, 'a');
  Sha256 sha;
  size_t part = 1;
  for (size_t at = 0; at < message.size(); part = part * 3 % 1009) {
    const size_t count = std::min(part, message.size() - at);
    sha.Update(message.data() + at, count);
    at += count;
  }
  EXPECT_EQ(sha.Finish(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace gvsl
