#include "client/wire.h"

#include <zlib.h>

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"

namespace gvsl {

uint32_t ChecksumOf(const std::string& data) {
  return static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

int64_t DenseChannels(const v1::Model& model, int64_t levels) {
  const auto& widths = model.card().widths();
  const int64_t count = std::min<int64_t>(std::max<int64_t>(levels, 1), widths.size());
  return std::accumulate(widths.begin(), widths.begin() + count, int64_t{0});
}

v1::Grid ToProto(const Grid& grid) {
  v1::Grid message;
  for (int i = 0; i < 3; ++i) {
    message.add_size(grid.size[i]);
    message.add_spacing_mm(grid.spacing_mm[i]);
    message.add_origin_mm(grid.origin_mm[i]);
  }
  for (const Vec3& row : grid.direction) {
    for (double component : row) message.add_direction(component);
  }
  return message;
}

v1::Volume::VoxelType ToProto(VoxelType type) {
  switch (type) {
    case VoxelType::kUint8:
      return v1::Volume::UINT8;
    case VoxelType::kInt16:
      return v1::Volume::INT16;
    case VoxelType::kUint16:
      return v1::Volume::UINT16;
    case VoxelType::kInt32:
      return v1::Volume::INT32;
    case VoxelType::kFloat32:
      break;
  }
  return v1::Volume::FLOAT;
}

absl::StatusOr<Grid> FromProto(const v1::Grid& message) {
  if (message.size_size() != 3 || message.spacing_mm_size() != 3 || message.origin_mm_size() != 3 ||
      message.direction_size() != 9) {
    return absl::InvalidArgumentError(
        "grid: needs 3 values of size, spacing_mm and origin_mm, and 9 of direction");
  }
  Grid grid;
  for (int i = 0; i < 3; ++i) {
    grid.size[i] = message.size(i);
    grid.spacing_mm[i] = message.spacing_mm(i);
    grid.origin_mm[i] = message.origin_mm(i);
    for (int j = 0; j < 3; ++j) grid.direction[i][j] = message.direction(3 * i + j);
  }
  return grid;
}

VoxelType FromProto(v1::Volume::VoxelType type) {
  switch (type) {
    case v1::Volume::INT16:
      return VoxelType::kInt16;
    case v1::Volume::UINT16:
      return VoxelType::kUint16;
    case v1::Volume::INT32:
      return VoxelType::kInt32;
    case v1::Volume::FLOAT:
      return VoxelType::kFloat32;
    default:
      return VoxelType::kUint8;
  }
}

std::string ContentDigest(const v1::Volume& volume, const std::string& voxels_sha256) {
  // The voxels' own digest stands for them; numbers as they lie in memory, little-endian on the
  // wire as here.
  std::string head =
      absl::StrCat(v1::Volume::VoxelType_Name(volume.voxel_type()), "/",
                   volume.kind() == v1::Volume::LABELS ? "LABELS" : "IMAGE", "/", voxels_sha256);
  for (const auto* numbers :
       {&volume.grid().spacing_mm(), &volume.grid().origin_mm(), &volume.grid().direction()}) {
    for (double number : *numbers) {
      number += 0.0;  // one zero, not two
      head.append(reinterpret_cast<const char*>(&number), sizeof(number));
    }
  }
  for (int64_t size : volume.grid().size()) absl::StrAppend(&head, "/", size);
  return Sha256Of(head);
}

}  // namespace gvsl
