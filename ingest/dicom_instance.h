// One DICOM instance as far as volumes need it: what its header says, without its pixels.
#ifndef GVSL_INGEST_DICOM_INSTANCE_H_
#define GVSL_INGEST_DICOM_INSTANCE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "imaging/volume.h"
#include "ingest/ledger.h"

namespace gvsl {

// What tells images of one place apart, in the order in which it is asked.
enum RepeatKey {
  kSeriesNumber,
  kStackId,
  kImageType,  // magnitude, phase, real, imaginary, water, fat
  kEchoTime,
  kBValue,
  kGradient,
  kTemporalPosition,
  kCardiacPhase,
  kAcquisitionNumber,
  kRepeatKeyCount,
};
const char* RepeatKeyName(int key);  // "echo time"

// One slice: a frame of an instance, or a tile of a Siemens mosaic.
struct DicomFrame {
  int frame = 0;                      // within the instance's pixel data, from 0
  int tile_column = 0, tile_row = 0;  // where the slice begins in that frame, in pixels
  Vec3 position_mm = {0, 0, 0};       // LPS, centre of its first pixel
  Vec3 row_direction = {0, 0, 0};     // unit vector along a row: columns increase (PS3.3 C.7.6.2)
  Vec3 column_direction = {0, 0, 0};  // unit vector along a column: rows increase
  double column_spacing_mm = 0;       // between columns; PixelSpacing's second value
  double row_spacing_mm = 0;          // between rows; PixelSpacing's first value
  double slice_thickness_mm = 0;      // 0: unknown
  double slope = 1, intercept = 0;    // value = slope * stored + intercept
  std::array<std::string, kRepeatKeyCount> repeat;
};

struct PixelFormat {
  int columns = 0, rows = 0;              // of a frame of the pixel data
  int slice_columns = 0, slice_rows = 0;  // of a slice; smaller in a mosaic
  int bits_allocated = 0, bits_stored = 0, high_bit = 0;
  bool is_signed = false;
  std::optional<std::array<int32_t, 2>> padding;  // stored values in this range mean "no image"

  // The value that the low `bits_allocated` bits of `raw` stand for: bits outside of
  // BitsStored are dropped (overlays and garbage live there), then the sign is extended.
  int32_t Value(uint16_t raw) const {
    const int32_t value = (raw >> (high_bit + 1 - bits_stored)) & ((1 << bits_stored) - 1);
    return is_signed && (value >> (bits_stored - 1)) != 0 ? value - (1 << bits_stored) : value;
  }
};

struct DicomInstance {
  std::string path;
  std::string sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid;
  std::string frame_of_reference_uid;  // empty where the file has none
  std::string transfer_syntax_uid;
  std::string modality;  // by its class: CT, MR or PT
  // These identify a patient, or may: they never leave as they are.
  std::string patient_id, patient_id_issuer, series_description, body_part;
  std::string source_ae_title;  // who sent it, where the file says so
  int series_number = 0, instance_number = 0;
  int expected_instances = 0;  // of its series, by its own word; 0: it says none
  bool is_compressed = false;  // its pixels need a decoder
  // Where the file has its native pixels, in bytes from its start, little endian; 0: not known,
  // DCMTK finds them.
  int64_t native_offset = 0;
  PixelFormat pixels;
  std::vector<DicomFrame> frames;  // empty unless the verdict is kUsed
  // kUsed here means: fit to be used.
  Verdict verdict = Verdict::kUsed;
  std::string detail;
};

// Reads the header of a file: CT, MR and PET images, classic, Siemens mosaic and enhanced
// multi-frame; with or without meta header, in any byte order, deflated too. Never fails: the
// verdict says what is wrong. Pixel data stays on disk. Thread-safe.
DicomInstance ReadDicomInstance(const std::string& path);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_INSTANCE_H_
