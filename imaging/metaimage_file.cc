#include "imaging/metaimage_file.h"

#include <metaImage.h>
#include <sys/stat.h>
#include <zlib.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
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

// Where the voxels of a header lie: a file, opened at their first byte.
struct VoxelFile {
  std::ifstream stream;
  int64_t bytes = 0;  // from the first voxel to the end of the file
};

// `header` is the stream that the header was read from. Refuses lists and patterns of files.
absl::StatusOr<VoxelFile> OpenVoxels(const MetaImage& image, const std::string& path,
                                     std::ifstream header, int64_t wanted) {
  const std::string name = image.ElementDataFileName();
  if (name.rfind("LIST", 0) == 0 || name.find('%') != std::string::npos) {
    return absl::InvalidArgumentError(
        "ElementDataFile: one file a slice is not read; write it as one .mha");
  }
  VoxelFile file;
  int64_t offset = 0;
  if (name == "LOCAL" || name == "Local" || name == "local") {
    file.stream = std::move(header);
    offset = file.stream.tellg();
  } else {
    const auto data = std::filesystem::path(path).parent_path() / name;
    file.stream.open(data, std::ios::binary);
    if (!file.stream) {
      return absl::NotFoundError(
          absl::StrCat("ElementDataFile: ", data.string(), ": ", std::strerror(errno)));
    }
    offset = std::max(image.HeaderSize(), -1);
  }
  file.stream.seekg(0, std::ios::end);
  const int64_t end = file.stream.tellg();
  if (offset < 0) offset = std::max<int64_t>(end - wanted, 0);  // HeaderSize = -1: the last bytes
  file.bytes = std::max<int64_t>(end - offset, 0);
  file.stream.seekg(offset);
  return file;
}

// A zlib (or gzip) stream within a file.
class Inflater {
 public:
  explicit Inflater(std::ifstream& file) : file_(file), input_(1 << 18) {
    inflateInit2(&stream_, 15 + 32);  // 32: either wrapping
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  absl::StatusOr<int64_t> Read(uint8_t* out, int64_t count) {
    int64_t at = 0;
    while (at < count && !ended_) {
      if (stream_.avail_in == 0) {
        file_.read(input_.data(), static_cast<std::streamsize>(input_.size()));
        stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
        stream_.avail_in = static_cast<unsigned>(file_.gcount());
        if (stream_.avail_in == 0) break;
      }
      const unsigned room = static_cast<unsigned>(std::min<int64_t>(count - at, 1 << 30));
      stream_.next_out = out + at;
      stream_.avail_out = room;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      at += room - stream_.avail_out;
      ended_ = result == Z_STREAM_END;
      if (result != Z_OK && result != Z_STREAM_END) {
        return absl::DataLossError(absl::StrCat("the compressed voxels are corrupt (",
                                                stream_.msg ? stream_.msg : "no zlib stream", ")"));
      }
    }
    return at;
  }

  // To be called behind the last voxel: only at the stream's end is its checksum compared.
  absl::Status CheckEnd() {
    uint8_t more = 0;
    const auto got = Read(&more, 1);
    if (!got.ok()) return got.status();
    if (*got > 0) {
      return absl::InvalidArgumentError(
          "the compressed voxels go on beyond what the header promises");
    }
    return ended_ ? absl::OkStatus() : absl::DataLossError("the compressed voxels break off");
  }

 private:
  std::ifstream& file_;
  std::vector<char> input_;
  z_stream stream_ = {};
  bool ended_ = false;
};

absl::Status ReadVoxels(VoxelFile& file, bool compressed, bool swap_bytes,
                        const VoxelConverter& converter, Volume& volume) {
  if (!compressed) {
    return ReadSlices(
        [&](uint8_t* out, int64_t count) -> absl::StatusOr<int64_t> {
          file.stream.read(reinterpret_cast<char*>(out), count);
          return static_cast<int64_t>(file.stream.gcount());
        },
        converter, swap_bytes, volume);
  }
  Inflater inflater(file.stream);
  absl::Status status =
      ReadSlices([&](uint8_t* out, int64_t count) { return inflater.Read(out, count); }, converter,
                 swap_bytes, volume);
  return status.ok() ? inflater.CheckEnd() : status;
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
  MetaImage image;
  std::ifstream header(path, std::ios::binary);
  {
    // MetaIO reads the header alone: it would need a second copy of compressed voxels.
    const QuietErrors quiet;
    if (!image.ReadStream(0, &header, false)) {
      return absl::InvalidArgumentError("not a MetaImage, or its header is damaged");
    }
  }
  if (image.ElementNumberOfChannels() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("ElementNumberOfChannels: ", image.ElementNumberOfChannels(),
                     "; only one is read (no RGB)"));
  }
  if (!image.BinaryData()) {
    return absl::InvalidArgumentError("BinaryData: voxels written as text are not read");
  }
  auto stored = TypeOf(image.ElementType());
  if (!stored.ok()) return stored.status();
  auto grid = GridOf(image);
  if (!grid.ok()) return grid.status();
  const int64_t wanted = grid->voxel_count() * static_cast<int64_t>(BytesPerStoredVoxel(*stored));
  auto file = OpenVoxels(image, path, std::move(header), wanted);
  if (!file.ok()) return file.status();
  const int64_t room = file->bytes * (image.CompressedData() ? kMaxDeflateRatio : 1);
  // Before memory is taken for what cannot be there.
  if (wanted > room) {
    return absl::DataLossError(absl::StrCat("the header promises ", wanted,
                                            " bytes of voxels, the file can hold at most ", room,
                                            "; it is truncated or its header is wrong"));
  }
  const VoxelConverter converter(*stored, 1, 0, options.kind);
  auto volume = Volume::Allocate(*grid, converter.type(), options.kind);
  if (!volume.ok()) return volume;
  absl::Status status =
      ReadVoxels(*file, image.CompressedData(), image.BinaryDataByteOrderMSB(), converter, *volume);
  if (!status.ok()) return status;
  return volume;
}

absl::Status WriteMetaImage(const Volume& volume, const std::string& data_name, OutputFile& file) {
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
  image.ElementDataFileName(data_name.empty() ? "LOCAL" : data_name.c_str());
  // MetaIO reports success on a full disk, so the voxels are written here.
  std::ofstream header(file.aside(), std::ios::binary | std::ios::trunc);
  const bool good = image.WriteStream(&header, false);
  const int64_t size = header.tellp();
  header.close();
  if (!good || !header.good()) return file.Failed(errno);
  if (!data_name.empty()) return absl::OkStatus();
  return file.Write(volume.bytes(), volume.byte_count(), size);
}

}  // namespace gvsl
