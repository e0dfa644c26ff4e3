#include "ingest/registration_object.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "imaging/volume.h"
#include "ingest/dataset_builder.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_series_writer.h"
#include "ingest/private_folder.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

constexpr double kToleranceMm = 1e-4;  // vectors of some mm, as float32

Vec3 Axis(const Mat3& m, size_t i) { return {m[0][i], m[1][i], m[2][i]}; }

class RegistrationObjectTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Grid grid;
    grid.size = {4, 4, 2};
    const auto volume = Volume::Allocate(grid, VoxelType::kInt16, VolumeKind::kImage);
    ASSERT_TRUE(WriteDicomSeries(*volume, {"a seed", "P1", "Doe^Ada"}, folder_.path()).ok());
    registration_.fixed = {DerivedUid("a seed", "study"),
                           DerivedUid("a seed", "series"),
                           "1.2.3",
                           {{UID_MRImageStorage, "1.2.3.1"}, {UID_MRImageStorage, "1.2.3.2"}}};
    registration_.moving = {
        "1.2.4", "1.2.4.1", "1.2.4.2", {{UID_EnhancedMRImageStorage, "1.2.4.3"}}};
    registration_.fixed_file = folder_.path() + "/IM00001.dcm";
    registration_.software_version = "1";
    registration_.fixed_to_moving.affine.matrix = {{{1.05, 0.1, 0}, {-0.1, 0.98, 0.02}, {0, 0, 1}}};
    registration_.fixed_to_moving.affine.translation_mm = {12, -3.5, 100};
  }

  // A field of some mm, that differs from voxel to voxel, on a lattice.
  void Bend(const Grid& grid) {
    DisplacementField& field = registration_.fixed_to_moving.displacement;
    field.grid = grid;
    for (int64_t i = 0; i < 3 * grid.voxel_count(); ++i) {
      field.values_mm.push_back(static_cast<float>(3 * std::sin(0.7 * static_cast<double>(i))));
    }
  }

  // Through a file: what it says is what was written.
  std::unique_ptr<DcmFileFormat> Written() {
    DcmFileFormat made;
    absl::Status status = FillRegistrationObject(registration_, folder_.path(), &made);
    EXPECT_TRUE(status.ok()) << status;
    const std::string path = folder_.path() + "/object.dcm";
    status = SaveDicomFile(&made, path);
    EXPECT_TRUE(status.ok()) << status;
    auto file = std::make_unique<DcmFileFormat>();
    EXPECT_TRUE(file->loadFile(OFFilename(path.c_str())).good());
    return file;
  }
  std::string Uid(const DcmTagKey& key) { return TextOf(*Written()->getDataset(), key); }

  PrivateFolder folder_;
  RegistrationToWrite registration_;
};

// Item `at` of a sequence; an empty one where it is not there.
DcmItem& Item(DcmItem& in, const DcmTagKey& key, signed long at = 0) {
  static DcmItem none;
  DcmItem* item = nullptr;
  const bool found = in.findAndGetSequenceItem(key, item, at).good();
  EXPECT_TRUE(found) << key.toString().c_str();
  return found ? *item : none;
}

AffineMap MatrixOf(DcmItem& item) {
  AffineMap map;
  for (size_t i = 0; i < 12; ++i) {
    const auto value = NumberOf(item, DCM_FrameOfReferenceTransformationMatrix, i);
    EXPECT_TRUE(value.has_value());
    (i % 4 == 3 ? map.translation_mm[i / 4] : map.matrix[i / 4][i % 4]) = value.value_or(0);
  }
  return map;
}

// Where the standard says that the centre of voxel (x, y, z) of the grid lies in the Source RCS,
// and in the Registered RCS (PS3.3 C.20.3.1.1).
std::pair<Vec3, Vec3> GridPoint(DcmItem& item, size_t x, size_t y, size_t z) {
  DcmItem& grid = Item(item, DCM_DeformableRegistrationGridSequence);
  Vec3 point = *VectorOf(grid, DCM_ImagePositionPatient);
  const Vec3 row = *VectorOf(grid, DCM_ImageOrientationPatient);
  const Vec3 column = *VectorOf(grid, DCM_ImageOrientationPatient, 3);
  const Vec3 step = *VectorOf(grid, DCM_GridResolution);
  point = point + (static_cast<double>(x) * step[0]) * row +
          (static_cast<double>(y) * step[1]) * column +
          (static_cast<double>(z) * step[2]) * Cross(row, column);
  Uint32 columns = 0, rows = 0;
  grid.findAndGetUint32(DCM_GridDimensions, columns, 0);
  grid.findAndGetUint32(DCM_GridDimensions, rows, 1);
  const Float32* vectors = nullptr;
  EXPECT_TRUE(grid.findAndGetFloat32Array(DCM_VectorGridData, vectors).good());
  const Float32* vector = vectors + 3 * ((z * rows + y) * columns + x);
  const AffineMap post = MatrixOf(Item(item, DCM_PostDeformationMatrixRegistrationSequence));
  return {post.Apply(point + Vec3{vector[0], vector[1], vector[2]}), point};
}

Grid Lattice(const Mat3& direction) {
  Grid grid;
  grid.size = {4, 3, 5};
  grid.spacing_mm = {1.5, 2, 2.5};
  grid.origin_mm = {-101.25, 12.125, -812.0625};
  grid.direction = direction;
  return grid;
}

constexpr Mat3 kOblique = {{{0.6, -0.8, 0}, {0.8, 0.6, 0}, {0, 0, 1}}};
constexpr Mat3 kLeftHanded = {{{0.6, -0.8, 0}, {0.8, 0.6, 0}, {0, 0, -1}}};

TEST_F(RegistrationObjectTest, AGridTakesFixedPointsToMovingOnesWhicheverHandItsLatticeHas) {
  for (const Mat3& direction : {kOblique, kLeftHanded}) {
    registration_.fixed_to_moving.displacement = {};
    Bend(Lattice(direction));
    const auto file = Written();
    EXPECT_EQ(TextOf(*file->getDataset(), DCM_SOPClassUID),
              UID_DeformableSpatialRegistrationStorage);
    DcmItem& item = Item(*file->getDataset(), DCM_DeformableRegistrationSequence, 1);
    for (size_t z = 0; z < 5; ++z) {
      for (size_t y = 0; y < 3; ++y) {
        for (size_t x = 0; x < 4; ++x) {
          const auto [source, registered] = GridPoint(item, x, y, z);
          const Vec3 expected = registration_.fixed_to_moving.Apply(registered);
          EXPECT_LT(Length(source - expected), kToleranceMm) << x << " " << y << " " << z;
        }
      }
    }
  }
}

TEST_F(RegistrationObjectTest, AGridHasOrthonormalAxesAlsoWhereTheLatticeHasThemNearly) {
  const Mat3 skewed = {{{1, 0.0009, 0}, {0, 1, 0}, {0, 0.0004, 1}}};
  const Grid grid = RegistrationGrid(Lattice(skewed));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(Length(Axis(grid.direction, i)), 1, 1e-12);
    EXPECT_NEAR(Dot(Axis(grid.direction, i), Axis(grid.direction, (i + 1) % 3)), 0, 1e-12);
  }
  EXPECT_GT(Determinant(grid.direction), 0);
}

TEST_F(RegistrationObjectTest, AMatrixTakesMovingPointsToFixedOnes) {
  const auto file = Written();
  EXPECT_EQ(TextOf(*file->getDataset(), DCM_SOPClassUID), UID_SpatialRegistrationStorage);
  DcmItem& item = Item(*file->getDataset(), DCM_RegistrationSequence, 1);
  DcmItem& matrix = Item(Item(item, DCM_MatrixRegistrationSequence), DCM_MatrixSequence);
  EXPECT_EQ(TextOf(matrix, DCM_FrameOfReferenceTransformationMatrixType), "AFFINE");
  const Vec3 fixed = {31, -4, 250};
  const Vec3 moving = registration_.fixed_to_moving.Apply(fixed);
  EXPECT_LT(Length(MatrixOf(matrix).Apply(moving) - fixed), 1e-9);
}

TEST_F(RegistrationObjectTest, ARotationIsCalledRigid) {
  registration_.fixed_to_moving.affine.matrix = kOblique;
  const auto file = Written();
  DcmItem& item = Item(*file->getDataset(), DCM_RegistrationSequence, 1);
  DcmItem& matrix = Item(Item(item, DCM_MatrixRegistrationSequence), DCM_MatrixSequence);
  EXPECT_EQ(TextOf(matrix, DCM_FrameOfReferenceTransformationMatrixType), "RIGID");
  // Left-handed is no rotation.
  registration_.fixed_to_moving.affine.matrix = kLeftHanded;
  const auto mirrored = Written();
  DcmItem& other = Item(*mirrored->getDataset(), DCM_RegistrationSequence, 1);
  EXPECT_EQ(TextOf(Item(Item(other, DCM_MatrixRegistrationSequence), DCM_MatrixSequence),
                   DCM_FrameOfReferenceTransformationMatrixType),
            "AFFINE");
}

TEST_F(RegistrationObjectTest, TheSameContentIsTheSameObjectAndOtherContentIsNot) {
  Bend(Lattice(kOblique));
  const std::string instance = Uid(DCM_SOPInstanceUID), series = Uid(DCM_SeriesInstanceUID);
  EXPECT_NE(instance, series);
  EXPECT_EQ(Uid(DCM_SOPInstanceUID), instance);
  registration_.fixed_to_moving.displacement.values_mm[7] += 1e-3F;
  EXPECT_NE(Uid(DCM_SOPInstanceUID), instance);
  registration_.fixed_to_moving.displacement.values_mm[7] -= 1e-3F;
  registration_.comment = "another";
  EXPECT_NE(Uid(DCM_SOPInstanceUID), instance);
}

TEST_F(RegistrationObjectTest, FramesAreNamedWhereNotAllAreMeant) {
  const auto frames = [&] {
    const auto file = Written();
    DcmItem& item = Item(*file->getDataset(), DCM_RegistrationSequence, 1);
    return TextOf(Item(item, DCM_ReferencedImageSequence), DCM_ReferencedFrameNumber);
  };
  EXPECT_EQ(frames(), "");
  registration_.moving.images[0].frames = {2, 3, 5};
  EXPECT_EQ(frames(), "2\\3\\5");
}

TEST_F(RegistrationObjectTest, SeriesOfOneStudyAreReferredToTogether) {
  registration_.moving.study_instance_uid = registration_.fixed.study_instance_uid;
  const auto file = Written();
  EXPECT_EQ(
      TextOf(Item(*file->getDataset(), DCM_ReferencedSeriesSequence, 1), DCM_SeriesInstanceUID),
      "1.2.4.1");
  EXPECT_FALSE(
      file->getDataset()->tagExists(DCM_StudiesContainingOtherReferencedInstancesSequence));
}

TEST_F(RegistrationObjectTest, AMapThatCannotBeUndoneIsRefused) {
  registration_.fixed_to_moving.affine.matrix[2] = {0, 0, 0};
  DcmFileFormat file;
  EXPECT_EQ(FillRegistrationObject(registration_, folder_.path(), &file).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gvsl
