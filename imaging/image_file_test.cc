#include "imaging/image_file.h"

#include <nifti1.h>
#include <nifti2.h>
#include <signal.h>
#include <sys/resource.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <vector>

#include "imaging/sha256.h"
#include "imaging/status_reason.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

const std::string kExtensions[] = {".nii", ".nii.gz", ".mha", ".mhd"};

Volume Read(const std::string& path, VolumeKind kind = VolumeKind::kImage) {
  auto volume = ReadVolume(path, {kind});
  EXPECT_TRUE(volume.ok()) << volume.status();
  return volume.ok() ? *std::move(volume) : Volume();
}

void ExpectRefused(const std::string& path, absl::StatusCode code, const std::string& reason,
                   VolumeKind kind = VolumeKind::kImage) {
  const absl::Status status = ReadVolume(path, {kind}).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_TRUE(Contains(status, reason)) << status << "\nlacks: " << reason;
  EXPECT_TRUE(Contains(status, std::filesystem::path(path).filename().string())) << status;
}

std::string BytesOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void WriteGzip(const std::string& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb1");
  ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())),
            static_cast<int>(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

template <typename T>
std::string Raw(const std::vector<T>& values, bool swapped = false) {
  std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  for (size_t i = 0; swapped && i < bytes.size(); i += sizeof(T)) {
    std::reverse(bytes.begin() + static_cast<int64_t>(i),
                 bytes.begin() + static_cast<int64_t>(i + sizeof(T)));
  }
  return bytes;
}

// 24 voxels for a lattice of 4 x 3 x 2.
template <typename T>
std::vector<T> TwentyFour(T first = 1) {
  std::vector<T> values(24);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(first + static_cast<T>(i));
  return values;
}

template <typename T>
std::vector<T> VoxelsOf(const Volume& volume) {
  EXPECT_EQ(volume.type(), VoxelTypeOf<T>::value) << VoxelTypeName(volume.type());
  if (volume.type() != VoxelTypeOf<T>::value) return {};
  return {volume.voxels<T>(), volume.voxels<T>() + volume.voxel_count()};
}

template <typename Header>
Header NiftiHeaderOf(int datatype, int bits) {
  Header header = {};
  header.sizeof_hdr = sizeof(Header);
  const int dims[8] = {3, 4, 3, 2, 1, 1, 1, 1};
  std::copy(dims, dims + 8, header.dim);
  std::fill(header.pixdim, header.pixdim + 8, 1);
  header.datatype = static_cast<short>(datatype);
  header.bitpix = static_cast<short>(bits);
  header.scl_slope = 1;
  header.xyzt_units = NIFTI_UNITS_MM;
  header.sform_code = NIFTI_XFORM_SCANNER_ANAT;
  header.srow_x[0] = header.srow_y[1] = header.srow_z[2] = 1;
  return header;
}

// 4 x 3 x 2 voxels of 1 mm, RAS axes, by the sform.
nifti_1_header Nifti1(int datatype, int bits) {
  auto header = NiftiHeaderOf<nifti_1_header>(datatype, bits);
  header.vox_offset = 352;
  std::memcpy(header.magic, "n+1", 4);
  return header;
}

template <typename Header>
std::string NiftiBytes(const Header& header, const std::string& voxels) {
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  return bytes + std::string(4, '\0') + voxels;
}

void SetQuaternion(nifti_1_header& header, float b, float c, float d, float qfac) {
  header.qform_code = NIFTI_XFORM_SCANNER_ANAT;
  header.quatern_b = b;
  header.quatern_c = c;
  header.quatern_d = d;
  header.pixdim[0] = qfac;
}

class ImageFile : public ::testing::Test {
 protected:
  std::string WriteNifti1(const nifti_1_header& header, const std::string& voxels) {
    const std::string path = folder_ / "volume.nii";
    WriteBytes(path, NiftiBytes(header, voxels));
    return path;
  }
  template <typename T>
  Volume ReadStored(int datatype, const std::vector<T>& voxels,
                    VolumeKind kind = VolumeKind::kImage) {
    return Read(WriteNifti1(Nifti1(datatype, 8 * sizeof(T)), Raw(voxels)), kind);
  }
  std::string WriteMeta(const std::string& fields, const std::string& voxels,
                        const std::string& name = "volume.mha") {
    WriteBytes(folder_ / name, "ObjectType = Image\nNDims = 3\nBinaryData = True\n" + fields +
                                   "ElementDataFile = LOCAL\n" + voxels);
    return folder_ / name;
  }

  TemporaryFolder folder_;
};

// Round trips.

template <typename T>
void ExpectRoundTrip(const TemporaryFolder& folder, const std::string& extension, VolumeKind kind) {
  Grid grid = GridOf({7, 5, 3}, {0.75, 1.25, 3}, {-12.5, 40.25, -800});
  grid.direction = Rotation(33);
  const Volume volume = Filled<T>(grid, Scrambled, kind);
  const std::string path = folder / ("volume" + extension);
  const absl::Status written = WriteVolume(volume, path);
  ASSERT_TRUE(written.ok()) << written;
  const Volume back = Read(path, kind);
  ASSERT_EQ(back.type(), volume.type());
  EXPECT_EQ(std::memcmp(back.bytes(), volume.bytes(), volume.byte_count()), 0);
  // NIfTI-1 holds float32 (an origin of 800 mm to 3e-5 mm), MetaImage text of 17 digits.
  ExpectSameLattice(back.grid(), grid, extension[1] == 'n' ? 4e-5 : 1e-12);
}

TEST_F(ImageFile, RoundTripKeepsEveryVoxelAndTheObliqueLattice) {
  for (const std::string& extension : kExtensions) {
    SCOPED_TRACE(extension);
    for (const VolumeKind kind : {VolumeKind::kImage, VolumeKind::kLabels}) {
      ExpectRoundTrip<uint8_t>(folder_, extension, kind);
      ExpectRoundTrip<int16_t>(folder_, extension, kind);
      ExpectRoundTrip<uint16_t>(folder_, extension, kind);
      ExpectRoundTrip<int32_t>(folder_, extension, kind);
    }
    ExpectRoundTrip<float>(folder_, extension, VolumeKind::kImage);
  }
}

TEST_F(ImageFile, WhatNiftiHoldsComesBackToTheBit) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  const float rows[3][4] = {
      {0.6f, -0.36f, 1.3f, -31.7f}, {0.8f, 0.27f, -0.975f, 17.9f}, {0, 0.6f, 1.4f, 1234.567f}};
  // Orthogonal columns of an oblique lattice, rounded to float32.
  const Mat3 direction = Rotation(27);
  for (int i = 0; i < 4; ++i) {
    const auto entry = [&](int r) {
      return i == 3 ? rows[r][3] : static_cast<float>(direction[r][i] * (0.7 + 0.3 * i));
    };
    header.srow_x[i] = entry(0);
    header.srow_y[i] = entry(1);
    header.srow_z[i] = entry(2);
  }
  const Volume volume = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>())));
  ASSERT_TRUE(WriteVolume(volume, folder_ / "again.nii").ok());
  nifti_1_header again;
  std::memcpy(&again, BytesOf(folder_ / "again.nii").data(), sizeof(again));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(again.srow_x[i], header.srow_x[i]);
    EXPECT_EQ(again.srow_y[i], header.srow_y[i]);
    EXPECT_EQ(again.srow_z[i], header.srow_z[i]);
  }
}

TEST_F(ImageFile, WritesSformAndQformThatAgree) {
  for (const double mirrored : {1, -1}) {
    Grid grid = GridOf({7, 5, 3}, {0.75, 1.25, 3}, {-12.5, 40.25, -80});
    grid.direction = Rotation(33);
    for (auto& row : grid.direction) row[2] *= mirrored;
    ASSERT_TRUE(WriteVolume(Filled<int16_t>(grid, Scrambled), folder_ / "volume.nii").ok());
    std::string bytes = BytesOf(folder_ / "volume.nii");
    nifti_1_header header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    EXPECT_GT(header.sform_code, 0);
    EXPECT_GT(header.qform_code, 0);
    EXPECT_EQ(header.xyzt_units, NIFTI_UNITS_MM);
    EXPECT_FLOAT_EQ(header.pixdim[3], 3);
    header.sform_code = 0;
    std::memcpy(bytes.data(), &header, sizeof(header));
    WriteBytes(folder_ / "qform.nii", bytes);
    // Quaternions of float32.
    ExpectSameLattice(Read(folder_ / "qform.nii").grid(), grid, 1e-5);
  }
}

TEST_F(ImageFile, LabelsCarryTheLabelIntent) {
  for (const VolumeKind kind : {VolumeKind::kImage, VolumeKind::kLabels}) {
    ASSERT_TRUE(
        WriteVolume(Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled, kind), folder_ / "v.nii").ok());
    nifti_1_header header;
    std::memcpy(&header, BytesOf(folder_ / "v.nii").data(), sizeof(header));
    EXPECT_EQ(header.intent_code, kind == VolumeKind::kLabels ? NIFTI_INTENT_LABEL : 0);
  }
}

TEST_F(ImageFile, ASideAbove32767BecomesNifti2) {
  const Volume volume = Filled<uint16_t>(GridOf({2, 40000, 2}, {1, 0.01, 1}), Scrambled);
  for (const std::string extension : {".nii", ".nii.gz"}) {
    const std::string path = folder_ / ("long" + extension);
    ASSERT_TRUE(WriteVolume(volume, path).ok());
    const Volume back = Read(path);
    ExpectSameLattice(back.grid(), volume.grid(), 1e-12);  // NIfTI-2 holds doubles
    EXPECT_EQ(std::memcmp(back.bytes(), volume.bytes(), volume.byte_count()), 0);
  }
  int32_t header_size = 0;
  std::memcpy(&header_size, BytesOf(folder_ / "long.nii").data(), 4);
  EXPECT_EQ(header_size, 540);
}

// NIfTI geometry.

TEST_F(ImageFile, NiftisRasBecomesLps) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.srow_x[0] = 2;
  header.srow_x[3] = 10;
  header.srow_y[3] = 20;
  header.srow_z[3] = 30;
  const Grid grid = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid();
  Grid expected = GridOf({4, 3, 2}, {2, 1, 1}, {-10, -20, 30});
  expected.direction = {{{-1, 0, 0}, {0, -1, 0}, {0, 0, 1}}};
  ExpectSameLattice(grid, expected, 0);
}

TEST_F(ImageFile, FlippedAndPermutedAxesKeepTheirPlace) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  // Columns run to inferior, rows to left, slices to anterior.
  const float x[] = {0, -2, 0, 5}, y[] = {0, 0, 3, 6}, z[] = {-4, 0, 0, 7};
  std::copy(x, x + 4, header.srow_x);
  std::copy(y, y + 4, header.srow_y);
  std::copy(z, z + 4, header.srow_z);
  const Grid grid = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid();
  EXPECT_EQ(grid.spacing_mm, (Vec3{4, 2, 3}));
  EXPECT_EQ(grid.IndexToPhysical({1, 0, 0}), (Vec3{-5, -6, 3}));
  EXPECT_EQ(grid.IndexToPhysical({0, 1, 0}), (Vec3{-3, -6, 7}));
  EXPECT_EQ(grid.IndexToPhysical({0, 0, 1}), (Vec3{-5, -9, 7}));
}

TEST_F(ImageFile, SformComesBeforeQform) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.srow_x[3] = 11;
  SetQuaternion(header, 0, 0, 0, 1);
  header.qoffset_x = 99;
  EXPECT_EQ(Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid().origin_mm[0], -11);
}

TEST_F(ImageFile, QformCountsWhereTheSformsCodeIsZero) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.sform_code = 0;
  // A quarter turn about the third axis: columns to anterior, rows to left.
  SetQuaternion(header, 0, 0, std::sqrt(0.5f), 1);
  header.pixdim[1] = 2;
  header.pixdim[2] = 3;
  header.qoffset_x = 10;
  header.qoffset_y = 20;
  header.qoffset_z = 30;
  const Grid grid = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid();
  Grid expected = GridOf({4, 3, 2}, {2, 3, 1}, {-10, -20, 30});
  expected.direction = {{{0, 1, 0}, {-1, 0, 0}, {0, 0, 1}}};
  ExpectSameLattice(grid, expected, 1e-6);  // the quaternion is float32
}

TEST_F(ImageFile, QformWhoseQuaternionIsNoRotationIsRefused) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.sform_code = 0;
  SetQuaternion(header, 0.9f, 0.9f, 0.9f, 1);
  ExpectRefused(WriteNifti1(header, Raw(TwentyFour<uint8_t>())), absl::StatusCode::kInvalidArgument,
                "geometry from the qform");
}

TEST_F(ImageFile, QfacOfMinusOneMirrorsTheSlices) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.sform_code = 0;
  SetQuaternion(header, 0, 0, 0, -1);
  const Grid grid = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid();
  EXPECT_EQ(grid.direction[2][2], -1);
}

TEST_F(ImageFile, WithoutATransformTheCentreIsTheOriginAndColumnsRunToTheLeft) {
  // As nibabel reads it, from dim and pixdim alone.
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.sform_code = 0;
  header.pixdim[1] = 2;
  const Grid grid = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid();
  EXPECT_EQ(grid.IndexToPhysical({1.5, 1, 0.5}), (Vec3{0, 0, 0}));
  EXPECT_EQ(grid.IndexToPhysical({2.5, 1, 0.5}), (Vec3{2, 0, 0}));
}

TEST_F(ImageFile, UnitsOfTheHeaderCount) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.xyzt_units = NIFTI_UNITS_MICRON;
  header.srow_x[0] = 50;
  header.srow_y[1] = 50;
  header.srow_z[2] = 100;
  header.srow_z[3] = 2000;
  const Grid grid = Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid();
  EXPECT_NEAR(grid.spacing_mm[0], 0.05, 1e-12);
  EXPECT_NEAR(grid.spacing_mm[2], 0.1, 1e-12);
  EXPECT_NEAR(grid.origin_mm[2], 2, 1e-12);
}

TEST_F(ImageFile, SformWithShearIsRefused) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.srow_x[1] = 0.2f;
  ExpectRefused(WriteNifti1(header, Raw(TwentyFour<uint8_t>())), absl::StatusCode::kInvalidArgument,
                "geometry from the sform: grid.direction");
}

TEST_F(ImageFile, SingularSformAndAbsurdSpacingAreRefused) {
  for (const float spacing : {0.0f, 1e-6f, 1e9f, std::numeric_limits<float>::quiet_NaN()}) {
    auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
    header.srow_y[1] = spacing;
    ExpectRefused(WriteNifti1(header, Raw(TwentyFour<uint8_t>())),
                  absl::StatusCode::kInvalidArgument,
                  "geometry from the sform: grid.spacing_mm[1]");
  }
}

// NIfTI voxels.

TEST_F(ImageFile, TypesThatVolumeHasStayAsTheyAre) {
  EXPECT_EQ(VoxelsOf<uint8_t>(ReadStored(NIFTI_TYPE_UINT8, TwentyFour<uint8_t>(230))),
            TwentyFour<uint8_t>(230));
  EXPECT_EQ(VoxelsOf<int16_t>(ReadStored(NIFTI_TYPE_INT16, TwentyFour<int16_t>(-32768))),
            TwentyFour<int16_t>(-32768));
  EXPECT_EQ(VoxelsOf<uint16_t>(ReadStored(NIFTI_TYPE_UINT16, TwentyFour<uint16_t>(65500))),
            TwentyFour<uint16_t>(65500));
  EXPECT_EQ(VoxelsOf<int32_t>(ReadStored(NIFTI_TYPE_INT32, TwentyFour<int32_t>(-2000000000))),
            TwentyFour<int32_t>(-2000000000));
  EXPECT_EQ(VoxelsOf<float>(ReadStored(NIFTI_TYPE_FLOAT32, TwentyFour<float>(-0.1f))),
            TwentyFour<float>(-0.1f));
}

TEST_F(ImageFile, OtherTypesWidenWithoutLoss) {
  EXPECT_EQ(VoxelsOf<int16_t>(ReadStored(NIFTI_TYPE_INT8, TwentyFour<int8_t>(-12))),
            TwentyFour<int16_t>(-12));
  EXPECT_EQ(VoxelsOf<int32_t>(ReadStored(NIFTI_TYPE_UINT32, TwentyFour<uint32_t>(2147483624))),
            TwentyFour<int32_t>(2147483624));
  EXPECT_EQ(VoxelsOf<int32_t>(ReadStored(NIFTI_TYPE_INT64, TwentyFour<int64_t>(-2147483648))),
            TwentyFour<int32_t>(std::numeric_limits<int32_t>::min()));
  EXPECT_EQ(VoxelsOf<int32_t>(ReadStored(NIFTI_TYPE_UINT64, TwentyFour<uint64_t>(7))),
            TwentyFour<int32_t>(7));
  EXPECT_EQ(VoxelsOf<float>(ReadStored(NIFTI_TYPE_FLOAT64, TwentyFour<double>(-3.5))),
            TwentyFour<float>(-3.5f));
}

TEST_F(ImageFile, IntegersThatDoNotFitAreRefusedWithTheirIndex) {
  auto wide = TwentyFour<int64_t>();
  wide[14] = int64_t{1} << 31;  // column 2, row 0, slice 1
  ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_INT64, 64), Raw(wide)),
                absl::StatusCode::kInvalidArgument, "voxel (2, 0, 1) has the value 2.14748e+09");
  auto unsigned_wide = TwentyFour<uint64_t>();
  unsigned_wide[0] = std::numeric_limits<uint64_t>::max();
  ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_UINT64, 64), Raw(unsigned_wide)),
                absl::StatusCode::kInvalidArgument, "voxel (0, 0, 0)");
}

TEST_F(ImageFile, ScalingGivesFloat) {
  auto header = Nifti1(NIFTI_TYPE_INT16, 16);
  header.scl_slope = 0.5f;
  header.scl_inter = -1024;
  const auto voxels = VoxelsOf<float>(Read(WriteNifti1(header, Raw(TwentyFour<int16_t>(100)))));
  EXPECT_EQ(voxels[0], -974);
  EXPECT_EQ(voxels[3], -972.5f);
}

TEST_F(ImageFile, SlopesThatMeanNoScalingKeepTheIntegers) {
  // 0 by the standard; not a number as nibabel writes it.
  for (const float slope : {0.0f, 1.0f, std::numeric_limits<float>::quiet_NaN()}) {
    auto header = Nifti1(NIFTI_TYPE_INT16, 16);
    header.scl_slope = slope;
    header.scl_inter = slope == 1 ? 0 : std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(VoxelsOf<int16_t>(Read(WriteNifti1(header, Raw(TwentyFour<int16_t>(5))))),
              TwentyFour<int16_t>(5));
  }
}

TEST_F(ImageFile, LabelsStoredAsFloatBecomeIntegers) {
  EXPECT_EQ(
      VoxelsOf<int32_t>(ReadStored(NIFTI_TYPE_FLOAT32, TwentyFour<float>(-3), VolumeKind::kLabels)),
      TwentyFour<int32_t>(-3));
  auto halves = TwentyFour<float>();
  halves[5] = 2.5f;  // column 1, row 1, slice 0
  ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_FLOAT32, 32), Raw(halves)),
                absl::StatusCode::kInvalidArgument,
                "voxel (1, 1, 0) has the value 2.5, which is no int32; labels are whole numbers",
                VolumeKind::kLabels);
}

TEST_F(ImageFile, NanAndInfinityAreRefusedWithTheirIndex) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), infinity, -infinity}) {
    auto floats = TwentyFour<float>();
    floats[23] = static_cast<float>(bad);
    ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_FLOAT32, 32), Raw(floats)),
                  absl::StatusCode::kInvalidArgument, "voxel (3, 2, 1) is not a finite number");
    auto doubles = TwentyFour<double>();
    doubles[4] = bad;
    ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_FLOAT64, 64), Raw(doubles)),
                  absl::StatusCode::kInvalidArgument, "voxel (0, 1, 0) is not a finite number");
    ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_FLOAT32, 32), Raw(floats)),
                  absl::StatusCode::kInvalidArgument, "voxel (3, 2, 1)", VolumeKind::kLabels);
  }
  auto beyond = TwentyFour<double>();
  beyond[0] = 1e300;  // finite, but not in float32
  ExpectRefused(WriteNifti1(Nifti1(NIFTI_TYPE_FLOAT64, 64), Raw(beyond)),
                absl::StatusCode::kInvalidArgument, "voxel (0, 0, 0)");
}

TEST_F(ImageFile, TheOtherByteOrderIsRead) {
  // The header swapped field by field, as a big-endian machine writes it.
  auto header = Nifti1(NIFTI_TYPE_INT16, 16);
  const auto swap = [](auto& field) {
    auto* bytes = reinterpret_cast<char*>(&field);
    std::reverse(bytes, bytes + sizeof(field));
  };
  header.srow_x[0] = 2.5f;
  swap(header.sizeof_hdr);
  for (auto& value : header.dim) swap(value);
  for (auto& value : header.pixdim) swap(value);
  for (auto* row : {header.srow_x, header.srow_y, header.srow_z}) {
    for (int i = 0; i < 4; ++i) swap(row[i]);
  }
  swap(header.datatype);
  swap(header.bitpix);
  swap(header.vox_offset);
  swap(header.scl_slope);
  swap(header.sform_code);
  const Volume volume = Read(WriteNifti1(header, Raw(TwentyFour<int16_t>(-5), true)));
  EXPECT_EQ(VoxelsOf<int16_t>(volume), TwentyFour<int16_t>(-5));
  EXPECT_EQ(volume.grid().spacing_mm[0], 2.5);
}

TEST_F(ImageFile, Nifti2IsRead) {
  auto header = NiftiHeaderOf<nifti_2_header>(NIFTI_TYPE_INT16, 16);
  header.vox_offset = 544;
  std::memcpy(header.magic, "n+2\0\r\n\032\n", 8);
  header.srow_x[3] = 1.0 / 3;
  WriteBytes(folder_ / "v.nii", NiftiBytes(header, Raw(TwentyFour<int16_t>(-5))));
  WriteGzip(folder_ / "v.nii.gz", NiftiBytes(header, Raw(TwentyFour<int16_t>(-5))));
  for (const std::string name : {"v.nii", "v.nii.gz"}) {
    const Volume volume = Read(folder_ / name);
    EXPECT_EQ(VoxelsOf<int16_t>(volume), TwentyFour<int16_t>(-5));
    EXPECT_EQ(volume.grid().origin_mm[0], -1.0 / 3);  // doubles, not float32
  }
}

TEST_F(ImageFile, ExtensionsBeforeTheVoxelsAreSkipped) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.vox_offset = 416;
  const std::string extension(64, 'x');
  EXPECT_EQ(VoxelsOf<uint8_t>(Read(WriteNifti1(header, extension + Raw(TwentyFour<uint8_t>())))),
            TwentyFour<uint8_t>());
}

TEST_F(ImageFile, AnOffsetWithinTheHeaderMeansRightBehindIt) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.vox_offset = 0;
  EXPECT_EQ(VoxelsOf<uint8_t>(Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>())))),
            TwentyFour<uint8_t>());
}

TEST_F(ImageFile, AFourthAxisOfOneIsNoSeries) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  header.dim[0] = 5;
  EXPECT_EQ(Read(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).grid().size,
            (std::array<int64_t, 3>{4, 3, 2}));
}

// What is refused.

TEST_F(ImageFile, SeriesAndSlicesAndNothingAreRefusedWithTheReason) {
  const std::pair<std::vector<int>, std::string> cases[] = {
      {{4, 4, 3, 2, 10}, "4D data (10 along axis 4)"},
      {{5, 4, 3, 2, 1, 3}, "5D data (3 along axis 5)"},
      {{2, 4, 3}, "2D data"},
      {{3, 4, 3, 1}, "2D data"},
      {{3, 0, 3, 2}, "dim[1]: 0 voxels"},
      {{3, 4, 0, 2}, "dim[2]: 0 voxels"},
      {{3, 4, 3, 0}, "dim[3]: 0 voxels"},
      {{3, 4, -3, 2}, "dim[2]: -3 voxels"}};
  for (const auto& [dim, reason] : cases) {
    auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
    std::copy(dim.begin(), dim.end(), header.dim);
    ExpectRefused(WriteNifti1(header, std::string(1000, 'x')), absl::StatusCode::kInvalidArgument,
                  reason);
  }
}

TEST_F(ImageFile, ColourAndComplexVoxelsAreRefused) {
  for (const auto& [type, bits] : {std::pair{NIFTI_TYPE_RGB24, 24},
                                   {NIFTI_TYPE_RGBA32, 32},
                                   {NIFTI_TYPE_COMPLEX64, 64},
                                   {DT_BINARY, 1}}) {
    ExpectRefused(WriteNifti1(Nifti1(type, bits), std::string(1000, 'x')),
                  absl::StatusCode::kInvalidArgument, "only real numbers of one channel");
  }
}

TEST_F(ImageFile, FilesThatAreNoVolumesAreRefused) {
  const std::string junk[] = {"", "n", std::string(400, 'x'), std::string(2000, '\0')};
  for (const std::string& bytes : junk) {
    for (const std::string& extension : kExtensions) {
      const std::string path = folder_ / ("junk" + extension);
      WriteBytes(path, bytes);
      ExpectRefused(path, absl::StatusCode::kInvalidArgument, "not a ");
    }
  }
}

TEST_F(ImageFile, HeadersWithVoxelsInAnotherFileAreRefused) {
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  std::memcpy(header.magic, "ni1", 4);
  ExpectRefused(WriteNifti1(header, ""), absl::StatusCode::kInvalidArgument, "another file");
  std::memset(header.magic, 0, 4);
  ExpectRefused(WriteNifti1(header, ""), absl::StatusCode::kInvalidArgument, "Analyze");
}

TEST_F(ImageFile, PathsThatLeadNowhereAreNotFound) {
  for (const std::string& extension : kExtensions) {
    ExpectRefused(folder_ / ("none" + extension), absl::StatusCode::kNotFound, "");
    const absl::Status status = WriteVolume(Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled),
                                            folder_ / ("none/volume" + extension));
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  }
}

TEST_F(ImageFile, UnknownExtensionsAreRefusedBothWays) {
  for (const std::string name : {"volume.png", "volume", "nii", ".nii", "volume.gz"}) {
    ExpectRefused(name, absl::StatusCode::kInvalidArgument, "unknown extension");
    EXPECT_TRUE(Contains(WriteVolume(Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled), name),
                         "unknown extension"));
  }
}

TEST_F(ImageFile, APathOfTenThousandCharactersIsShownByItsEnd) {
  const absl::Status status = ReadVolume(std::string(10000, 'a') + ".nii").status();
  EXPECT_FALSE(status.ok());
  EXPECT_LT(status.message().size(), size_t{400});
}

TEST_F(ImageFile, TruncatedFilesAreDataLoss) {
  const Volume volume = Filled<int16_t>(GridOf({16, 16, 16}), Scrambled);
  for (const std::string extension : {".nii", ".nii.gz", ".mha"}) {
    const std::string path = folder_ / (std::string("volume") + extension);
    ASSERT_TRUE(WriteVolume(volume, path).ok());
    const std::string bytes = BytesOf(path);
    for (const size_t lost : {size_t{1}, size_t{9}, bytes.size() / 3}) {
      WriteBytes(path, bytes.substr(0, bytes.size() - lost));
      const absl::Status status = ReadVolume(path).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << extension << lost << status;
    }
  }
}

TEST_F(ImageFile, AHeaderThatPromisesMoreThanTheFileHoldsTakesNoMemory) {
  // 8 GB of voxels behind a header of 352 bytes.
  auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  for (int i = 1; i <= 3; ++i) header.dim[i] = 2000;
  const std::string path = WriteNifti1(header, Raw(TwentyFour<uint8_t>()));
  ExpectRefused(path, absl::StatusCode::kDataLoss, "promises 8000000000 bytes");
  WriteGzip(folder_ / "v.nii.gz", BytesOf(path));
  ExpectRefused(folder_ / "v.nii.gz", absl::StatusCode::kDataLoss, "promises 8000000000 bytes");
  for (const std::string compressed : {"False", "True"}) {
    ExpectRefused(WriteMeta("CompressedData = " + compressed +
                                "\nDimSize = 2000 2000 2000\nElementType = MET_UCHAR\n",
                            "abc"),
                  absl::StatusCode::kDataLoss, "promises 8000000000 bytes");
  }
}

TEST_F(ImageFile, AnOffsetBeyondTheFileIsRefused) {
  for (const float offset : {400.0f, 1e9f, 1e30f, std::nanf("")}) {
    auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
    header.vox_offset = offset;
    const absl::Status status =
        ReadVolume(WriteNifti1(header, Raw(TwentyFour<uint8_t>()))).status();
    EXPECT_FALSE(status.ok()) << offset;
  }
}

TEST_F(ImageFile, CorruptGzipIsDataLoss) {
  const std::string path = folder_ / "volume.nii.gz";
  ASSERT_TRUE(WriteVolume(Filled<int16_t>(GridOf({16, 16, 16}), Scrambled), path).ok());
  const std::string good = BytesOf(path);
  std::string bytes = good;
  for (size_t i = bytes.size() / 2; i < bytes.size() / 2 + 64; ++i) bytes[i] = '\xff';
  WriteBytes(path, bytes);
  EXPECT_EQ(ReadVolume(path).status().code(), absl::StatusCode::kDataLoss);
  bytes = good;
  bytes[bytes.size() - 8] ^= 1;  // the checksum alone
  WriteBytes(path, bytes);
  ExpectRefused(path, absl::StatusCode::kDataLoss, "gzip stream");
}

TEST_F(ImageFile, AGzipBombIsNotInflatedBeyondItsVoxels) {
  const std::string voxels = Raw(TwentyFour<uint8_t>());
  const auto header = Nifti1(NIFTI_TYPE_UINT8, 8);
  WriteGzip(folder_ / "bomb.nii.gz", NiftiBytes(header, voxels + std::string(16 << 20, '\0')));
  ExpectRefused(folder_ / "bomb.nii.gz", absl::StatusCode::kInvalidArgument, "goes on far beyond");
  // A little behind the voxels is what some writers leave.
  WriteGzip(folder_ / "tail.nii.gz", NiftiBytes(header, voxels + "tail"));
  EXPECT_EQ(VoxelsOf<uint8_t>(Read(folder_ / "tail.nii.gz")), TwentyFour<uint8_t>());
}

// MetaImage.

std::string Deflated(const std::string& bytes) {
  std::string result(compressBound(bytes.size()), '\0');
  uLongf size = result.size();
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(result.data()), &size,
                     reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()),
            Z_OK);
  result.resize(size);
  return result;
}

const char kMetaShort[] = "DimSize = 4 3 2\nElementType = MET_SHORT\n";

TEST_F(ImageFile, MetaImageGeometryIsItks) {
  const Grid grid = Read(WriteMeta("TransformMatrix = 0 1 0 0 0 -1 1 0 0\nOffset = 10 20 30\n"
                                   "ElementSpacing = 2 3 4\n" +
                                       std::string(kMetaShort),
                                   Raw(TwentyFour<int16_t>())))
                        .grid();
  EXPECT_EQ(grid.spacing_mm, (Vec3{2, 3, 4}));
  // The first three numbers are the direction of the columns.
  EXPECT_EQ(grid.IndexToPhysical({1, 0, 0}), (Vec3{10, 22, 30}));
  EXPECT_EQ(grid.IndexToPhysical({0, 1, 0}), (Vec3{10, 20, 27}));
  EXPECT_EQ(grid.IndexToPhysical({0, 0, 1}), (Vec3{14, 20, 30}));
}

TEST_F(ImageFile, MetaImageCompressedAndBigEndianVoxelsAreRead) {
  const std::vector<int16_t> voxels = TwentyFour<int16_t>(-7);
  for (const bool swapped : {false, true}) {
    const std::string order =
        std::string("BinaryDataByteOrderMSB = ") + (swapped ? "True\n" : "False\n");
    EXPECT_EQ(VoxelsOf<int16_t>(Read(WriteMeta(order + kMetaShort, Raw(voxels, swapped)))), voxels);
    EXPECT_EQ(VoxelsOf<int16_t>(Read(WriteMeta(order + "CompressedData = True\n" + kMetaShort,
                                               Deflated(Raw(voxels, swapped))))),
              voxels);
  }
}

TEST_F(ImageFile, MetaImageTypesWiden) {
  const std::string size = "DimSize = 4 3 2\n";
  EXPECT_EQ(VoxelsOf<int16_t>(
                Read(WriteMeta(size + "ElementType = MET_CHAR\n", Raw(TwentyFour<int8_t>(-12))))),
            TwentyFour<int16_t>(-12));
  EXPECT_EQ(VoxelsOf<int32_t>(Read(
                WriteMeta(size + "ElementType = MET_LONG_LONG\n", Raw(TwentyFour<int64_t>(-12))))),
            TwentyFour<int32_t>(-12));
  EXPECT_EQ(VoxelsOf<float>(
                Read(WriteMeta(size + "ElementType = MET_DOUBLE\n", Raw(TwentyFour<double>(-12))))),
            TwentyFour<float>(-12));
}

TEST_F(ImageFile, MhdFindsItsVoxelsBesideIt) {
  WriteBytes(folder_ / "data.raw", "four" + Raw(TwentyFour<int16_t>()));
  for (const std::string header_size : {"4", "-1"}) {  // -1: the last bytes of the file
    WriteBytes(folder_ / "v.mhd", "NDims = 3\nBinaryData = True\nHeaderSize = " + header_size +
                                      "\n" + kMetaShort + "ElementDataFile = data.raw\n");
    EXPECT_EQ(VoxelsOf<int16_t>(Read(folder_ / "v.mhd")), TwentyFour<int16_t>());
  }
}

TEST_F(ImageFile, MhdIsWrittenAsAHeaderAndItsVoxels) {
  const Volume volume = Filled<int16_t>(GridOf({4, 3, 2}), Scrambled);
  ASSERT_TRUE(WriteVolume(volume, folder_ / "v.mhd").ok());
  EXPECT_TRUE(Contains(BytesOf(folder_ / "v.mhd"), "ElementDataFile = v.raw"));
  EXPECT_EQ(BytesOf(folder_ / "v.raw"),
            std::string(reinterpret_cast<const char*>(volume.bytes()), volume.byte_count()));
}

TEST_F(ImageFile, MetaImagesThatAreNoVolumesAreRefusedWithTheReason) {
  const std::string voxels = Raw(TwentyFour<int16_t>());
  const std::pair<std::string, std::string> cases[] = {
      {"DimSize = 4 3 2\nElementNumberOfChannels = 3\nElementType = MET_UCHAR\n",
       "ElementNumberOfChannels: 3"},
      {"DimSize = 4 3 0\nElementType = MET_SHORT\n", "grid.size[2]"},
      {"DimSize = 4 -3 2\nElementType = MET_SHORT\n", "grid.size[1]"},
      {"DimSize = 2000000000 2000000000 2000000000\nElementType = MET_SHORT\n", "grid.size[0]"},
      {"ElementSpacing = 1 1e9 1\n" + std::string(kMetaShort), "grid.spacing_mm[1]"},
      {"TransformMatrix = 1 0 0 1 1 0 0 0 1\n" + std::string(kMetaShort), "grid.direction"},
      {"TransformMatrix = 0 0 0 0 0 0 0 0 0\n" + std::string(kMetaShort), "grid.direction"},
      {"BinaryData = False\n" + std::string(kMetaShort), "BinaryData"}};
  for (const auto& [fields, reason] : cases) {
    ExpectRefused(WriteMeta(fields, voxels), absl::StatusCode::kInvalidArgument, reason);
  }
  for (const std::string fields :
       {"NDims = 2\nDimSize = 4 6\n", "NDims = 4\nDimSize = 2 3 2 2\n"}) {
    WriteBytes(folder_ / "v.mha", fields +
                                      "BinaryData = True\nElementType = MET_SHORT\n"
                                      "ElementDataFile = LOCAL\n" +
                                      voxels);
    ExpectRefused(folder_ / "v.mha", absl::StatusCode::kInvalidArgument, "a volume is 3D");
  }
}

TEST_F(ImageFile, MetaImageListsOfFilesAreRefused) {
  for (const std::string list : {"LIST\na.raw\nb.raw", "slice%03d.raw 1 2 1"}) {
    WriteBytes(folder_ / "v.mhd",
               std::string("NDims = 3\n") + kMetaShort + "ElementDataFile = " + list + "\n");
    ExpectRefused(folder_ / "v.mhd", absl::StatusCode::kInvalidArgument, "one file a slice");
  }
}

TEST_F(ImageFile, MhdWithoutItsVoxelsIsNotFound) {
  WriteBytes(folder_ / "v.mhd", std::string("NDims = 3\n") + "BinaryData = True\n" + kMetaShort +
                                    "ElementDataFile = gone.raw\n");
  ExpectRefused(folder_ / "v.mhd", absl::StatusCode::kNotFound, "gone.raw");
}

TEST_F(ImageFile, CorruptCompressedMetaImageIsDataLoss) {
  const Volume volume = Filled<int16_t>(GridOf({16, 16, 16}), Scrambled);
  const std::string deflated =
      Deflated(std::string(reinterpret_cast<const char*>(volume.bytes()), volume.byte_count()));
  const std::string fields = "CompressedData = True\nDimSize = 16 16 16\nElementType = MET_SHORT\n";
  std::string bytes = deflated;
  for (size_t i = bytes.size() / 2; i < bytes.size() / 2 + 64; ++i) bytes[i] = '\xff';
  ExpectRefused(WriteMeta(fields, bytes), absl::StatusCode::kDataLoss, "corrupt");
  bytes = deflated;
  bytes.back() ^= 1;  // the checksum alone
  ExpectRefused(WriteMeta(fields, bytes), absl::StatusCode::kDataLoss, "corrupt");
  ExpectRefused(WriteMeta(fields, deflated.substr(0, deflated.size() - 2)),
                absl::StatusCode::kDataLoss, "break off");
  ExpectRefused(WriteMeta(fields, Deflated(std::string(9000, '\0'))),
                absl::StatusCode::kInvalidArgument, "beyond what the header promises");
  // A size that no machine has is not believed.
  EXPECT_EQ(Read(WriteMeta("CompressedDataSize = 9000000000000000000\n" + fields, deflated))
                .voxel_count(),
            4096);
}

TEST_F(ImageFile, ErrorsOfMetaIoStayOffTheTerminal) {
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(ReadVolume(WriteMeta("DimSize = 4\n", "")).ok());
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

// Writing aside.

TEST_F(ImageFile, AWriteThatBreaksOffLeavesTheOldFileAndNothingElse) {
  const Volume old_volume = Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled);
  const Volume new_volume = Filled<float>(
      GridOf({64, 64, 64}), [](auto x, auto y, auto z) { return 1e-3 * Scrambled(x, y, z); });
  for (const std::string& extension : kExtensions) {
    SCOPED_TRACE(extension);
    const TemporaryFolder folder;
    const std::string path = folder / ("volume" + extension);
    ASSERT_TRUE(WriteVolume(old_volume, path).ok());
    const auto files = [&] {
      return std::distance(std::filesystem::directory_iterator(folder.path()), {});
    };
    const auto before = files();
    // As on a full disk: no file may grow beyond 100 kB.
    const auto handler = signal(SIGXFSZ, SIG_IGN);
    rlimit limit = {};
    getrlimit(RLIMIT_FSIZE, &limit);
    const rlimit small = {100000, limit.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    const absl::Status status = WriteVolume(new_volume, path);
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, handler);

    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(ReasonOf(status), "DISK_FULL");
    EXPECT_EQ(files(), before);
    EXPECT_EQ(VoxelsOf<uint8_t>(Read(path)), VoxelsOf<uint8_t>(old_volume));
  }
}

TEST_F(ImageFile, AFileIsReplacedAsAWholeUnderOneThatReadsIt) {
  const std::string path = folder_ / "volume.nii";
  ASSERT_TRUE(WriteVolume(Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled), path).ok());
  std::ifstream reader(path, std::ios::binary);
  ASSERT_TRUE(WriteVolume(Filled<uint8_t>(GridOf({8, 8, 8}), Scrambled), path).ok());
  const std::string seen{std::istreambuf_iterator<char>(reader), {}};
  EXPECT_EQ(seen.size(), size_t{352 + 64});  // the old one to its end
  EXPECT_EQ(Read(path).voxel_count(), 512);
}

TEST_F(ImageFile, TheLongestNameOfAFileIsWritten) {
  for (const std::string& extension : kExtensions) {
    const std::string path = folder_ / (std::string(255 - extension.size(), 'n') + extension);
    const absl::Status status = WriteVolume(Filled<uint8_t>(GridOf({4, 4, 4}), Scrambled), path);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(Read(path).voxel_count(), 64);
  }
}

// Real files; the expected numbers are nibabel's and numpy's.

class RealFile : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* set = getenv("GVSL_TEST_DATA");
    folder_ = std::string(set != nullptr ? set : GVSL_TEST_DATA_DEFAULT) + "/volumes/";
    if (!std::filesystem::is_directory(folder_)) {
      GTEST_SKIP() << "no real images at " << folder_ << " (set GVSL_TEST_DATA)";
    }
  }
  static std::string HashOf(const Volume& volume) {
    return Sha256Of(volume.bytes(), volume.byte_count());
  }
  std::string folder_;
};

TEST_F(RealFile, CtInRasAxesBySform) {
  const Volume ct = Read(folder_ + "totalsegmentator_abdomen/ct_crop30.nii.gz");
  Grid expected =
      GridOf({122, 101, 30}, {3, 3, 3}, {177.95632934570312, -11.319000244140625, 94.3017578125});
  expected.direction = {{{-1, 0, 0}, {0, -1, 0}, {0, 0, 1}}};
  ExpectSameLattice(ct.grid(), expected, 0);
  EXPECT_EQ(ct.type(), VoxelType::kInt16);
  EXPECT_EQ(HashOf(ct), "d46fabdda64cab23afd3eee9d16f527d0531ce53b377d7de040603b9e991c77b");
}

TEST_F(RealFile, MrInLpsAxesBySform) {
  const Volume mr = Read(folder_ + "totalsegmentator_abdomen/mr_crop20.nii.gz");
  ExpectSameLattice(mr.grid(),
                    GridOf({117, 91, 20}, {3, 3, 3},
                           {-168.59963989257812, -166.35943603515625, 28.989641189575195}),
                    0);
  EXPECT_EQ(HashOf(mr), "106a917e27ebae44425365b5b97b14c710262478b3e93f4099ab5a66f7f20e1f");
}

TEST_F(RealFile, ImageBySformAndItsLabelsByQformLieTogether) {
  const std::string folder = folder_ + "fetal_brain_t2_cc0/fetal_SB_atlas_GA24_notoperated/";
  const Volume image = Read(folder + "srr.nii.gz");
  const Volume labels = Read(folder + "parcellation.nii.gz", VolumeKind::kLabels);
  EXPECT_EQ(HashOf(image), "93453322754e337ce598b310ebd7b8ee5d24933e07febc5e4f117666d774c42c");
  EXPECT_EQ(HashOf(labels), "56be831f5d3bf69cd2e7b45969f8c18fd239b4fd56f93b76497e770d2197a5b4");
  EXPECT_EQ(image.type(), VoxelType::kFloat32);
  EXPECT_EQ(labels.type(), VoxelType::kUint16);
  EXPECT_NEAR(image.grid().origin_mm[0], 53.59993362426758, 1e-12);
  ExpectSameLattice(image.grid(), labels.grid(), 1e-6);  // float32 of two ways of saying it
}

TEST_F(RealFile, CompressedMetaImageOfALung) {
  const Volume lung = Read(folder_ + "elastix_lung_ct/3DCT_lung.mha");
  ExpectSameLattice(lung.grid(),
                    GridOf({115, 157, 129}, {1.366, 1.366, 2.5}, {-153.827, -150.352, -1434.5}), 0);
  EXPECT_EQ(lung.type(), VoxelType::kInt16);
  EXPECT_EQ(HashOf(lung), "9e693bb4e62fda72a33d50e6d0c3695a55a4e754b6eacff4b15e0d220dc399c6");
}

}  // namespace
}  // namespace gvsl
