// The stored pixels of a DICOM file, frame by frame.
#ifndef GVSL_INGEST_DICOM_PIXELS_H_
#define GVSL_INGEST_DICOM_PIXELS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

// One open file. Native pixels are read from it as they are asked for; compressed ones are decoded
// by DCMTK (RLE, JPEG, JPEG-LS) and OpenJPEG (JPEG 2000) in this process: hostile files belong
// behind a DecoderProcess. Not thread-safe; several files at once are.
class DicomPixelFile {
 public:
  // NOT_FOUND, DATA_LOSS: the file is not there, or no DICOM image of grey values.
  static absl::StatusOr<DicomPixelFile> Open(const std::string& path);
  DicomPixelFile(DicomPixelFile&&) noexcept;
  DicomPixelFile& operator=(DicomPixelFile&&) noexcept;
  ~DicomPixelFile();

  // Frame `index` from 0, `[row][column]`, each pixel in the low BitsAllocated bits as stored, with
  // what lies above BitsStored. DATA_LOSS where the bytes are damaged or too few,
  // INVALID_ARGUMENT without such a frame.
  absl::StatusOr<std::vector<uint16_t>> Frame(int index);

 private:
  struct Impl;
  explicit DicomPixelFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// What the first file would wait for: the dictionary and the codecs.
void PrepareDicomPixels();

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_PIXELS_H_
