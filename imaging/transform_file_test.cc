// Transform files. tests/itk_transform_test.cc has ITK read them.
#include "imaging/transform_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "imaging/testing.h"

namespace gvsl {
namespace {

std::string Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void Put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

DisplacementField SomeField() {
  DisplacementField field;
  field.grid = GridOf({5, 4, 3}, {1, 1.5, 2}, {-10, 5, 30});
  field.grid.direction = Rotation(20);
  for (int i = 0; i < 3 * 60; ++i) field.values_mm.push_back(static_cast<float>(i) * 0.25f - 20);
  return field;
}

class TransformFileTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(TransformFileTest, AnAffineMapComesBackBitForBit) {
  AffineMap affine;
  affine.matrix = {{{1.1, 1.0 / 3, 0}, {-0.04, 0.95, 0.02}, {1e-17, 0.03, 1.02}}};
  affine.translation_mm = {5, -7.7, 1.0 / 7};
  ASSERT_TRUE(WriteItkAffine(affine, folder_ / "fixed_to_moving.tfm").ok());
  const auto read = ReadItkAffine(folder_ / "fixed_to_moving.tfm");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->matrix, affine.matrix);
  EXPECT_EQ(read->translation_mm, affine.translation_mm);
}

TEST_F(TransformFileTest, ACentreOfRotationIsPartOfTheMap) {
  Put(folder_ / "a.txt",
      "#Insight Transform File V1.0\n#Transform 0\n"
      "Transform: MatrixOffsetTransformBase_double_3_3\n"
      "Parameters: 0 -1 0 1 0 0 0 0 1 10 20 30\nFixedParameters: 1 2 3\n");
  const auto read = ReadItkAffine(folder_ / "a.txt");
  ASSERT_TRUE(read.ok()) << read.status();
  // The centre itself only shifts; a point 1 mm left of it turns to 1 mm behind it.
  EXPECT_EQ(read->Apply({1, 2, 3}), (Vec3{11, 22, 33}));
  EXPECT_EQ(read->Apply({2, 2, 3}), (Vec3{11, 23, 33}));
}

TEST_F(TransformFileTest, WrongAffineFilesAreToldApart) {
  const std::string path = folder_ / "a.tfm";
  const std::string head = "#Insight Transform File V1.0\n";
  const std::string affine = "Transform: AffineTransform_double_3_3\n";
  const struct {
    std::string text, message;
  } cases[] = {
      {"", "no ITK transform file"},
      {head + "Transform: Euler3DTransform_double_3_3\n", "line 2: only AffineTransform"},
      {head + affine + "Parameters: 1 0 0\n", "line 3: 12 finite numbers"},
      {head + affine + "Parameters: 1 0 0 0 1 0 0 0 1 0 0 nan\n", "line 3: 12 finite numbers"},
      {head + affine + "Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\n", "no ITK transform file"},
      {head + affine + affine, "line 3: a second transform"},
  };
  for (const auto& one : cases) {
    Put(path, one.text);
    const auto read = ReadItkAffine(path);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << one.text;
    EXPECT_TRUE(Contains(read.status(), one.message)) << read.status();
  }
  EXPECT_EQ(ReadItkAffine(folder_ / "none.tfm").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TransformFileTest, AFieldComesBackCompressedAndNot) {
  const DisplacementField field = SomeField();
  for (const char* name : {"u.nii", "u.nii.gz"}) {
    ASSERT_TRUE(WriteDisplacementField(field, folder_ / name).ok());
    const auto read = ReadDisplacementField(folder_ / name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->values_mm, field.values_mm);
    ExpectSameLattice(read->grid, field.grid, 1e-5);  // the header's numbers are float32
  }
}

TEST_F(TransformFileTest, AFieldIsAVectorImageOfFiveDimensions) {
  ASSERT_TRUE(WriteDisplacementField(SomeField(), folder_ / "u.nii").ok());
  const std::string bytes = Bytes(folder_ / "u.nii");
  int16_t dims[8], intent, type;
  std::memcpy(dims, bytes.data() + 40, sizeof(dims));
  std::memcpy(&intent, bytes.data() + 68, 2);
  std::memcpy(&type, bytes.data() + 70, 2);
  const int16_t expected[6] = {5, 5, 4, 3, 1, 3};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(dims[i], expected[i]) << "dim[" << i << "]";
  EXPECT_EQ(intent, 1007);  // NIFTI_INTENT_VECTOR
  EXPECT_EQ(type, 16);      // float32
  EXPECT_EQ(bytes.size(), 352u + 3 * 60 * 4);
}

TEST_F(TransformFileTest, WrongFieldFilesAreToldApart) {
  const std::string path = folder_ / "u.nii";
  EXPECT_EQ(ReadDisplacementField(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Contains(WriteDisplacementField({}, path), "no displacement field"));
  EXPECT_TRUE(Contains(WriteDisplacementField(SomeField(), folder_ / "u.mha"), ".nii or .nii.gz"));
  ASSERT_TRUE(WriteDisplacementField(SomeField(), path).ok());
  std::filesystem::resize_file(path, 1000);
  EXPECT_EQ(ReadDisplacementField(path).status().code(), absl::StatusCode::kDataLoss);
  // A field of voxels is no field of millimetres.
  ASSERT_TRUE(WriteLearn2RegField({}, SomeField().grid, SomeField().grid, path).ok());
  EXPECT_TRUE(Contains(ReadDisplacementField(path).status(), "must be 5D"));
}

TEST_F(TransformFileTest, Learn2RegsFieldTellsTheMovingVoxelOfEachFixedOne) {
  const Grid fixed = GridOf({5, 4, 3}, {1, 1, 2});
  Grid moving = fixed;
  moving.spacing_mm = {2, 1, 1};
  SpatialMap map;
  map.affine.translation_mm = {1, -3, 0};
  ASSERT_TRUE(WriteLearn2RegField(map, fixed, moving, folder_ / "disp.nii").ok());
  const std::string bytes = Bytes(folder_ / "disp.nii");
  const auto value = [&](int component, int x, int y, int z) {
    float result;
    std::memcpy(&result, bytes.data() + 352 + 4 * (((component * 3 + z) * 4 + y) * 5 + x), 4);
    return result;
  };
  // Fixed voxel (2, 3, 1) is (2, 3, 2) mm; (3, 0, 2) mm is moving voxel (1.5, 0, 2).
  EXPECT_EQ(value(0, 2, 3, 1), -0.5f);
  EXPECT_EQ(value(1, 2, 3, 1), -3.0f);
  EXPECT_EQ(value(2, 2, 3, 1), 1.0f);
  moving.size = {6, 4, 3};
  EXPECT_TRUE(Contains(WriteLearn2RegField(map, fixed, moving, folder_ / "disp.nii"), "same size"));
}

TEST_F(TransformFileTest, AComposedFieldIsTheWholeMap) {
  SpatialMap map;
  map.affine.matrix = {{{1, 0.1, 0}, {0, 1, 0}, {0, 0, 0.9}}};
  map.affine.translation_mm = {1, 2, 3};
  map.displacement = SomeField();
  const std::string path = folder_ / "fixed_to_moving.nii.gz";
  ASSERT_TRUE(WriteComposedField(map, map.displacement.grid, path).ok());
  auto read = ReadDisplacementField(path);
  ASSERT_TRUE(read.ok()) << read.status();
  SpatialMap composed;
  composed.displacement = *std::move(read);
  const Vec3 point = map.displacement.grid.IndexToPhysical({2, 3, 1});
  const Vec3 expected = map.Apply(point), found = composed.Apply(point);
  for (int r = 0; r < 3; ++r) EXPECT_NEAR(found[r], expected[r], 1e-5);  // float32 of some 20 mm
}

TEST_F(TransformFileTest, AFieldThatIsToldToStopLeavesNoFile) {
  int slices = 0;
  const auto stop = [&] {
    return ++slices < 2 ? absl::OkStatus() : absl::CancelledError("enough");
  };
  const std::string path = folder_ / "stopped.nii.gz";
  EXPECT_TRUE(Contains(WriteComposedField({}, SomeField().grid, path, stop), "enough"));
  EXPECT_EQ(slices, 2);
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace gvsl
