#include "imaging/metaimage_file.h"

#include <metaImage.h>
#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/voxel_conversion.h"

namespace gvsl {
namespace {

constexpr int64_t kMaxDeflateRatio = 1032;  // zlib's technical notes

// MetaIO reports errors to std::cerr alone; this keeps them off the terminal, one reader at a time.
class QuietErrors {
 public:
  QuietErrors() : lock_(Mutex()), before_(std::cerr.rdbuf(text_.rdbuf())) {}
  ~QuietErrors() { std::cerr.rdbuf(before_); }

 private:
  static std::mutex& Mutex() {
    static std::mutex mutex;
    return mutex;
  }
  std::lock_guard<std::mutex> lock_;
  std::ostringstream text_;
  std::streambuf* before_;
};

absl::StatusOr<StoredType> TypeOf(MET_ValueEnumType type) {
  switch (type) {
    case MET_CHAR:
      return StoredType::kInt8;
    case MET_UCHAR:
      return StoredType::kUint8;
    case MET_SHORT:
      return StoredType::kInt16;
    case MET_USHORT:
      return StoredType::kUint16;
    case MET_INT:
    case MET_LONG:  // 4 bytes in MetaImage, whatever the machine
      return StoredType::kInt32;
    case MET_UINT:
    case MET_ULONG:
      return StoredType::kUint32;
    case MET_LONG_LONG:
      return StoredType::kInt64;
    case MET_ULONG_LONG:
      return StoredType::kUint64;
    case MET_FLOAT:
      return StoredType::kFloat32;
    case MET_DOUBLE:
      return StoredType::kFloat64;
    default:
      return absl::InvalidArgumentError("ElementType: arrays and text are no voxels");
  }
}

MET_ValueEnumType MetTypeOf(VoxelType type) {
  switch (type) {
    case VoxelType::kUint8:
      return MET_UCHAR;
    case VoxelType::kInt16:
      return MET_SHORT;
    case VoxelType::kUint16:
      return MET_USHORT;
    case VoxelType::kInt32:
      return MET_INT;
    case VoxelType::kFloat32:
      break;
  }
  return MET_FLOAT;
}

// Bytes that the header's file of voxels can hold at most; refuses lists and patterns of files.
absl::StatusOr<int64_t> RoomForVoxels(const MetaImage& image, const std::string& path) {
  const std::string name = image.ElementDataFileName();
  if (name.rfind("LIST", 0) == 0 || name.find('%') != std::string::npos) {
    return absl::InvalidArgumentError(
        "ElementDataFile: one file a slice is not read; write it as one .mha");
  }
  std::filesystem::path data = path;
  if (name != "LOCAL" && name != "Local" && name != "local") {
    data = std::filesystem::path(path).parent_path() / name;
  }
  std::error_code error;
  const auto bytes = std::filesystem::file_size(data, error);
  if (error)
    return absl::NotFoundError(
        absl::StrCat("ElementDataFile: ", data.string(), ": ", error.message()));
  return static_cast<int64_t>(bytes) * (image.CompressedData() ? kMaxDeflateRatio : 1);
}

absl::StatusOr<Grid> GridOf(const MetaImage& image) {
  if (image.NDims() != 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("NDims: ", image.NDims(), "D data; a volume is 3D",
                     image.NDims() > 3 ? ": split the series first" : ""));
  }
  Grid grid;
  for (int i = 0; i < 3; ++i) {
    grid.size[i] = image.DimSize(i);
    grid.spacing_mm[i] = image.ElementSpacing(i);
    grid.origin_mm[i] = image.Origin(i);
    // Row i of TransformMatrix is the direction of axis i, as ITK reads it.
    for (int r = 0; r < 3; ++r) grid.direction[r][i] = image.TransformMatrix()[i * 3 + r];
  }
  if (absl::Status status = ValidateGrid(grid); !status.ok()) return status;
  return grid;
}

}  // namespace

absl::StatusOr<Volume> ReadMetaImage(const std::string& path, const ReadOptions& options) {
  struct stat about = {};
  if (stat(path.c_str(), &about) != 0) return absl::NotFoundError(std::strerror(errno));
  QuietErrors quiet;
  MetaImage image;
  if (!image.CanRead(path.c_str()) || !image.Read(path.c_str(), false)) {
    return absl::InvalidArgumentError("not a MetaImage, or its header is damaged");
  }
  if (image.ElementNumberOfChannels() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("ElementNumberOfChannels: ", image.ElementNumberOfChannels(),
                     "; only one is read (no RGB)"));
  }
  auto stored = TypeOf(image.ElementType());
  if (!stored.ok()) return stored.status();
  auto grid = GridOf(image);
  if (!grid.ok()) return grid.status();
  auto room = RoomForVoxels(image, path);
  if (!room.ok()) return room.status();
  const int64_t count = grid->voxel_count();
  const int64_t wanted = count * static_cast<int64_t>(BytesPerStoredVoxel(*stored));
  if (wanted > *room) {
    return absl::DataLossError(absl::StrCat(
        "the header promises ", wanted, " bytes of voxels, the file can hold ", *room, " at most"));
  }

  const VoxelConverter converter(*stored, 1, 0, options.kind);
  auto volume = Volume::Allocate(*grid, converter.type(), options.kind);
  if (!volume.ok()) return volume;
  std::vector<uint8_t> staging;
  if (!converter.is_copy()) staging.resize(static_cast<size_t>(wanted));
  void* target = converter.is_copy() ? volume->mutable_bytes() : staging.data();
  MetaImage reader;
  if (!reader.Read(path.c_str(), true, target)) {
    return absl::DataLossError(
        "the file holds fewer voxels than its header promises, or they are corrupt");
  }
  absl::Status status = converter.is_copy() ? converter.Check(*volume, 0, count)
                                            : converter.Convert(staging.data(), count, 0, *volume);
  if (!status.ok()) return status;
  return volume;
}

absl::Status WriteMetaImage(const Volume& volume, const std::string& path,
                            const std::string& data_name) {
  const Grid& grid = volume.grid();
  QuietErrors quiet;
  // MetaIO takes the voxels as void*, but only reads them here.
  MetaImage image(static_cast<int>(grid.size[0]), static_cast<int>(grid.size[1]),
                  static_cast<int>(grid.size[2]), grid.spacing_mm[0], grid.spacing_mm[1],
                  grid.spacing_mm[2], MetTypeOf(volume.type()), 1,
                  const_cast<uint8_t*>(volume.bytes()));
  double matrix[9];
  for (int i = 0; i < 3; ++i) {
    image.Origin(i, grid.origin_mm[i]);
    for (int r = 0; r < 3; ++r) matrix[i * 3 + r] = grid.direction[r][i];
  }
  image.TransformMatrix(matrix);
  image.SetDoublePrecision(17);
  image.BinaryData(true);
  image.CompressedData(false);
  if (!image.Write(path.c_str(), data_name.empty() ? nullptr : data_name.c_str())) {
    return absl::InvalidArgumentError(
        "cannot be written; check the folder's rights and the space on its disk");
  }
  return absl::OkStatus();
}

}  // namespace gvsl
