#include "ingest/dicom_series_writer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/intensity.h"
#include "imaging/sha256.h"
#include "ingest/dataset_builder.h"

namespace gvsl {
namespace {

constexpr double kCtIntercept = -1024;
constexpr size_t kMaxLongString = 64;  // VR LO, and a component group of PN (PS3.5, 6.2)

// How values are stored: stored = value - intercept.
struct PixelFormat {
  bool is_signed = false;
  int bits_stored = 12;
  int32_t intercept = 0;
};

absl::StatusOr<PixelFormat> PixelFormatFor(const Volume& volume) {
  const ValueRange range = RangeOf(volume);
  const double low = range.min - kCtIntercept, high = range.max - kCtIntercept;
  if (low >= 0 && high <= 4095) return PixelFormat{false, 12, static_cast<int32_t>(kCtIntercept)};
  if (low >= 0 && high <= 65535) return PixelFormat{false, 16, static_cast<int32_t>(kCtIntercept)};
  if (range.min >= -32768 && range.max <= 32767) return PixelFormat{true, 16, 0};
  return absl::InvalidArgumentError(
      absl::StrCat("the volume holds values ", range.min, "..", range.max,
                   ", more than a CT image can store in 16 bits; rescale it first"));
}

absl::Status CheckText(const char* field, const std::string& text) {
  if (text.size() > kMaxLongString) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": at most 64 bytes fit into DICOM, not ", text.size()));
  }
  for (const char c : text) {
    // The backslash parts values, and control characters are not allowed at all.
    if (c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": a backslash or control character is not allowed in DICOM text"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const Volume& volume, const DicomSeriesOptions& options) {
  if (volume.kind() == VolumeKind::kLabels) {
    return absl::InvalidArgumentError("a label volume is no CT image; write it as NIfTI");
  }
  if (volume.type() == VoxelType::kFloat32) {
    return absl::InvalidArgumentError(
        "a float32 volume does not fit a CT image's 16 bits exactly; convert it to int16 first");
  }
  if (absl::Status status = ValidateGrid(volume.grid()); !status.ok()) return status;
  if (options.uid_seed.empty()) {
    return absl::InvalidArgumentError("uid_seed: must not be empty, it names study and series");
  }
  for (const auto& [field, text] : {std::pair("patient_id", &options.patient_id),
                                    std::pair("patient_name", &options.patient_name),
                                    std::pair("study_description", &options.study_description),
                                    std::pair("series_description", &options.series_description)}) {
    if (absl::Status status = CheckText(field, *text); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Everything but the position and the pixels of a slice: modules of the CT Image IOD (PS3.3, table
// A.3-1), type 2 attributes empty where nothing is known.
void DescribeSeries(const Volume& volume, const DicomSeriesOptions& options,
                    const PixelFormat& format, DatasetBuilder* out) {
  const Grid& grid = volume.grid();
  const Mat3& d = grid.direction;
  // SOP Common, Patient
  out->Text(DCM_SpecificCharacterSet, EVR_CS, "ISO_IR 192");
  out->Text(DCM_SOPClassUID, EVR_UI, UID_CTImageStorage);
  out->Text(DCM_PatientName, EVR_PN, options.patient_name);
  out->Text(DCM_PatientID, EVR_LO, options.patient_id);
  out->Text(DCM_PatientBirthDate, EVR_DA, "");
  out->Text(DCM_PatientSex, EVR_CS, "");
  // General Study, General Series, Frame of Reference, General Equipment
  out->Text(DCM_StudyInstanceUID, EVR_UI, DerivedUid(options.uid_seed, "study"));
  out->Text(DCM_StudyDate, EVR_DA, "");
  out->Text(DCM_StudyTime, EVR_TM, "");
  out->Text(DCM_ReferringPhysicianName, EVR_PN, "");
  out->Text(DCM_StudyID, EVR_SH, "");
  out->Text(DCM_AccessionNumber, EVR_SH, "");
  out->Text(DCM_StudyDescription, EVR_LO, options.study_description);
  out->Text(DCM_Modality, EVR_CS, "CT");
  out->Text(DCM_SeriesInstanceUID, EVR_UI, DerivedUid(options.uid_seed, "series"));
  out->Text(DCM_SeriesNumber, EVR_IS, absl::StrCat(options.series_number));
  out->Text(DCM_SeriesDescription, EVR_LO, options.series_description);
  out->Text(DCM_PatientPosition, EVR_CS, "HFS");
  out->Text(DCM_FrameOfReferenceUID, EVR_UI, DerivedUid(options.uid_seed, "frame of reference"));
  out->Text(DCM_PositionReferenceIndicator, EVR_LO, "");
  out->Text(DCM_Manufacturer, EVR_LO, "GVSL");
  // General Image, Image Plane
  out->Text(DCM_ImageType, EVR_CS, "ORIGINAL\\PRIMARY\\AXIAL");
  out->Text(DCM_AcquisitionNumber, EVR_IS, "1");
  // Pixel spacing: between rows first, then between columns (PS3.3, 10.7.1.3).
  out->Decimals(DCM_PixelSpacing, {grid.spacing_mm[1], grid.spacing_mm[0]});
  out->Decimals(DCM_ImageOrientationPatient,
                {d[0][0], d[1][0], d[2][0], d[0][1], d[1][1], d[2][1]});
  out->Decimals(DCM_SliceThickness, {grid.spacing_mm[2]});
  out->Decimals(DCM_SpacingBetweenSlices, {grid.spacing_mm[2]});
  // Image Pixel, CT Image
  out->Number(DCM_SamplesPerPixel, 1);
  out->Text(DCM_PhotometricInterpretation, EVR_CS, "MONOCHROME2");
  out->Number(DCM_Rows, static_cast<int>(grid.size[1]));
  out->Number(DCM_Columns, static_cast<int>(grid.size[0]));
  out->Number(DCM_BitsAllocated, 16);
  out->Number(DCM_BitsStored, format.bits_stored);
  out->Number(DCM_HighBit, format.bits_stored - 1);
  out->Number(DCM_PixelRepresentation, format.is_signed ? 1 : 0);
  out->Text(DCM_RescaleIntercept, EVR_DS, absl::StrCat(format.intercept));
  out->Text(DCM_RescaleSlope, EVR_DS, "1");
  out->Text(DCM_RescaleType, EVR_LO, "HU");
  out->Text(DCM_KVP, EVR_DS, "");
  // A mediastinal window for viewers.
  out->Text(DCM_WindowCenter, EVR_DS, "150");
  out->Text(DCM_WindowWidth, EVR_DS, "700");
}

std::vector<uint16_t> StoredSlice(const Volume& volume, int64_t slice, const PixelFormat& format) {
  const int64_t count = volume.grid().size[0] * volume.grid().size[1];
  std::vector<uint16_t> stored(static_cast<size_t>(count));
  VisitVoxelType(volume.type(), [&](auto voxel) {
    const auto* values = volume.voxels<decltype(voxel)>() + slice * count;
    for (int64_t i = 0; i < count; ++i) {
      // Two's complement carries the sign where the format has one.
      stored[i] = static_cast<uint16_t>(static_cast<int32_t>(values[i]) - format.intercept);
    }
  });
  return stored;
}

// True if slices in memory order run against the normal (row direction x column direction).
bool RunsAgainstNormal(const Mat3& d) {
  const Vec3 normal = {d[1][0] * d[2][1] - d[2][0] * d[1][1], d[2][0] * d[0][1] - d[0][0] * d[2][1],
                       d[0][0] * d[1][1] - d[1][0] * d[0][1]};
  return normal[0] * d[0][2] + normal[1] * d[1][2] + normal[2] * d[2][2] < 0;
}

}  // namespace

std::string DerivedUid(const std::string& seed, const std::string& purpose) {
  // The length keeps ("a", "bc") and ("ab", "c") apart.
  const std::string hex = Sha256Of(absl::StrCat(seed.size(), ":", seed, purpose));
  // 128 bits made a UUID of version 8 (free form) and variant 2 (RFC 9562, 5.8), as 32-bit digits.
  uint64_t digits[4];
  for (int i = 0; i < 4; ++i) digits[i] = std::stoull(hex.substr(8 * i, 8), nullptr, 16);
  digits[1] = (digits[1] & 0xFFFF0FFF) | 0x8000;
  digits[2] = (digits[2] & 0x3FFFFFFF) | 0x80000000;
  // To decimal by long division, nine figures at a time.
  std::string decimal;
  while (digits[0] | digits[1] | digits[2] | digits[3]) {
    uint64_t remainder = 0;
    for (uint64_t& digit : digits) {
      const uint64_t value = (remainder << 32) | digit;
      digit = value / 10;
      remainder = value % 10;
    }
    decimal += static_cast<char>('0' + remainder);
  }
  std::reverse(decimal.begin(), decimal.end());
  return "2.25." + decimal;
}

std::string DecimalString(double value) {
  constexpr int kMaxCharacters = 16;
  if (value == 0) return "0";  // also for -0
  char text[40];
  for (int digits = 17; digits > 0; --digits) {
    const int length = std::snprintf(text, sizeof(text), "%.*g", digits, value);
    if (length <= kMaxCharacters) return text;
  }
  return "0";
}

absl::Status WriteDicomSeries(const Volume& volume, const DicomSeriesOptions& options,
                              const std::string& directory) {
  if (absl::Status status = CheckOptions(volume, options); !status.ok()) return status;
  if (absl::Status status = CheckDicomDictionary(); !status.ok()) return status;
  absl::StatusOr<PixelFormat> format = PixelFormatFor(volume);
  if (!format.ok()) return format.status();
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot make the folder ", directory, ": ", error.message()));
  }
  const Grid& grid = volume.grid();
  const bool backwards = RunsAgainstNormal(grid.direction);
  for (int64_t number = 1; number <= grid.size[2]; ++number) {
    const int64_t slice = backwards ? grid.size[2] - number : number - 1;
    DcmFileFormat file;
    absl::Status filled;
    DatasetBuilder dataset(file.getDataset(), &filled);
    DescribeSeries(volume, options, *format, &dataset);
    const Vec3 position = grid.IndexToPhysical({0, 0, static_cast<double>(slice)});
    dataset.Text(DCM_SOPInstanceUID, EVR_UI,
                 DerivedUid(options.uid_seed, absl::StrCat("instance ", number)));
    dataset.Text(DCM_InstanceNumber, EVR_IS, absl::StrCat(number));
    dataset.Decimals(DCM_ImagePositionPatient, {position[0], position[1], position[2]});
    dataset.Pixels(StoredSlice(volume, slice, *format));
    if (!filled.ok()) return filled;
    char name[32];
    std::snprintf(name, sizeof(name), "IM%05d.dcm", static_cast<int>(number));
    const std::filesystem::path path = std::filesystem::path(directory) / name;
    if (absl::Status status = SaveDicomFile(&file, path.string()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace gvsl
