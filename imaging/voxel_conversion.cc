#include "imaging/voxel_conversion.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

template <typename F>
decltype(auto) VisitStoredType(StoredType type, F&& f) {
  switch (type) {
    case StoredType::kInt8:
      return f(int8_t{});
    case StoredType::kUint8:
      return f(uint8_t{});
    case StoredType::kInt16:
      return f(int16_t{});
    case StoredType::kUint16:
      return f(uint16_t{});
    case StoredType::kInt32:
      return f(int32_t{});
    case StoredType::kUint32:
      return f(uint32_t{});
    case StoredType::kInt64:
      return f(int64_t{});
    case StoredType::kUint64:
      return f(uint64_t{});
    case StoredType::kFloat32:
      return f(float{});
    case StoredType::kFloat64:
      break;
  }
  return f(double{});
}

bool IsFloating(StoredType type) {
  return type == StoredType::kFloat32 || type == StoredType::kFloat64;
}

std::string IndexText(const Grid& grid, int64_t voxel) {
  return absl::StrCat("voxel (", voxel % grid.size[0], ", ", voxel / grid.size[0] % grid.size[1],
                      ", ", voxel / (grid.size[0] * grid.size[1]), ")");
}

absl::Status NotFinite(const Grid& grid, int64_t voxel) {
  return absl::InvalidArgumentError(absl::StrCat(
      IndexText(grid, voxel), " is not a finite number; replace NaN and infinity first"));
}

template <typename To, typename From>
bool Fits(From value) {
  if (std::is_unsigned_v<From> && sizeof(From) == 8 && static_cast<uint64_t>(value) > INT64_MAX)
    return false;
  const int64_t wide = static_cast<int64_t>(value);
  return wide >= std::numeric_limits<To>::min() && wide <= std::numeric_limits<To>::max();
}

template <size_t kBytes>
void SwapEach(uint8_t* voxels, int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::reverse(voxels + i * kBytes, voxels + (i + 1) * kBytes);
}

void SwapBytes(size_t bytes_per_voxel, uint8_t* voxels, int64_t count) {
  if (bytes_per_voxel == 2) SwapEach<2>(voxels, count);
  if (bytes_per_voxel == 4) SwapEach<4>(voxels, count);
  if (bytes_per_voxel == 8) SwapEach<8>(voxels, count);
}

}  // namespace

size_t BytesPerStoredVoxel(StoredType type) {
  return VisitStoredType(type, [](auto zero) { return sizeof(zero); });
}

VoxelConverter::VoxelConverter(StoredType stored, double slope, double inter, VolumeKind kind)
    : stored_(stored), slope_(slope), inter_(inter) {
  const bool scaled = slope != 1 || inter != 0;
  if (kind == VolumeKind::kLabels && (scaled || IsFloating(stored))) {
    type_ = VoxelType::kInt32;
  } else if (scaled || IsFloating(stored)) {
    type_ = VoxelType::kFloat32;
  } else {
    switch (stored) {
      case StoredType::kUint8:
        type_ = VoxelType::kUint8;
        break;
      case StoredType::kInt8:
      case StoredType::kInt16:
        type_ = VoxelType::kInt16;
        break;
      case StoredType::kUint16:
        type_ = VoxelType::kUint16;
        break;
      default:
        type_ = VoxelType::kInt32;
    }
  }
  copy_ = !scaled && VisitStoredType(stored, [this](auto zero) {
    using T = decltype(zero);
    return VisitVoxelType(type_, [](auto to) { return std::is_same_v<T, decltype(to)>; });
  });
}

absl::Status VoxelConverter::Convert(const void* stored, int64_t count, int64_t first,
                                     Volume& volume) const {
  const bool whole = slope_ == 1 && inter_ == 0;
  return VisitStoredType(stored_, [&](auto from_zero) {
    using From = decltype(from_zero);
    const From* in = static_cast<const From*>(stored);
    return VisitVoxelType(type_, [&](auto to_zero) -> absl::Status {
      using To = decltype(to_zero);
      To* out = volume.mutable_voxels<To>() + first;
      for (int64_t i = 0; i < count; ++i) {
        if constexpr (std::is_floating_point_v<To>) {
          const To value = static_cast<To>(slope_ * static_cast<double>(in[i]) + inter_);
          if (!std::isfinite(value)) return NotFinite(volume.grid(), first + i);
          out[i] = value;
        } else {
          if constexpr (std::is_integral_v<From>) {
            if (whole && Fits<To>(in[i])) {
              out[i] = static_cast<To>(in[i]);
              continue;
            }
          }
          // long double holds every 64-bit integer.
          const long double value = slope_ * static_cast<long double>(in[i]) + inter_;
          if (!(value >= std::numeric_limits<To>::min() &&
                value <= std::numeric_limits<To>::max()) ||
              value != std::floor(value)) {
            return absl::InvalidArgumentError(absl::StrCat(
                IndexText(volume.grid(), first + i), " has the value ", static_cast<double>(value),
                ", which is no ", VoxelTypeName(type_),
                volume.kind() == VolumeKind::kLabels ? "; labels are whole numbers" : ""));
          }
          out[i] = static_cast<To>(value);
        }
      }
      return absl::OkStatus();
    });
  });
}

absl::Status VoxelConverter::Check(const Volume& volume, int64_t first, int64_t count) const {
  if (type_ != VoxelType::kFloat32) return absl::OkStatus();
  const float* values = volume.voxels<float>() + first;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return NotFinite(volume.grid(), first + i);
  }
  return absl::OkStatus();
}

absl::Status ReadSlices(const ByteReader& read, const VoxelConverter& converter, bool swap_bytes,
                        Volume& volume) {
  const auto& size = volume.grid().size;
  const int64_t plane = size[0] * size[1];
  const size_t voxel_bytes = BytesPerStoredVoxel(converter.stored());
  const int64_t plane_bytes = plane * static_cast<int64_t>(voxel_bytes);
  std::vector<uint8_t> staging;
  if (!converter.is_copy()) staging.resize(static_cast<size_t>(plane_bytes));
  for (int64_t z = 0; z < size[2]; ++z) {
    uint8_t* target =
        converter.is_copy() ? volume.mutable_bytes() + z * plane_bytes : staging.data();
    const auto got = read(target, plane_bytes);
    if (!got.ok()) return got.status();
    if (*got < plane_bytes) {
      return absl::DataLossError(absl::StrCat(
          "the header promises ", plane_bytes * size[2], " bytes of voxels, the file holds ",
          z * plane_bytes + *got, "; it is truncated or its header is wrong"));
    }
    if (swap_bytes) SwapBytes(voxel_bytes, target, plane);
    absl::Status status = converter.is_copy() ? converter.Check(volume, z * plane, plane)
                                              : converter.Convert(target, plane, z * plane, volume);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace gvsl
