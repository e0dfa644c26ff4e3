#include "client/feature_file.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "client/wire.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

constexpr int kChannels = 2, kColumns = 3, kRows = 4, kSlices = 5;

// A value that tells its place.
float ValueAt(int c, int z, int y, int x) {
  return static_cast<float>(1000 * c + 100 * z + 10 * y + x);
}

v1::ExtractDenseResponse::Header Header(v1::FeatureType type = v1::FLOAT32) {
  Grid grid;
  grid.size = {kColumns, kRows, kSlices};
  grid.spacing_mm = {1, 2, 3};
  grid.origin_mm = {-10, -20, 30};
  v1::ExtractDenseResponse::Header header;
  *header.mutable_grid() = ToProto(grid);
  header.set_channels(kChannels);
  header.set_type(type);
  header.set_total_bytes(int64_t{kChannels} * kColumns * kRows * kSlices *
                         (type == v1::FLOAT16 ? 2 : 4));
  return header;
}

// Hands a receiver the slices as the wire brings them: [channel][row][column].
absl::Status SendSlices(DenseReceiver& receiver) {
  for (int z = 0; z < kSlices; ++z) {
    std::vector<float> slice;
    for (int c = 0; c < kChannels; ++c)
      for (int y = 0; y < kRows; ++y)
        for (int x = 0; x < kColumns; ++x) slice.push_back(ValueAt(c, z, y, x));
    absl::Status status = receiver.Slice(z, reinterpret_cast<const char*>(slice.data()));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The array as files hold it: [channel][slice][row][column].
std::string Array() {
  std::string bytes;
  for (int c = 0; c < kChannels; ++c)
    for (int z = 0; z < kSlices; ++z)
      for (int y = 0; y < kRows; ++y)
        for (int x = 0; x < kColumns; ++x) {
          const float value = ValueAt(c, z, y, x);
          bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
        }
  return bytes;
}

std::string Content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string Unzipped(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  std::string bytes(1 << 20, '\0');
  bytes.resize(static_cast<size_t>(gzread(file, bytes.data(), 1 << 20)));
  gzclose(file);
  return bytes;
}

template <typename T>
T At(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

TEST(NpyHeader, IsWhatNumpyWrites) {
  const std::string header = NpyHeader("<f4", {2, 512});
  // numpy.lib.format, version 1.0: magic, version, length, a Python literal, padding to 64 bytes.
  EXPECT_EQ(header.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  EXPECT_EQ(At<uint16_t>(header, 8), header.size() - 10);
  EXPECT_EQ(header.size() % 64, 0u);
  EXPECT_EQ(header.substr(10, 58), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 512,");
  EXPECT_EQ(header.back(), '\n');
}

TEST(NpyHeader, StaysAlignedForEveryShape) {
  for (int digits = 1; digits < 60; ++digits) {
    std::vector<int64_t> shape(static_cast<size_t>(digits), 7);
    const std::string header = NpyHeader("<f2", shape);
    EXPECT_EQ(header.size() % 64, 0u);
    EXPECT_EQ(At<uint16_t>(header, 8), header.size() - 10);
    EXPECT_NE(header.find("), }"), std::string::npos);
  }
}

class DenseFile : public testing::Test {
 protected:
  void SetUp() override { fs::create_directory(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Write(const std::string& name) {
    const std::string path = folder_ + "/" + name;
    auto writer = DenseFileWriter::Make(path);
    EXPECT_TRUE(writer.ok()) << writer.status();
    EXPECT_TRUE((*writer)->Begin(Header()).ok());
    EXPECT_TRUE(SendSlices(**writer).ok());
    const absl::Status finished = (*writer)->Finish();
    EXPECT_TRUE(finished.ok()) << finished;
    writer->reset();
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "something was left";
    return path;
  }
  const std::string folder_ = testing::TempDir() + "/feature_file_test." + std::to_string(getpid());
};

TEST_F(DenseFile, OfNumpyIsTheArrayChannelsFirst) {
  EXPECT_EQ(Content(Write("dense.npy")),
            NpyHeader("<f4", {kChannels, kSlices, kRows, kColumns}) + Array());
}

TEST_F(DenseFile, OfNiftiIsFourDimensionalWithTheGridsGeometry) {
  const std::string file = Content(Write("dense.nii"));
  // nifti1.h: sizeof_hdr, dim[8], datatype, bitpix, pixdim, vox_offset, srow_x, magic.
  ASSERT_EQ(At<int32_t>(file, 0), 348);
  const int16_t dim[] = {4, kColumns, kRows, kSlices, kChannels};
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(At<int16_t>(file, 40 + 2 * i), dim[i]) << i;
  EXPECT_EQ(At<int16_t>(file, 70), 16);  // float32
  EXPECT_EQ(At<int16_t>(file, 72), 32);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(At<float>(file, 80 + 4 * i), static_cast<float>(i + 1)) << i;
  // The file is RAS, the grid LPS: the first two rows change sign.
  EXPECT_EQ(At<float>(file, 280), -1);
  EXPECT_EQ(At<float>(file, 280 + 12), 10);
  EXPECT_EQ(At<float>(file, 296 + 4), -2);
  EXPECT_EQ(At<float>(file, 296 + 12), 20);
  EXPECT_EQ(At<float>(file, 312 + 12), 30);
  EXPECT_EQ(file.substr(344, 4), std::string("n+1\0", 4));
  const auto data = static_cast<size_t>(At<float>(file, 108));
  EXPECT_EQ(file.substr(data), Array());
}

TEST_F(DenseFile, OfGzippedNiftiIsTheSameFilePacked) {
  const std::string packed = Unzipped(Write("dense.nii.gz"));
  fs::remove(folder_ + "/dense.nii.gz");
  EXPECT_EQ(packed, Content(Write("dense.nii")));
}

TEST_F(DenseFile, OfHalfPrecisionKeepsTheBitsOfTheWire) {
  const std::string path = folder_ + "/half.npy";
  auto writer = DenseFileWriter::Make(path);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Begin(Header(v1::FLOAT16)).ok());
  const std::string slice(size_t{kChannels} * kRows * kColumns * 2, '\x3c');
  for (int z = 0; z < kSlices; ++z) ASSERT_TRUE((*writer)->Slice(z, slice.data()).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(Content(path), NpyHeader("<f2", {kChannels, kSlices, kRows, kColumns}) +
                               std::string(slice.size() * kSlices, '\x3c'));
}

TEST_F(DenseFile, OfNiftiRefusesHalfPrecision) {
  auto writer = DenseFileWriter::Make(folder_ + "/half.nii");
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ((*writer)->Begin(Header(v1::FLOAT16)).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DenseFile, IsNotThereUnlessFinished) {
  for (const char* name : {"cut.npy", "cut.nii", "cut.nii.gz"}) {
    auto writer = DenseFileWriter::Make(folder_ + "/" + name);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Begin(Header()).ok());
    ASSERT_TRUE(SendSlices(**writer).ok());
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(DenseFile, RefusesAnotherExtensionAndAMissingFolder) {
  EXPECT_EQ(DenseFileWriter::Make(folder_ + "/dense.csv").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DenseFileWriter::Make(folder_ + "/absent/dense.npy").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(DensePicture, IsAPngOfTheThreePlanesInPhysicalProportions) {
  DensePicture picture;
  ASSERT_TRUE(picture.Begin(Header()).ok());
  ASSERT_TRUE(SendSlices(picture).ok());
  const auto png = picture.Png();
  ASSERT_TRUE(png.ok()) << png.status();
  EXPECT_EQ(png->substr(0, 8), "\x89PNG\r\n\x1a\n");
  // IHDR, big-endian. Pixels of 1 mm: 3 x 8, 3 x 15 and 8 x 15, with two gaps of 4.
  const auto side = [&](size_t offset) {
    return static_cast<unsigned char>((*png)[offset + 2]) * 256 +
           static_cast<unsigned char>((*png)[offset + 3]);
  };
  EXPECT_EQ(side(16), 3 + 4 + 3 + 4 + 8);
  EXPECT_EQ(side(20), 15);
}

TEST(DensePicture, TakesAConstantVolumeAndOneChannel) {
  v1::ExtractDenseResponse::Header header = Header();
  header.set_channels(1);
  DensePicture picture;
  ASSERT_TRUE(picture.Begin(header).ok());
  const std::vector<float> slice(size_t{kRows} * kColumns, 5);
  for (int z = 0; z < kSlices; ++z)
    ASSERT_TRUE(picture.Slice(z, reinterpret_cast<const char*>(slice.data())).ok());
  EXPECT_TRUE(picture.Png().ok());
}

TEST(DensePicture, IsTheSameForFloatsAndForHalvesOfThem) {
  // Values that half precision holds exactly.
  v1::ExtractDenseResponse::Header whole = Header(), half = Header(v1::FLOAT16);
  DensePicture of_floats, of_halves;
  ASSERT_TRUE(of_floats.Begin(whole).ok());
  ASSERT_TRUE(of_halves.Begin(half).ok());
  for (int z = 0; z < kSlices; ++z) {
    std::vector<float> floats;
    std::vector<uint16_t> halves;
    for (int i = 0; i < kChannels * kRows * kColumns; ++i) {
      const bool one = (i * 7 + z * 3) % 5 < 2;
      floats.push_back(one ? 1.0f : -2.0f);
      halves.push_back(one ? 0x3C00 : 0xC000);
    }
    ASSERT_TRUE(of_floats.Slice(z, reinterpret_cast<const char*>(floats.data())).ok());
    ASSERT_TRUE(of_halves.Slice(z, reinterpret_cast<const char*>(halves.data())).ok());
  }
  EXPECT_EQ(*of_floats.Png(), *of_halves.Png());
}

}  // namespace
}  // namespace gvsl
