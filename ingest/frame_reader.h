// The pixels of slices, wherever they lie: native ones straight from their file, compressed ones
// through a decoder process, tiles out of their mosaic.
#ifndef GVSL_INGEST_FRAME_READER_H_
#define GVSL_INGEST_FRAME_READER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ingest/decoder_process.h"
#include "ingest/dicom_instance.h"
#include "ingest/dicom_pixels.h"

namespace gvsl {

// Holds one open file and one frame. Not thread-safe: one a thread.
class FrameReader {
 public:
  explicit FrameReader(std::string decoder_program = DefaultDecoderProgram())
      : decoder_(std::move(decoder_program)) {}

  // The stored pixels of a slice, `[slice_rows][slice_columns]` of its instance's format
  // (PixelFormat::Value makes numbers of them). Errors as DicomPixelFile and DecoderProcess.
  absl::StatusOr<std::vector<uint16_t>> Slice(const DicomInstance& instance,
                                              const DicomFrame& frame);

 private:
  absl::Status Load(const DicomInstance& instance, int frame);

  DecoderProcess decoder_;
  std::optional<DicomPixelFile> file_;
  std::string file_path_;
  // The frame that was read last; a mosaic's tiles come out of one.
  std::vector<uint16_t> pixels_;
  std::string pixels_path_;
  int pixels_frame_ = -1;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_FRAME_READER_H_
