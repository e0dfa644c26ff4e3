#include "ingest/dicom_series_writer.h"

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmdata/dctk.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "imaging/phantom.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

// A folder that goes with the test.
class DicomSeriesWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() /
              ("gvsl-" + std::string(test->name()) + "-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  fs::path folder_;
};

DicomSeriesOptions Options() {
  DicomSeriesOptions options;
  options.uid_seed = "a test";
  options.patient_id = "P1";
  options.patient_name = "M\xC3\xBCller^Ada";
  options.study_description = "study";
  options.series_description = "series";
  return options;
}

Grid SmallGrid() {
  Grid grid;
  grid.size = {5, 4, 3};
  grid.spacing_mm = {0.7, 0.8125, 2.5};
  grid.origin_mm = {-101.25, 12.125, -812.0625};
  return grid;
}

// int16 voxels 37 * i + first.
Volume Ramp(const Grid& grid, int first) {
  absl::StatusOr<Volume> volume = Volume::Allocate(grid, VoxelType::kInt16, VolumeKind::kImage);
  EXPECT_TRUE(volume.ok()) << volume.status();
  for (int64_t i = 0; i < volume->voxel_count(); ++i) {
    volume->mutable_voxels<int16_t>()[i] = static_cast<int16_t>(first + 37 * i);
  }
  return *std::move(volume);
}

// One instance as an independent reader sees it.
struct Instance {
  DcmFileFormat file;

  explicit Instance(const fs::path& path) {
    const OFCondition loaded = file.loadFile(OFFilename(path.c_str()));
    EXPECT_TRUE(loaded.good()) << path << ": " << loaded.text();
  }
  std::string Text(const DcmTagKey& key) {
    OFString value;
    EXPECT_TRUE(file.getDataset()->findAndGetOFStringArray(key, value).good()) << key.toString();
    return value.c_str();
  }
  double Number(const DcmTagKey& key, unsigned long position = 0) {
    Float64 value = std::nan("");
    EXPECT_TRUE(file.getDataset()->findAndGetFloat64(key, value, position).good())
        << key.toString();
    return value;
  }
  int Unsigned(const DcmTagKey& key) {
    Uint16 value = 0;
    EXPECT_TRUE(file.getDataset()->findAndGetUint16(key, value).good()) << key.toString();
    return value;
  }
  // Rescaled pixels.
  std::vector<double> Values() {
    const Uint16* stored = nullptr;
    unsigned long count = 0;
    EXPECT_TRUE(file.getDataset()->findAndGetUint16Array(DCM_PixelData, stored, &count).good());
    const bool is_signed = Unsigned(DCM_PixelRepresentation) == 1;
    std::vector<double> values;
    for (unsigned long i = 0; i < count; ++i) {
      const double pixel = is_signed ? static_cast<int16_t>(stored[i]) : stored[i];
      values.push_back(pixel * Number(DCM_RescaleSlope) + Number(DCM_RescaleIntercept));
    }
    return values;
  }
};

TEST_F(DicomSeriesWriterTest, PhantomComesBackWithItsGeometryAndHounsfieldUnits) {
  PhantomOptions phantom_options;
  phantom_options.size = {40, 36, 12};
  phantom_options.spacing_mm = {5.9, 6.3, 17.3};
  const absl::StatusOr<Phantom> phantom = MakePhantom(phantom_options);
  ASSERT_TRUE(phantom.ok()) << phantom.status();
  const Volume& image = phantom->image;

  const absl::Status written = WriteDicomSeries(image, Options(), folder_.string());

  ASSERT_TRUE(written.ok()) << written;
  const std::vector<fs::path> files = Files();
  ASSERT_EQ(files.size(), 12u);
  double last_z = -1e9;
  for (int64_t slice = 0; slice < 12; ++slice) {
    Instance instance(files[slice]);
    EXPECT_EQ(instance.Text(DCM_InstanceNumber), std::to_string(slice + 1));
    const Vec3 position = image.grid().IndexToPhysical({0, 0, static_cast<double>(slice)});
    for (int axis = 0; axis < 3; ++axis) {
      // Sixteen characters hold 12 digits after the point here.
      EXPECT_NEAR(instance.Number(DCM_ImagePositionPatient, axis), position[axis], 1e-9);
    }
    EXPECT_GT(instance.Number(DCM_ImagePositionPatient, 2), last_z);
    last_z = instance.Number(DCM_ImagePositionPatient, 2);
    EXPECT_EQ(instance.Number(DCM_PixelSpacing, 0), 6.3);  // between rows first
    EXPECT_EQ(instance.Number(DCM_PixelSpacing, 1), 5.9);
    EXPECT_EQ(instance.Number(DCM_SliceThickness), 17.3);
    EXPECT_EQ(instance.Text(DCM_ImageOrientationPatient), "1\\0\\0\\0\\1\\0");
    EXPECT_EQ(instance.Unsigned(DCM_Rows), 36);
    EXPECT_EQ(instance.Unsigned(DCM_Columns), 40);
    const std::vector<double> values = instance.Values();
    ASSERT_EQ(values.size(), 40u * 36u);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], image.voxels<int16_t>()[slice * 40 * 36 + i]) << slice << ", " << i;
    }
  }
}

TEST_F(DicomSeriesWriterTest, EveryRequiredAttributeOfACtImageIsThere) {
  ASSERT_TRUE(WriteDicomSeries(Ramp(SmallGrid(), 0), Options(), folder_.string()).ok());
  for (const fs::path& path : Files()) {
    Instance instance(path);
    DcmDataset* dataset = instance.file.getDataset();
    // PS3.3 table A.3-1: type 1 has a value, type 2 is present.
    for (const DcmTagKey& key : {DCM_SpecificCharacterSet,
                                 DCM_SOPClassUID,
                                 DCM_SOPInstanceUID,
                                 DCM_StudyInstanceUID,
                                 DCM_Modality,
                                 DCM_SeriesInstanceUID,
                                 DCM_FrameOfReferenceUID,
                                 DCM_PixelSpacing,
                                 DCM_ImageOrientationPatient,
                                 DCM_ImagePositionPatient,
                                 DCM_SamplesPerPixel,
                                 DCM_PhotometricInterpretation,
                                 DCM_Rows,
                                 DCM_Columns,
                                 DCM_BitsAllocated,
                                 DCM_BitsStored,
                                 DCM_HighBit,
                                 DCM_PixelRepresentation,
                                 DCM_PixelData,
                                 DCM_ImageType,
                                 DCM_RescaleIntercept,
                                 DCM_RescaleSlope}) {
      EXPECT_TRUE(dataset->tagExistsWithValue(key)) << key.toString();
    }
    for (const DcmTagKey& key :
         {DCM_PatientName, DCM_PatientID, DCM_PatientBirthDate, DCM_PatientSex, DCM_StudyDate,
          DCM_StudyTime, DCM_ReferringPhysicianName, DCM_StudyID, DCM_AccessionNumber,
          DCM_SeriesNumber, DCM_PatientPosition, DCM_PositionReferenceIndicator, DCM_Manufacturer,
          DCM_InstanceNumber, DCM_SliceThickness, DCM_KVP, DCM_AcquisitionNumber}) {
      EXPECT_TRUE(dataset->tagExists(key)) << key.toString();
    }
    EXPECT_EQ(instance.Text(DCM_SOPClassUID), UID_CTImageStorage);
    OFString media_class, media_instance, syntax;
    DcmMetaInfo* meta = instance.file.getMetaInfo();
    meta->findAndGetOFString(DCM_MediaStorageSOPClassUID, media_class);
    meta->findAndGetOFString(DCM_MediaStorageSOPInstanceUID, media_instance);
    meta->findAndGetOFString(DCM_TransferSyntaxUID, syntax);
    EXPECT_EQ(media_class, UID_CTImageStorage);
    EXPECT_EQ(std::string(media_instance.c_str()), instance.Text(DCM_SOPInstanceUID));
    EXPECT_EQ(syntax, UID_LittleEndianExplicitTransferSyntax);
    EXPECT_EQ(instance.Text(DCM_PatientName), "M\xC3\xBCller^Ada");
    EXPECT_EQ(instance.Text(DCM_PatientID), "P1");
    // Every value is legal for its VR and multiplicity, in DCMTK's judgement.
    for (DcmObject* object = dataset->nextInContainer(nullptr); object != nullptr;
         object = dataset->nextInContainer(object)) {
      auto* element = static_cast<DcmElement*>(object);
      EXPECT_TRUE(element->checkValue("1-n", OFTrue).good() || element->isEmpty() ||
                  element->getTag() == DCM_PixelData)
          << element->getTag().toString();
    }
  }
}

TEST_F(DicomSeriesWriterTest, UidsAreOneStudyAndDeterministic) {
  const Volume volume = Ramp(SmallGrid(), 0);
  std::set<std::string> studies, series, frames, instances;
  const auto collect = [&](const DicomSeriesOptions& options) {
    ASSERT_TRUE(WriteDicomSeries(volume, options, folder_.string()).ok());
    for (const fs::path& path : Files()) {
      Instance instance(path);
      studies.insert(instance.Text(DCM_StudyInstanceUID));
      series.insert(instance.Text(DCM_SeriesInstanceUID));
      frames.insert(instance.Text(DCM_FrameOfReferenceUID));
      instances.insert(instance.Text(DCM_SOPInstanceUID));
    }
  };
  collect(Options());
  collect(Options());
  EXPECT_EQ(studies.size(), 1u);
  EXPECT_EQ(series.size(), 1u);
  EXPECT_EQ(frames.size(), 1u);
  EXPECT_EQ(instances.size(), 3u);
  DicomSeriesOptions other = Options();
  other.uid_seed = "another test";
  collect(other);
  EXPECT_EQ(studies.size(), 2u);
  EXPECT_EQ(instances.size(), 6u);
}

TEST_F(DicomSeriesWriterTest, StoresWhatTwelveBitsCannotHoldInSixteen) {
  struct Case {
    int first;  // the ramp is 59 * 37 = 2183 long
    int bits, is_signed;
  };
  for (const Case& c : {Case{-1024, 12, 0}, Case{3071 - 2183, 12, 0}, Case{3072 - 2183, 16, 0},
                        Case{30000, 16, 0}, Case{-1025, 16, 1}, Case{-32768, 16, 1}}) {
    const Volume volume = Ramp(SmallGrid(), c.first);
    ASSERT_TRUE(WriteDicomSeries(volume, Options(), folder_.string()).ok());
    const std::vector<fs::path> files = Files();
    for (size_t slice = 0; slice < files.size(); ++slice) {
      Instance instance(files[slice]);
      EXPECT_EQ(instance.Unsigned(DCM_BitsStored), c.bits);
      EXPECT_EQ(instance.Unsigned(DCM_HighBit), c.bits - 1);
      EXPECT_EQ(instance.Unsigned(DCM_PixelRepresentation), c.is_signed);
      const std::vector<double> values = instance.Values();
      for (size_t i = 0; i < values.size(); ++i) {
        EXPECT_EQ(values[i], volume.voxels<int16_t>()[slice * 20 + i]) << "from " << c.first;
      }
    }
  }
}

TEST_F(DicomSeriesWriterTest, ObliqueAndLeftHandedGridsKeepTheirPlaces) {
  Grid grid = SmallGrid();
  // Columns run to the front, rows up, slices to the right; the normal (rows x columns) is the
  // left.
  grid.direction = {{{0, 0, -1}, {-0.8, 0.6, 0}, {0.6, 0.8, 0}}};
  ASSERT_TRUE(ValidateGrid(grid).ok());
  const Volume volume = Ramp(grid, 0);
  ASSERT_TRUE(WriteDicomSeries(volume, Options(), folder_.string()).ok());
  const std::vector<fs::path> files = Files();
  ASSERT_EQ(files.size(), 3u);
  double last_along_normal = -1e9;
  for (size_t file = 0; file < 3; ++file) {
    Instance instance(files[file]);
    Vec3 row, column, position;
    for (int axis = 0; axis < 3; ++axis) {
      row[axis] = instance.Number(DCM_ImageOrientationPatient, axis);
      column[axis] = instance.Number(DCM_ImageOrientationPatient, 3 + axis);
      position[axis] = instance.Number(DCM_ImagePositionPatient, axis);
    }
    EXPECT_EQ(row, (Vec3{0, -0.8, 0.6}));
    EXPECT_EQ(column, (Vec3{0, 0.6, 0.8}));
    const Vec3 normal = {row[1] * column[2] - row[2] * column[1],
                         row[2] * column[0] - row[0] * column[2],
                         row[0] * column[1] - row[1] * column[0]};
    const double along =
        normal[0] * position[0] + normal[1] * position[1] + normal[2] * position[2];
    EXPECT_GT(along, last_along_normal);
    last_along_normal = along;
    // The pixels lie where the volume has them.
    const Vec3 index = grid.PhysicalToIndex(position);
    const int64_t slice = std::llround(index[2]);
    EXPECT_NEAR(index[2], static_cast<double>(slice), 1e-9);
    EXPECT_EQ(instance.Values()[0], volume.voxels<int16_t>()[slice * 20]);
  }
}

TEST_F(DicomSeriesWriterTest, RefusesWhatACtImageCannotHold) {
  const auto code = [&](const Volume& volume, const DicomSeriesOptions& options) {
    return WriteDicomSeries(volume, options, folder_.string()).code();
  };
  absl::StatusOr<Volume> labels =
      Volume::Allocate(SmallGrid(), VoxelType::kUint8, VolumeKind::kLabels);
  absl::StatusOr<Volume> real =
      Volume::Allocate(SmallGrid(), VoxelType::kFloat32, VolumeKind::kImage);
  absl::StatusOr<Volume> wide =
      Volume::Allocate(SmallGrid(), VoxelType::kInt32, VolumeKind::kImage);
  ASSERT_TRUE(labels.ok() && real.ok() && wide.ok());
  wide->mutable_voxels<int32_t>()[7] = 70000;
  EXPECT_EQ(code(*labels, Options()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(*real, Options()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(*wide, Options()), absl::StatusCode::kInvalidArgument);
  const Volume volume = Ramp(SmallGrid(), 0);
  DicomSeriesOptions options = Options();
  options.uid_seed = "";
  EXPECT_EQ(code(volume, options), absl::StatusCode::kInvalidArgument);
  options = Options();
  options.patient_id = "two\\values";
  EXPECT_EQ(code(volume, options), absl::StatusCode::kInvalidArgument);
  options = Options();
  options.series_description = std::string(65, 'x');
  EXPECT_EQ(code(volume, options), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(fs::exists(folder_));  // refused before anything was written
}

TEST_F(DicomSeriesWriterTest, SaysWhichFileCouldNotBeWritten) {
  std::ofstream(folder_) << "a file where a folder should go";
  const absl::Status status =
      WriteDicomSeries(Ramp(SmallGrid(), 0), Options(), (folder_ / "series").string());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(status.message()).find(folder_.string()), std::string::npos) << status;
}

TEST_F(DicomSeriesWriterTest, LeavesNoHalfFileBehind) {
  // A folder in the way of the third file.
  fs::create_directories(folder_ / "IM00003.dcm" / "occupied");
  const absl::Status status = WriteDicomSeries(Ramp(SmallGrid(), 0), Options(), folder_.string());
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_EQ(Files().size(), 3u);  // two files and the folder
}

TEST(DecimalStringTest, HoldsTheClosestNumberOfSixteenCharacters) {
  EXPECT_EQ(DecimalString(0.7), "0.7");
  EXPECT_EQ(DecimalString(-0.0), "0");
  EXPECT_EQ(DecimalString(-1024), "-1024");
  for (const double value : {1.0 / 3, -1.0 / 3, 1e-7 / 3, -123.456789012345, 2e9 / 3, -1e-20 / 7}) {
    const std::string text = DecimalString(value);
    EXPECT_LE(text.size(), 16u) << text;
    EXPECT_NEAR(std::stod(text), value, 1e-9 * std::abs(value)) << text;
  }
}

TEST(DerivedUidTest, IsAValidUidThatDependsOnSeedAndPurpose) {
  const std::string uid = DerivedUid("seed", "study");
  EXPECT_EQ(uid, DerivedUid("seed", "study"));
  EXPECT_NE(uid, DerivedUid("seed", "series"));
  EXPECT_NE(DerivedUid("a", "bc"), DerivedUid("ab", "c"));
  EXPECT_EQ(uid.substr(0, 5), "2.25.");
  EXPECT_LE(uid.size(), 44u);
  EXPECT_TRUE(DcmUniqueIdentifier::checkStringValue(uid.c_str(), "1").good());
  EXPECT_EQ(uid.find_first_not_of("0123456789", 5), std::string::npos);
  EXPECT_NE(uid[5], '0');
}

}  // namespace
}  // namespace gvsl
