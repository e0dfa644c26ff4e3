#include "server/dense_stream.h"

#include <Eigen/Core>
#include <algorithm>
#include <array>

#include "client/wire.h"

namespace gvsl {

absl::Status DenseStream::Begin(const DenseHeader& header) {
  slice_values_ = static_cast<size_t>(header.channels * header.grid.size[0] * header.grid.size[1]);
  const int64_t element = header_.type() == v1::FLOAT16 ? 2 : 4;
  *header_.mutable_grid() = ToProto(header.grid);
  header_.set_channels(static_cast<int32_t>(header.channels));
  header_.set_total_bytes(element * header.channels * header.grid.voxel_count());
  v1::ExtractDenseResponse message;
  *message.mutable_header() = header_;
  return writer_.Write(message);
}

absl::Status DenseStream::Slice(int64_t, const float* values) {
  if (header_.type() != v1::FLOAT16)
    return Add(reinterpret_cast<const char*>(values), slice_values_ * sizeof(float));
  std::array<uint16_t, 16384> half;  // a slice may have hundreds of channels
  for (size_t first = 0; first < slice_values_; first += half.size()) {
    const size_t count = std::min(half.size(), slice_values_ - first);
    for (size_t i = 0; i < count; ++i) {
      half[i] = Eigen::numext::bit_cast<uint16_t>(Eigen::half(values[first + i]));
    }
    absl::Status status = Add(reinterpret_cast<const char*>(half.data()), count * sizeof(uint16_t));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DenseStream::Add(const char* data, size_t size) {
  while (size > 0) {
    std::string& chunk = *pending_.mutable_chunk()->mutable_data();
    chunk.reserve(kMaxChunkBytes);
    const size_t part = std::min(size, kMaxChunkBytes - chunk.size());
    chunk.append(data, part);
    data += part;
    size -= part;
    if (chunk.size() < kMaxChunkBytes) continue;
    if (absl::Status status = Finish(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DenseStream::Finish() {
  if (pending_.chunk().data().empty()) return absl::OkStatus();
  pending_.mutable_chunk()->set_crc32(ChecksumOf(pending_.chunk().data()));
  absl::Status status = writer_.Write(pending_);
  pending_.mutable_chunk()->mutable_data()->clear();  // its memory serves again
  return status;
}

}  // namespace gvsl
