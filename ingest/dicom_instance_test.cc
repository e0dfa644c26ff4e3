// What fuzzing found in headers: each a small file that was made for it (scripts/fuzz).
#include "ingest/dicom_instance.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "imaging/testing.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_logging.h"

namespace gvsl {
namespace {

class DicomInstanceTest : public ::testing::Test {
 protected:
  void SetUp() override { SilenceDicomLog(); }

  // A CT slice of 2 x 2 pixels.
  std::string Write(const std::string& patient_id) {
    DcmFileFormat file;
    DcmDataset& dataset = *file.getDataset();
    for (const auto& [key, value] : std::initializer_list<std::pair<DcmTagKey, const char*>>{
             {DCM_SOPClassUID, UID_CTImageStorage},
             {DCM_SOPInstanceUID, "1.1.1"},
             {DCM_StudyInstanceUID, "1"},
             {DCM_SeriesInstanceUID, "1.1"},
             {DCM_PatientID, patient_id.c_str()},
             {DCM_ImagePositionPatient, "0\\0\\0"},
             {DCM_ImageOrientationPatient, "1\\0\\0\\0\\1\\0"},
             {DCM_PixelSpacing, "1\\1"},
             {DCM_PhotometricInterpretation, "MONOCHROME2"},
             {DCM_Rows, "2"},
             {DCM_Columns, "2"},
             {DCM_BitsAllocated, "16"},
             {DCM_BitsStored, "16"},
             {DCM_HighBit, "15"},
             {DCM_PixelRepresentation, "0"},
             {DCM_SamplesPerPixel, "1"}}) {
      EXPECT_TRUE(dataset.putAndInsertString(key, value).good());
    }
    const Uint16 pixels[4] = {1, 2, 3, 4};
    dataset.putAndInsertUint16Array(DCM_PixelData, pixels, 4);
    const std::string path = folder_ / "slice.dcm";
    EXPECT_TRUE(file.saveFile(path.c_str(), EXS_LittleEndianImplicit).good());
    return path;
  }

  TemporaryFolder folder_;
};

TEST_F(DicomInstanceTest, ValueThatIsTooLongToBeMeantIsNone) {
  EXPECT_EQ(ReadDicomInstance(Write("P7")).patient_id, "P7");
  const DicomInstance instance = ReadDicomInstance(Write(std::string(100000, '7')));
  EXPECT_EQ(instance.verdict, Verdict::kUsed) << instance.detail;
  EXPECT_EQ(instance.patient_id, "");
}

// DCMTK would ask for 4 GiB of memory for it.
TEST_F(DicomInstanceTest, LengthBeyondTheFileIsToldAndNotBelieved) {
  const std::string path = Write("P7");
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const size_t study = bytes.find(std::string("\x20\x00\x0D\x00", 4));
  ASSERT_NE(study, std::string::npos);
  bytes.replace(study + 4, 4, "\xF0\xFF\xFF\xFF");
  std::ofstream(path, std::ios::binary) << bytes;
  const DicomInstance instance = ReadDicomInstance(path);
  EXPECT_EQ(instance.verdict, Verdict::kTruncated) << instance.detail;
  EXPECT_EQ(instance.study_instance_uid, "");
}

}  // namespace
}  // namespace gvsl
