#include "imaging/volume.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr int64_t kMaxVoxels = int64_t{1} << 33;
// Direction cosines come from float32 headers; half a milliradian is far below what anyone can see.
constexpr double kOrthonormalTolerance = 1e-3;
constexpr double kMaxOriginMm = 1e6;

absl::Status CheckKind(VoxelType type, VolumeKind kind) {
  if (kind == VolumeKind::kLabels && type == VoxelType::kFloat32) {
    return absl::InvalidArgumentError(
        "voxel_type: labels need integer voxels, not float32; import the volume as an image, or "
        "convert it");
  }
  return absl::OkStatus();
}

}  // namespace

Vec3 Grid::IndexToPhysical(const Vec3& index) const {
  Vec3 point = origin_mm;
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) point[r] += direction[r][i] * spacing_mm[i] * index[i];
  }
  return point;
}

Vec3 Grid::PhysicalToIndex(const Vec3& point_mm) const {
  // The direction is orthonormal only within a tolerance, so it is inverted rather than transposed.
  const Mat3& m = direction;
  const double cofactor[3][3] = {
      {m[1][1] * m[2][2] - m[1][2] * m[2][1], m[0][2] * m[2][1] - m[0][1] * m[2][2],
       m[0][1] * m[1][2] - m[0][2] * m[1][1]},
      {m[1][2] * m[2][0] - m[1][0] * m[2][2], m[0][0] * m[2][2] - m[0][2] * m[2][0],
       m[0][2] * m[1][0] - m[0][0] * m[1][2]},
      {m[1][0] * m[2][1] - m[1][1] * m[2][0], m[0][1] * m[2][0] - m[0][0] * m[2][1],
       m[0][0] * m[1][1] - m[0][1] * m[1][0]}};
  const double determinant =
      m[0][0] * cofactor[0][0] + m[0][1] * cofactor[1][0] + m[0][2] * cofactor[2][0];
  Vec3 index = {0, 0, 0};
  for (int i = 0; i < 3; ++i) {
    for (int r = 0; r < 3; ++r) index[i] += cofactor[i][r] * (point_mm[r] - origin_mm[r]);
    index[i] /= determinant * spacing_mm[i];
  }
  return index;
}

bool operator==(const Grid& a, const Grid& b) {
  return a.size == b.size && a.spacing_mm == b.spacing_mm && a.origin_mm == b.origin_mm &&
         a.direction == b.direction;
}

absl::Status ValidateGrid(const Grid& grid) {
  for (int i = 0; i < 3; ++i) {
    if (grid.size[i] < 2 || grid.size[i] > 65535) {
      return absl::InvalidArgumentError(
          absl::StrCat("grid.size[", i, "]: ", grid.size[i], " voxels; a volume has 2 to 65535 ",
                       "along every axis (a single slice is no volume)"));
    }
  }
  if (grid.size[0] * grid.size[1] > kMaxVoxels / grid.size[2]) {
    return absl::InvalidArgumentError(absl::StrCat("grid.size: more than ", kMaxVoxels,
                                                   " voxels in all; crop or resample the volume"));
  }
  for (int i = 0; i < 3; ++i) {
    if (!(grid.spacing_mm[i] >= 1e-3 && grid.spacing_mm[i] <= 1e3)) {
      return absl::InvalidArgumentError(
          absl::StrCat("grid.spacing_mm[", i, "]: ", grid.spacing_mm[i],
                       " mm is not a voxel size; it must lie in 0.001 to 1000 mm"));
    }
  }
  for (double position : grid.origin_mm) {
    if (!(std::abs(position) <= kMaxOriginMm)) {
      return absl::InvalidArgumentError(absl::StrCat("grid.origin_mm: ", position,
                                                     " mm is no place near a patient; it must lie "
                                                     "within ",
                                                     kMaxOriginMm, " mm of the scanner's origin"));
    }
  }
  for (int i = 0; i < 3; ++i) {
    for (int j = i; j < 3; ++j) {
      double dot = 0;
      for (int r = 0; r < 3; ++r) dot += grid.direction[r][i] * grid.direction[r][j];
      if (!(std::abs(dot - (i == j ? 1 : 0)) <= kOrthonormalTolerance)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "grid.direction: columns ", i, " and ", j, " have the product ", dot,
            "; the three axes must be unit vectors at right angles (sheared or singular lattices "
            "must be resampled first)"));
      }
    }
  }
  return absl::OkStatus();
}

size_t BytesPerVoxel(VoxelType type) {
  return VisitVoxelType(type, [](auto zero) { return sizeof(zero); });
}

const char* VoxelTypeName(VoxelType type) {
  switch (type) {
    case VoxelType::kUint8:
      return "uint8";
    case VoxelType::kInt16:
      return "int16";
    case VoxelType::kUint16:
      return "uint16";
    case VoxelType::kInt32:
      return "int32";
    case VoxelType::kFloat32:
      break;
  }
  return "float32";
}

absl::StatusOr<Volume> Volume::Allocate(const Grid& grid, VoxelType type, VolumeKind kind) {
  if (absl::Status status = ValidateGrid(grid); !status.ok()) return status;
  if (absl::Status status = CheckKind(type, kind); !status.ok()) return status;
  Volume volume;
  volume.grid_ = grid;
  volume.type_ = type;
  volume.kind_ = kind;
  // calloc: pages of a large volume are zero without being touched.
  auto* data = static_cast<uint8_t*>(std::calloc(volume.byte_count(), 1));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a volume of ", volume.byte_count(), " bytes"));
  }
  volume.data_ = std::shared_ptr<uint8_t>(data, std::free);
  return volume;
}

absl::StatusOr<Volume> Volume::Map(const std::string& path, const Grid& grid, VoxelType type,
                                   VolumeKind kind) {
  if (absl::Status status = ValidateGrid(grid); !status.ok()) return status;
  if (absl::Status status = CheckKind(type, kind); !status.ok()) return status;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const int error = errno;
    const std::string text = absl::StrCat("cannot open ", path, ": ", std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(text) : absl::InternalError(text);
  }
  Volume volume;
  volume.grid_ = grid;
  volume.type_ = type;
  volume.kind_ = kind;
  const size_t size = volume.byte_count();
  struct stat about = {};
  if (fstat(file, &about) != 0 || static_cast<size_t>(about.st_size) != size) {
    close(file);
    return absl::DataLossError(
        absl::StrCat(path, " has ", about.st_size, " bytes where its volume needs ", size));
  }
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, 0);
  const int error = errno;
  close(file);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", path, ": ", std::strerror(error)));
  }
  volume.data_ = std::shared_ptr<uint8_t>(static_cast<uint8_t*>(data),
                                          [size](uint8_t* address) { munmap(address, size); });
  return volume;
}

}  // namespace gvsl
