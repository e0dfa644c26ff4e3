// Volume: a 3D image or label map with its place in physical space.
//
//   auto volume = gvsl::Volume::Allocate(grid, VoxelType::kInt16, VolumeKind::kImage);
//   int16_t* voxels = volume->mutable_voxels<int16_t>();   // [slice][row][column]
//
// Physical space is LPS in millimetres, as in DICOM and ITK. Index axis 0 runs along columns
// (fastest in memory), 1 along rows, 2 along slices; an index is a voxel centre.
#ifndef GVSL_IMAGING_VOLUME_H_
#define GVSL_IMAGING_VOLUME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<Vec3, 3>;  // row by row

// The voxel lattice. `direction[r][i]` is component r (L, P, S) of the unit vector along index axis
// i.
struct Grid {
  std::array<int64_t, 3> size = {0, 0, 0};  // columns, rows, slices
  Vec3 spacing_mm = {1, 1, 1};
  Vec3 origin_mm = {0, 0, 0};  // centre of voxel (0, 0, 0)
  Mat3 direction = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};

  int64_t voxel_count() const { return size[0] * size[1] * size[2]; }
  // LPS position in mm of a (fractional) index, and back.
  Vec3 IndexToPhysical(const Vec3& index) const;
  Vec3 PhysicalToIndex(const Vec3& point_mm) const;
};

bool operator==(const Grid& a, const Grid& b);
inline bool operator!=(const Grid& a, const Grid& b) { return !(a == b); }

// OK if a volume can live on this grid: every size 2..65535 and at most 2^33 voxels in all, spacing
// 0.001..1000 mm, origin within 1e6 mm of zero, direction orthonormal within 1e-3. Otherwise
// INVALID_ARGUMENT that names the field ("grid.spacing_mm[2]: ...").
absl::Status ValidateGrid(const Grid& grid);

enum class VoxelType { kUint8, kInt16, kUint16, kInt32, kFloat32 };
enum class VolumeKind { kImage, kLabels };

size_t BytesPerVoxel(VoxelType type);
const char* VoxelTypeName(VoxelType type);  // "uint8", ...

template <typename T>
struct VoxelTypeOf;
template <>
struct VoxelTypeOf<uint8_t> {
  static constexpr VoxelType value = VoxelType::kUint8;
};
template <>
struct VoxelTypeOf<int16_t> {
  static constexpr VoxelType value = VoxelType::kInt16;
};
template <>
struct VoxelTypeOf<uint16_t> {
  static constexpr VoxelType value = VoxelType::kUint16;
};
template <>
struct VoxelTypeOf<int32_t> {
  static constexpr VoxelType value = VoxelType::kInt32;
};
template <>
struct VoxelTypeOf<float> {
  static constexpr VoxelType value = VoxelType::kFloat32;
};

// Calls f(T{}) with T the C++ type of `type`.
template <typename F>
decltype(auto) VisitVoxelType(VoxelType type, F&& f) {
  switch (type) {
    case VoxelType::kUint8:
      return f(uint8_t{});
    case VoxelType::kInt16:
      return f(int16_t{});
    case VoxelType::kUint16:
      return f(uint16_t{});
    case VoxelType::kInt32:
      return f(int32_t{});
    case VoxelType::kFloat32:
      break;
  }
  return f(float{});
}

// Owns its voxels, on the heap or as a private mapping of a file. Movable, not copyable: a CT of
// 512 MB is never copied by accident. Const access from several threads is safe.
class Volume {
 public:
  Volume() = default;
  Volume(Volume&&) = default;
  Volume& operator=(Volume&&) = default;

  // Zeroed voxels. INVALID_ARGUMENT for a bad grid or float LABELS, RESOURCE_EXHAUSTED without
  // memory.
  static absl::StatusOr<Volume> Allocate(const Grid& grid, VoxelType type, VolumeKind kind);

  // Voxels read on demand from a file of raw little-endian voxels, which must not change meanwhile.
  // NOT_FOUND without the file, DATA_LOSS if its length is wrong.
  static absl::StatusOr<Volume> Map(const std::string& path, const Grid& grid, VoxelType type,
                                    VolumeKind kind);

  const Grid& grid() const { return grid_; }
  VoxelType type() const { return type_; }
  VolumeKind kind() const { return kind_; }

  int64_t voxel_count() const { return grid_.voxel_count(); }
  size_t byte_count() const { return static_cast<size_t>(voxel_count()) * BytesPerVoxel(type_); }
  const uint8_t* bytes() const { return data_.get(); }
  uint8_t* mutable_bytes() { return data_.get(); }

  // T must match type().
  template <typename T>
  const T* voxels() const {
    return reinterpret_cast<const T*>(data_.get());
  }
  template <typename T>
  T* mutable_voxels() {
    return reinterpret_cast<T*>(data_.get());
  }

  // DICOM modality code ("CT", "MR", ...), empty if unknown.
  const std::string& modality() const { return modality_; }
  void set_modality(std::string modality) { modality_ = std::move(modality); }

 private:
  Grid grid_;
  VoxelType type_ = VoxelType::kFloat32;
  VolumeKind kind_ = VolumeKind::kImage;
  std::string modality_;
  std::shared_ptr<uint8_t> data_;  // its deleter frees or unmaps
};

}  // namespace gvsl

#endif  // GVSL_IMAGING_VOLUME_H_
