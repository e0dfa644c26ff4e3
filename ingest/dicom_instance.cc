#include "ingest/dicom_instance.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "ingest/dicom_attributes.h"
#include "ingest/functional_groups.h"
#include "ingest/siemens_mosaic.h"

namespace gvsl {
namespace {

constexpr Uint32 kMaxValueInMemory = 4096;  // longer values stay in the file until asked for
constexpr int kMaxFrames = 100000;

// The functions below return false where the instance is refused.
bool Refuse(DicomInstance& instance, Verdict verdict, std::string detail) {
  instance.verdict = verdict;
  instance.detail = std::move(detail);
  instance.frames.clear();
  return false;
}

bool IsOneOf(const std::string& uid, std::initializer_list<const char*> uids) {
  return std::any_of(uids.begin(), uids.end(), [&](const char* other) { return uid == other; });
}

bool IsEnhanced(const std::string& sop_class) {
  return IsOneOf(sop_class,
                 {UID_EnhancedCTImageStorage, UID_LegacyConvertedEnhancedCTImageStorage,
                  UID_EnhancedMRImageStorage, UID_LegacyConvertedEnhancedMRImageStorage,
                  UID_EnhancedPETImageStorage, UID_LegacyConvertedEnhancedPETImageStorage});
}

// The modality of the classes that form volumes; empty for all others. The attribute Modality is
// free text to whoever wrote the file.
const char* ModalityOf(const std::string& sop_class) {
  if (IsOneOf(sop_class, {UID_CTImageStorage, UID_EnhancedCTImageStorage,
                          UID_LegacyConvertedEnhancedCTImageStorage})) {
    return "CT";
  }
  if (IsOneOf(sop_class, {UID_MRImageStorage, UID_EnhancedMRImageStorage,
                          UID_LegacyConvertedEnhancedMRImageStorage})) {
    return "MR";
  }
  if (IsOneOf(sop_class, {UID_PositronEmissionTomographyImageStorage, UID_EnhancedPETImageStorage,
                          UID_LegacyConvertedEnhancedPETImageStorage})) {
    return "PT";
  }
  return "";
}

std::string ClassName(const std::string& uid) {
  const char* name = dcmFindNameOfUID(uid.c_str());
  return name == nullptr ? uid : name;
}

bool CheckClass(DcmItem& dataset, DicomInstance& instance) {
  if (IsOneOf(instance.sop_class_uid,
              {UID_SegmentationStorage, UID_MediaStorageDirectoryStorage}) ||
      !dataset.tagExists(DCM_PixelData)) {
    return Refuse(instance, Verdict::kNotAnImage,
                  absl::StrCat(ClassName(instance.sop_class_uid), " has no image slices"));
  }
  if (IntegerOf(dataset, DCM_SamplesPerPixel).value_or(1) != 1 ||
      TextOf(dataset, DCM_PhotometricInterpretation).rfind("MONOCHROME", 0) != 0) {
    return Refuse(instance, Verdict::kColour,
                  absl::StrCat("its pixels are ", TextOf(dataset, DCM_PhotometricInterpretation),
                               ", not grey values"));
  }
  instance.modality = ModalityOf(instance.sop_class_uid);
  if (instance.modality.empty()) {
    return Refuse(instance, Verdict::kUnsupportedClass,
                  absl::StrCat(ClassName(instance.sop_class_uid),
                               " forms no volume; CT, MR and PET images do"));
  }
  const std::vector<std::string> type = absl::StrSplit(TextOf(dataset, DCM_ImageType), '\\');
  for (const char* scout : {"LOCALIZER", "SCOUT"}) {
    if (std::find(type.begin(), type.end(), scout) != type.end()) {
      return Refuse(instance, Verdict::kLocalizer, "a scout image");
    }
  }
  return true;
}

bool CheckSyntax(E_TransferSyntax syntax, DicomInstance& instance) {
  const DcmXfer xfer(syntax);
  instance.transfer_syntax_uid = xfer.getXferID();
  instance.is_compressed = xfer.isEncapsulated();
  if (!instance.is_compressed ||
      IsOneOf(instance.transfer_syntax_uid,
              {UID_JPEGProcess1TransferSyntax, UID_JPEGProcess2_4TransferSyntax,
               UID_JPEGProcess6_8TransferSyntax, UID_JPEGProcess10_12TransferSyntax,
               UID_JPEGProcess14TransferSyntax, UID_JPEGProcess14SV1TransferSyntax,
               UID_JPEGLSLosslessTransferSyntax, UID_JPEGLSLossyTransferSyntax,
               UID_JPEG2000LosslessOnlyTransferSyntax, UID_JPEG2000TransferSyntax,
               UID_RLELosslessTransferSyntax})) {
    return true;
  }
  return Refuse(instance, Verdict::kUnsupportedSyntax,
                absl::StrCat("transfer syntax ", xfer.getXferName(), " cannot be decoded"));
}

bool ReadPixelFormat(DcmItem& dataset, DicomInstance& instance) {
  PixelFormat& pixels = instance.pixels;
  pixels.rows = pixels.slice_rows = IntegerOf(dataset, DCM_Rows).value_or(0);
  pixels.columns = pixels.slice_columns = IntegerOf(dataset, DCM_Columns).value_or(0);
  pixels.bits_allocated = IntegerOf(dataset, DCM_BitsAllocated).value_or(0);
  pixels.bits_stored = IntegerOf(dataset, DCM_BitsStored).value_or(pixels.bits_allocated);
  pixels.high_bit = IntegerOf(dataset, DCM_HighBit).value_or(pixels.bits_stored - 1);
  pixels.is_signed = IntegerOf(dataset, DCM_PixelRepresentation).value_or(0) == 1;
  if (pixels.rows < 1 || pixels.columns < 1 || pixels.rows > 65535 || pixels.columns > 65535) {
    return Refuse(instance, Verdict::kUnsupportedPixels, "it has no Rows and Columns");
  }
  if ((pixels.bits_allocated != 8 && pixels.bits_allocated != 16) || pixels.bits_stored < 1 ||
      pixels.bits_stored > pixels.bits_allocated || pixels.high_bit >= pixels.bits_allocated ||
      pixels.high_bit + 1 < pixels.bits_stored) {
    return Refuse(instance, Verdict::kUnsupportedPixels,
                  absl::StrCat("pixels of ", pixels.bits_stored, " bits in ", pixels.bits_allocated,
                               " (high bit ", pixels.high_bit,
                               ") are not supported; 8 and 16 bits allocated are"));
  }
  if (dataset.tagExists(DCM_ModalityLUTSequence)) {
    return Refuse(instance, Verdict::kUnsupportedPixels,
                  "its values need a Modality LUT Sequence, which is not supported");
  }
  if (const auto padding = IntegerOf(dataset, DCM_PixelPaddingValue)) {
    const int32_t limit = IntegerOf(dataset, DCM_PixelPaddingRangeLimit).value_or(*padding);
    // Some write it with the wrong VR: brought to the pixels' own sign.
    const auto own = [&](int32_t value) {
      return pixels.Value(static_cast<uint16_t>(static_cast<uint32_t>(value)
                                                << (pixels.high_bit + 1 - pixels.bits_stored)));
    };
    pixels.padding = {std::min(own(*padding), own(limit)), std::max(own(*padding), own(limit))};
  }
  return true;
}

std::string NumberText(std::optional<double> value) { return value ? absl::StrCat(*value) : ""; }

void ReadRepeatKeys(DcmItem& dataset, DicomFrame& frame) {
  auto& repeat = frame.repeat;
  repeat[kImageType] = TextOf(dataset, DCM_ImageType);
  repeat[kEchoTime] = NumberText(NumberOf(dataset, DCM_EchoTime));
  repeat[kTemporalPosition] = TextOf(dataset, DCM_TemporalPositionIdentifier);
  repeat[kCardiacPhase] = NumberText(NumberOf(dataset, DCM_TriggerTime));
  repeat[kAcquisitionNumber] = TextOf(dataset, DCM_AcquisitionNumber);
  // Diffusion: the standard's attributes, then the vendors' (Siemens, Philips, GE).
  repeat[kBValue] = NumberText(NumberOf(dataset, DCM_DiffusionBValue));
  const DcmTagKey siemens(0x0019, 0x100C), philips(0x2001, 0x1003), ge(0x0043, 0x1039);
  for (const DcmTagKey& key : {siemens, philips, ge}) {
    if (repeat[kBValue].empty()) repeat[kBValue] = TextOf(dataset, key);
  }
  repeat[kGradient] = TextOf(dataset, DCM_DiffusionGradientOrientation);
  if (repeat[kGradient].empty()) repeat[kGradient] = TextOf(dataset, DcmTagKey(0x0019, 0x100E));
}

bool ReadClassicFrame(DcmItem& dataset, DicomInstance& instance) {
  DicomFrame frame;
  const auto position = VectorOf(dataset, DCM_ImagePositionPatient);
  const auto row = VectorOf(dataset, DCM_ImageOrientationPatient);
  const auto column = VectorOf(dataset, DCM_ImageOrientationPatient, 3);
  const auto between_rows = NumberOf(dataset, DCM_PixelSpacing, 0);
  const auto between_columns = NumberOf(dataset, DCM_PixelSpacing, 1);
  if (!position) {
    return Refuse(instance, Verdict::kNoPosition, "it has no Image Position (Patient)");
  }
  if (!row || !column || !SetOrientation(*row, *column, frame)) {
    return Refuse(instance, Verdict::kNoPosition, "it has no valid Image Orientation (Patient)");
  }
  if (!between_rows || !between_columns) {
    return Refuse(instance, Verdict::kNoPosition, "it has no Pixel Spacing");
  }
  frame.position_mm = *position;
  frame.row_spacing_mm = *between_rows;
  frame.column_spacing_mm = *between_columns;
  frame.slice_thickness_mm = NumberOf(dataset, DCM_SliceThickness).value_or(0);
  frame.slope = NumberOf(dataset, DCM_RescaleSlope).value_or(1);
  frame.intercept = NumberOf(dataset, DCM_RescaleIntercept).value_or(0);
  ReadRepeatKeys(dataset, frame);
  instance.frames.push_back(std::move(frame));
  if (TextOf(dataset, DCM_ImageType).find("MOSAIC") != std::string::npos) {
    if (absl::Status status = SplitMosaic(dataset, instance); !status.ok()) {
      return Refuse(instance, Verdict::kNoPosition, std::string(status.message()));
    }
  }
  return true;
}

// Where the value of native pixel data lies in its file; 0: not known. DCMTK does not tell, but the
// value ends where what comes behind it begins, and its tag and length must stand before it.
int64_t NativeOffset(DcmDataset& dataset, DcmElement& pixels, const std::string& path) {
  const E_TransferSyntax syntax = dataset.getOriginalXfer();
  const DcmXfer xfer(syntax);
  if (xfer.getStreamCompression() != ESC_none || xfer.getByteOrder() != EBO_LittleEndian ||
      xfer.getPixelDataByteOrder() != EBO_LittleEndian || gLocalByteOrder != EBO_LittleEndian) {
    return 0;
  }
  const uint32_t length = pixels.getLength();
  std::error_code error;
  int64_t offset = static_cast<int64_t>(std::filesystem::file_size(path, error)) - length;
  for (DcmObject* behind = dataset.nextInContainer(&pixels); behind != nullptr;
       behind = dataset.nextInContainer(behind)) {
    offset -= behind->calcElementLength(syntax, EET_ExplicitLength);
  }
  // Tag, then VR and two zeros where they are explicit, then the length.
  std::array<char, 12> header{};
  const int64_t size = xfer.isExplicitVR() ? 12 : 8;
  const int file = offset > size && !error ? open(path.c_str(), O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return 0;
  const bool whole = pread(file, header.data(), static_cast<size_t>(size), offset - size) == size;
  close(file);
  return whole && std::memcmp(header.data(), "\xE0\x7F\x10\x00", 4) == 0 &&
                 std::memcmp(header.data() + size - 4, &length, 4) == 0
             ? offset
             : 0;
}

bool ReadFrames(DcmDataset& dataset, DicomInstance& instance) {
  const int frame_count = std::max(1, IntegerOf(dataset, DCM_NumberOfFrames).value_or(1));
  if (frame_count > kMaxFrames) {
    return Refuse(instance, Verdict::kUnsupportedPixels,
                  absl::StrCat(frame_count, " frames; at most ", kMaxFrames, " are supported"));
  }
  if (!instance.is_compressed) {
    DcmElement* element = nullptr;
    dataset.findAndGetElement(DCM_PixelData, element);
    const int64_t expected = int64_t{frame_count} * instance.pixels.rows * instance.pixels.columns *
                             (instance.pixels.bits_allocated / 8);
    if (element == nullptr || static_cast<int64_t>(element->getLength()) < expected) {
      return Refuse(
          instance, Verdict::kTruncated,
          absl::StrCat("its pixel data has ", element == nullptr ? 0 : element->getLength(),
                       " bytes where ", expected, " belong"));
    }
    instance.native_offset = NativeOffset(dataset, *element, instance.path);
  }
  if (IsEnhanced(instance.sop_class_uid)) {
    absl::Status status = ReadFunctionalGroups(dataset, frame_count, instance);
    if (!status.ok()) return Refuse(instance, Verdict::kNoPosition, std::string(status.message()));
  } else if (frame_count > 1) {
    return Refuse(instance, Verdict::kNoPosition,
                  absl::StrCat(frame_count, " frames, but only the place of the first"));
  } else if (!ReadClassicFrame(dataset, instance))
    return false;
  for (DicomFrame& frame : instance.frames) {
    frame.repeat[kSeriesNumber] = absl::StrCat(instance.series_number);
    if (!(frame.row_spacing_mm > 0 && frame.column_spacing_mm > 0)) {
      return Refuse(instance, Verdict::kNoPosition, "its Pixel Spacing is not positive");
    }
    if (frame.slope == 0) {
      return Refuse(instance, Verdict::kUnsupportedPixels, "its Rescale Slope is zero");
    }
  }
  return true;
}

// Of all attributes that tell, the one that means the series itself comes first. One image an
// acquisition says nothing of a series: 2 are the fewest that do.
int ExpectedInstances(DcmItem& dataset) {
  const int related = IntegerOf(dataset, DCM_NumberOfSeriesRelatedInstances).value_or(0);
  if (related > 0) return related;
  for (const DcmTagKey& key : {DCM_InConcatenationTotalNumber, DCM_ImagesInAcquisition}) {
    const int count = IntegerOf(dataset, key).value_or(0);
    if (count > 1) return count;
  }
  return 0;
}

bool ReadHeader(DcmFileFormat& file, DicomInstance& instance) {
  const OFCondition loaded = file.loadFile(OFFilename(instance.path.c_str()), EXS_Unknown,
                                           EGL_noChange, kMaxValueInMemory);
  DcmDataset& dataset = *file.getDataset();
  instance.sop_class_uid = TextOf(dataset, DCM_SOPClassUID);
  instance.sop_instance_uid = TextOf(dataset, DCM_SOPInstanceUID);
  instance.series_instance_uid = TextOf(dataset, DCM_SeriesInstanceUID);
  instance.study_instance_uid = TextOf(dataset, DCM_StudyInstanceUID);
  instance.frame_of_reference_uid = TextOf(dataset, DCM_FrameOfReferenceUID);
  instance.patient_id = TextOf(dataset, DCM_PatientID);
  instance.patient_id_issuer = TextOf(dataset, DCM_IssuerOfPatientID);
  instance.series_description = TextOf(dataset, DCM_SeriesDescription);
  instance.body_part = TextOf(dataset, DCM_BodyPartExamined);
  instance.source_ae_title = TextOf(*file.getMetaInfo(), DCM_SourceApplicationEntityTitle);
  instance.series_number = IntegerOf(dataset, DCM_SeriesNumber).value_or(0);
  instance.instance_number = IntegerOf(dataset, DCM_InstanceNumber).value_or(0);
  instance.expected_instances = ExpectedInstances(dataset);
  if (TextOf(*file.getMetaInfo(), DCM_MediaStorageSOPClassUID) ==
      UID_MediaStorageDirectoryStorage) {
    return Refuse(instance, Verdict::kNotAnImage, "a DICOMDIR");
  }
  if (instance.sop_class_uid.empty() || instance.sop_instance_uid.empty()) {
    return Refuse(instance, Verdict::kNotDicom,
                  loaded.good() ? "it has no SOP Class and Instance UID"
                                : absl::StrCat("not read as DICOM: ", loaded.text()));
  }
  if (loaded.bad()) {
    return Refuse(instance, Verdict::kTruncated, absl::StrCat("damaged: ", loaded.text()));
  }
  if (!CheckClass(dataset, instance)) return false;
  if (instance.series_instance_uid.empty()) {
    return Refuse(instance, Verdict::kNoPosition, "it has no Series Instance UID");
  }
  if (!CheckSyntax(dataset.getOriginalXfer(), instance)) return false;
  if (!ReadPixelFormat(dataset, instance)) return false;
  return ReadFrames(dataset, instance);
}

}  // namespace

const char* RepeatKeyName(int key) {
  static constexpr const char* kNames[kRepeatKeyCount] = {
      "series number",     "stack",         "image type", "echo time", "b-value", "gradient",
      "temporal position", "cardiac phase", "acquisition"};
  return kNames[key];
}

DicomInstance ReadDicomInstance(const std::string& path) {
  DicomInstance instance;
  instance.path = path;
  if (access(path.c_str(), R_OK) != 0) {
    Refuse(instance, Verdict::kUnreadable, std::strerror(errno));
    return instance;
  }
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    Refuse(instance, Verdict::kUnreadable, "not a regular file");
    return instance;
  }
  try {
    DcmFileFormat file;
    ReadHeader(file, instance);
  } catch (const std::exception& exception) {
    Refuse(instance, Verdict::kNotDicom, absl::StrCat("damaged: ", exception.what()));
  }
  return instance;
}

}  // namespace gvsl
