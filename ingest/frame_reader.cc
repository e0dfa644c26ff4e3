#include "ingest/frame_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace gvsl {
namespace {

// A frame of native pixels, whose place is known.
absl::StatusOr<std::vector<uint16_t>> ReadNative(const DicomInstance& instance, int frame,
                                                 size_t count) {
  std::vector<uint16_t> pixels(count);
  const bool narrow = instance.pixels.bits_allocated == 8;
  const size_t size = narrow ? count : count * sizeof(uint16_t);
  // Bytes lie in the back half, from where they are spread.
  auto* bytes = reinterpret_cast<uint8_t*>(pixels.data()) + (narrow ? count : 0);
  const int file = open(instance.path.c_str(), O_RDONLY | O_CLOEXEC);
  size_t done = 0;
  while (file >= 0 && done < size) {
    const auto at = static_cast<off_t>(instance.native_offset + static_cast<int64_t>(size) * frame +
                                       static_cast<int64_t>(done));
    const ssize_t got = pread(file, bytes + done, size - done, at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  if (file >= 0) close(file);
  if (done < size) return absl::DataLossError("the file has changed meanwhile");
  if (narrow) std::copy_n(bytes, count, pixels.data());
  return pixels;
}

}  // namespace

absl::Status FrameReader::Load(const DicomInstance& instance, int frame) {
  if (instance.path == pixels_path_ && frame == pixels_frame_) return absl::OkStatus();
  pixels_path_.clear();
  const size_t count = static_cast<size_t>(instance.pixels.rows) * instance.pixels.columns;
  absl::StatusOr<std::vector<uint16_t>> pixels;
  if (instance.is_compressed) {
    pixels = decoder_.Frame(instance.path, frame, count);
  } else if (instance.native_offset > 0) {
    pixels = ReadNative(instance, frame, count);
  } else {
    if (instance.path != file_path_) {
      file_.reset();
      file_path_.clear();
      absl::StatusOr<DicomPixelFile> opened = DicomPixelFile::Open(instance.path);
      if (!opened.ok()) return opened.status();
      file_ = *std::move(opened);
      file_path_ = instance.path;
    }
    pixels = file_->Frame(frame);
  }
  if (!pixels.ok()) return pixels.status();
  if (pixels->size() != count) return absl::DataLossError("the file has changed meanwhile");
  pixels_ = *std::move(pixels);
  pixels_path_ = instance.path;
  pixels_frame_ = frame;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint16_t>> FrameReader::Slice(const DicomInstance& instance,
                                                         const DicomFrame& frame) {
  if (absl::Status status = Load(instance, frame.frame); !status.ok()) return status;
  const PixelFormat& format = instance.pixels;
  if (format.slice_columns == format.columns && format.slice_rows == format.rows) {
    pixels_path_.clear();
    return std::exchange(pixels_, {});
  }
  std::vector<uint16_t> slice(static_cast<size_t>(format.slice_columns) * format.slice_rows);
  for (int row = 0; row < format.slice_rows; ++row) {
    const uint16_t* from = pixels_.data() +
                           static_cast<size_t>(frame.tile_row + row) * format.columns +
                           frame.tile_column;
    std::copy_n(from, format.slice_columns,
                slice.data() + static_cast<size_t>(row) * format.slice_columns);
  }
  return slice;
}

}  // namespace gvsl
