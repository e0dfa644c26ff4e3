// Public series against what independent programs made of them: expected.json (pydicom and GDCM),
// reference NIfTI files, and dcm2niix run here.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "imaging/sha256.h"
#include "ingest/series_testing.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

using nlohmann::json;

// expected.json has 1e-3 mm in its lists and full precision in its corners.
constexpr double kGeometryMm = 1e-4;

std::string FloatDigest(const Volume& volume) {
  Sha256 hash;
  for (int64_t i = 0; i < volume.voxel_count(); ++i) {
    const float value = static_cast<float>(ValueAt(volume, i));
    hash.Update(&value, sizeof(value));
  }
  return hash.Finish();
}

Vec3 Vector(const json& values) { return {values[0], values[1], values[2]}; }

class SeriesReferenceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    data_ = DicomDataFolder();
    if (data_.empty()) GTEST_SKIP() << "no public series (set GVSL_TEST_DATA)";
  }
  std::string DicomOf(const std::string& name) const { return data_ + "/" + name + "/dicom"; }
  json Expected(const std::string& path) const {
    std::ifstream file(data_ + "/" + path);
    EXPECT_TRUE(file.good()) << path;
    return json::parse(file, nullptr, false);
  }
  std::string data_;
};

// A series whose slices are taken as they are.
void ExpectAsExpected(const SeriesVolume& made, const json& series) {
  const Grid& grid = made.volume.grid();
  EXPECT_FALSE(made.geometry.resampled);
  EXPECT_EQ(grid.size[0], series["volume_shape_zyx"][2].get<int64_t>());
  EXPECT_EQ(grid.size[1], series["volume_shape_zyx"][1].get<int64_t>());
  EXPECT_EQ(grid.size[2], series["volume_shape_zyx"][0].get<int64_t>());
  EXPECT_NEAR(grid.spacing_mm[1], series["pixel_spacing_row_col"][0].get<double>(), 1e-9);
  EXPECT_NEAR(grid.spacing_mm[0], series["pixel_spacing_row_col"][1].get<double>(), 1e-9);
  const Vec3 row = Vector(series["row_cosines"]), column = Vector(series["col_cosines"]);
  // The lists may begin at either end: ours go along rows x columns.
  Vec3 first = Vector(series["first_ipp_lps"]), last = Vector(series["last_ipp_lps"]);
  if (Dot(last - first, Cross(row, column)) < 0) std::swap(first, last);
  const Vec3 end = grid.IndexToPhysical({0, 0, static_cast<double>(grid.size[2] - 1)});
  for (int axis = 0; axis < 3; ++axis) {
    EXPECT_NEAR(grid.origin_mm[axis], first[axis], kGeometryMm);
    EXPECT_NEAR(end[axis], last[axis], kGeometryMm);
    // Cosines are written with six digits, and are orthonormalised here.
    EXPECT_NEAR(grid.direction[axis][0], row[axis], 1e-5);
    EXPECT_NEAR(grid.direction[axis][1], column[axis], 1e-5);
  }
  // An arc cosine of six digits, there: rounding alone makes 0.05 degrees of it.
  EXPECT_NEAR(made.geometry.tilt_degrees, series["shear_angle_deg"].get<double>(), 0.05);
  EXPECT_EQ(made.volume.modality(), series["Modality"].get<std::string>());
  EXPECT_EQ(FloatDigest(made.volume), series["sha256_f32_zyx"].get<std::string>());
  EXPECT_EQ(made.slices.size(), static_cast<size_t>(grid.size[2]));
}

TEST_F(SeriesReferenceTest, RegularSeriesHaveTheExpectedGeometryAndVoxels) {
  for (const char* name :
       {"d2n_mr_ge_signed_oblique", "d2n_mr_hitachi_oblique_real", "d2n_mr_j2k", "d2n_mr_jpeg",
        "d2n_mr_jpegls", "d2n_mr_philips_cor", "d2n_mr_philips_enhanced", "d2n_mr_raw_explicit",
        "d2n_mr_rle", "d2n_mr_siemens", "d2n_mr_two_slices", "mr_hippocampus_crop",
        "mr_siemens_prisma_t1_HFDL_jpegls", "mr_siemens_prisma_t1_HFS_raw"}) {
    SCOPED_TRACE(name);
    const Converted converted = ConvertFolder(DicomOf(name));
    ASSERT_EQ(converted.volumes.size(), 1u) << converted.ledger.at(0).detail;
    EXPECT_EQ(converted.Count(Verdict::kUsed), static_cast<int>(converted.ledger.size()));
    ExpectAsExpected(converted.volumes[0],
                     Expected(std::string(name) + "/expected.json")["series"][0]);
  }
}

TEST_F(SeriesReferenceTest, SlicesAreNamedByTheirInstancesInOrder) {
  const Converted converted = ConvertFolder(DicomOf("d2n_mr_siemens"));
  ASSERT_EQ(converted.volumes.size(), 1u);
  const json expected = Expected("d2n_mr_siemens/expected.json")["series"][0];
  ASSERT_EQ(converted.volumes[0].slices.size(), 4u);
  for (int slice = 0; slice < 4; ++slice) {
    EXPECT_EQ(converted.volumes[0].slices[slice].sop_instance_uid,
              converted.Of(expected["file_order"][slice]).sop_instance_uid);
  }
}

TEST_F(SeriesReferenceTest, ReferenceFilesHaveTheSameVoxelsInTheSamePlaces) {
  struct Case {
    const char* name;
    const char* reference;
    double tolerance_mm;
  };
  // The affines are stored in single precision (1e-5 mm at 100 mm); those written by dcm2niix are
  // built from the slice thickness and come out up to 2e-4 mm long over the 35 slices.
  for (const Case& c : {Case{"d2n_mr_ge_signed_oblique", "001_ground_truth", 1e-3},
                        Case{"d2n_mr_hitachi_oblique_real", "001_ground_truth", 1e-3},
                        Case{"d2n_mr_j2k", "001_ground_truth", 1e-3},
                        Case{"d2n_mr_philips_cor", "001_ground_truth", 1e-3},
                        Case{"d2n_mr_philips_enhanced", "001_ground_truth", 1e-3},
                        Case{"d2n_mr_raw_explicit", "001_ground_truth", 1e-3},
                        Case{"d2n_mr_siemens", "001_ground_truth", 1e-3},
                        Case{"mr_siemens_prisma_t1_HFDL_jpegls", "dcm2niix", 1e-3},
                        Case{"mr_siemens_prisma_t1_HFS_raw", "dcm2niix", 1e-3}}) {
    SCOPED_TRACE(c.name);
    const Converted converted = ConvertFolder(DicomOf(c.name));
    ASSERT_EQ(converted.volumes.size(), 1u);
    const NiftiReference reference =
        ReadReference(data_ + "/" + c.name + "/ref/" + c.reference + ".nii.gz");
    // Values are integers, or float32 on both sides, one of them after scaling in single precision.
    ExpectSameImage(converted.volumes[0].volume, reference, 0, c.tolerance_mm, 1e-3);
  }
}

TEST_F(SeriesReferenceTest, MosaicIsOneVolumeATimePoint) {
  const Converted converted = ConvertFolder(DicomOf("mr_siemens_skyra_mosaic"));
  ASSERT_EQ(converted.volumes.size(), 2u);
  const NiftiReference reference =
      ReadReference(data_ + "/mr_siemens_skyra_mosaic/ref/upstream.nii.gz");
  for (int time = 0; time < 2; ++time) {
    EXPECT_EQ(converted.volumes[time].label, "acquisition " + std::to_string(time + 1));
    ExpectSameImage(converted.volumes[time].volume, reference, time, 1e-3, 0);
  }
}

// What lies above the twelve stored bits is garbage in these, and two of them are signed or not.
TEST_F(SeriesReferenceTest, TwelveBitMosaicsAreMaskedAndSignExtended) {
  struct Case {
    const char* file;
    const char* reference;
  };
  for (const Case& c : {Case{"12bitUnsigned", "2"}, Case{"12bitUnsigned_0x0F0F", "3"},
                        Case{"12bitSigned_0x0F0F", "4"}}) {
    SCOPED_TRACE(c.file);
    const Converted converted =
        ConvertFiles({DicomOf("mr_siemens_12bit_signed_mosaic") + "/" + c.file + ".dcm"});
    ASSERT_EQ(converted.volumes.size(), 1u) << converted.ledger.at(0).detail;
    const NiftiReference reference =
        ReadReference(data_ + "/mr_siemens_12bit_signed_mosaic/ref/" + c.reference + ".nii.gz");
    ExpectSameImage(converted.volumes[0].volume, reference, 0, 1e-3, 0);
  }
}

TEST_F(SeriesReferenceTest, TimeSeriesIsSplitIntoItsVolumes) {
  const Converted converted = ConvertFolder(DicomOf("d2n_mr_ge_fmri_4d"));
  const json series = Expected("d2n_mr_ge_fmri_4d/expected.json")["series"][0];
  ASSERT_EQ(converted.volumes.size(), 2u);
  EXPECT_EQ(converted.Count(Verdict::kUsed), 8);
  for (const SeriesVolume& made : converted.volumes) {
    EXPECT_EQ(made.volume.grid().size, (std::array<int64_t, 3>{64, 64, 4}));
    for (int axis = 0; axis < 3; ++axis) {
      EXPECT_NEAR(made.volume.grid().origin_mm[axis], Vector(series["first_ipp_lps"])[axis],
                  kGeometryMm);
    }
    EXPECT_NEAR(made.volume.grid().spacing_mm[2], 3.6, kGeometryMm);
  }
  EXPECT_NE(FloatDigest(converted.volumes[0].volume), FloatDigest(converted.volumes[1].volume));
}

TEST_F(SeriesReferenceTest, OrientationsAreNeverMixed) {
  const Converted converted = ConvertFolder(DicomOf("d2n_mr_mixed_orientation"));
  ASSERT_EQ(converted.volumes.size(), 2u);
  EXPECT_EQ(converted.Count(Verdict::kUsed), 4);
  const auto column_axis = [&](int volume) {
    const Mat3& direction = converted.volumes[volume].volume.grid().direction;
    return Vec3{direction[0][0], direction[1][0], direction[2][0]};
  };
  EXPECT_LT(std::abs(Dot(column_axis(0), column_axis(1))), 0.1);
}

TEST_F(SeriesReferenceTest, MissingSliceIsRefusedWithItsPlace) {
  const Converted converted = ConvertFolder(DicomOf("d2n_ct_ge_missing_slice"));
  EXPECT_TRUE(converted.volumes.empty());
  EXPECT_EQ(converted.Count(Verdict::kGap), 4);
  EXPECT_TRUE(Contains(converted.ledger[0].detail, "28.11")) << converted.ledger[0].detail;
  EXPECT_TRUE(Contains(converted.ledger[0].detail, "38.11")) << converted.ledger[0].detail;
}

// Noise, so the test looks at geometry and at the values of whole shifts.
TEST_F(SeriesReferenceTest, TiltedGantryIsShearedIntoAGridAlongTheNormal) {
  const Converted converted = ConvertFolder(DicomOf("d2n_ct_siemens_gantry_tilt"));
  ASSERT_EQ(converted.volumes.size(), 1u);
  const SeriesVolume& made = converted.volumes[0];
  const json series = Expected("d2n_ct_siemens_gantry_tilt/expected.json")["series"][0];
  EXPECT_TRUE(made.geometry.resampled);
  EXPECT_NEAR(made.geometry.tilt_degrees, series["shear_angle_deg"].get<double>(), 2e-3);
  const Grid& grid = made.volume.grid();
  EXPECT_EQ(grid.size[0], 512);
  EXPECT_EQ(grid.size[2], 4);
  // 15 mm along the table at 14 degrees: 3.63 mm across, 8.7 pixels.
  EXPECT_EQ(grid.size[1], 512 + 9);
  EXPECT_NEAR(grid.spacing_mm[2], 5 * std::cos(14 * M_PI / 180), 1e-3);
  // The first slice of the stack is where its header says, pixel for pixel.
  const Vec3 first = grid.PhysicalToIndex(Vector(series["first_ipp_lps"]));
  EXPECT_NEAR(first[2], 0, 1e-4);
  EXPECT_NEAR(first[1], std::round(first[1]), 1e-4);
}

TEST_F(SeriesReferenceTest, TiltAndUnevenSpacingBecomeARegularGrid) {
  const Converted converted = ConvertFolder(DicomOf("ct_ge_tilt_varspacing_jpegls"));
  ASSERT_EQ(converted.volumes.size(), 1u) << converted.ledger[0].detail;
  const SeriesVolume& made = converted.volumes[0];
  const json series = Expected("ct_ge_tilt_varspacing_jpegls/expected.json")["series"][0];
  EXPECT_EQ(converted.Count(Verdict::kUsed), 28);
  EXPECT_TRUE(made.geometry.resampled);
  EXPECT_NEAR(made.geometry.tilt_degrees, 18.5, 1e-2);
  EXPECT_NEAR(made.geometry.min_step_mm, series["slice_spacing_min_max_mm"][0].get<double>(), 2e-3);
  EXPECT_NEAR(made.geometry.max_step_mm, series["slice_spacing_min_max_mm"][1].get<double>(), 2e-3);
  // The finer of its two zones: 4 mm slices, 4.22 mm apart along the table.
  const Grid& grid = made.volume.grid();
  EXPECT_NEAR(grid.spacing_mm[2], 4.22 * std::cos(18.5 * M_PI / 180), 1e-3);
  EXPECT_EQ(made.volume.modality(), "CT");
  // A head: its brain lies at 0 to 80 HU. Air is what surrounds it.
  int64_t brain = 0, air = 0;
  for (int64_t i = 0; i < made.volume.voxel_count(); ++i) {
    const double value = ValueAt(made.volume, i);
    brain += value > 0 && value < 80;
    air += value <= -900;
    ASSERT_GE(value, -1024);
  }
  EXPECT_GT(brain, made.volume.voxel_count() / 20);
  EXPECT_GT(air, made.volume.voxel_count() / 4);
}

TEST_F(SeriesReferenceTest, SlicesWithoutCompanionsAreNoVolumes) {
  const Converted converted = ConvertFolder(DicomOf("ct_mixed_axial_coronal_sagittal_series"));
  EXPECT_TRUE(converted.volumes.empty());
  EXPECT_EQ(converted.Count(Verdict::kSingleSlice), 4);
}

TEST_F(SeriesReferenceTest, ColourIsRefused) {
  const Converted converted = ConvertFolder(DicomOf("d2n_mr_rgb_j2k_reject"));
  EXPECT_TRUE(converted.volumes.empty());
  EXPECT_EQ(converted.Count(Verdict::kColour), 4);
}

// The same files through dcm2niix, as Debian has it.
TEST_F(SeriesReferenceTest, Dcm2niixMakesTheSameVolumes) {
  if (std::system("command -v dcm2niix >/dev/null") != 0) GTEST_SKIP() << "dcm2niix is not there";
  for (const char* name :
       {"d2n_mr_ge_signed_oblique", "d2n_mr_hitachi_oblique_real", "d2n_mr_j2k", "d2n_mr_jpeg",
        "d2n_mr_philips_cor", "d2n_mr_philips_enhanced", "d2n_mr_raw_explicit", "d2n_mr_rle",
        "d2n_mr_siemens", "mr_hippocampus_crop", "mr_siemens_prisma_t1_HFS_raw"}) {
    SCOPED_TRACE(name);
    const TemporaryFolder output;
    // -p n: by RescaleSlope, as here; its default takes Philips' private scale instead.
    const std::string command = "dcm2niix -p n -b n -z n -f out -o '" + output.path() + "' '" +
                                DicomOf(name) + "' >'" + (output / "log") + "' 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0);
    const Converted converted = ConvertFolder(DicomOf(name));
    ASSERT_EQ(converted.volumes.size(), 1u);
    ExpectSameImage(converted.volumes[0].volume, ReadReference(output / "out.nii"), 0, 1e-3, 1e-3);
  }
}

}  // namespace
}  // namespace gvsl
