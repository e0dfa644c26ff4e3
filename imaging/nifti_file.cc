#include "imaging/nifti_file.h"

#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

extern "C" {
#include <nifti2_io.h>
}

#include "absl/strings/str_cat.h"
#include "imaging/voxel_conversion.h"

namespace gvsl {
namespace {

// Deflate shrinks at most this much (zlib's technical notes: 1032 to 1).
constexpr int64_t kMaxDeflateRatio = 1032;
// Bytes that may follow the voxels in a gzip stream; whatever goes on longer is no volume.
constexpr int kMaxTrailingBytes = 1 << 20;
constexpr double kLargestOffset = 1e15;  // bytes; a float32 header may hold anything
constexpr int kGzipBufferBytes = 1 << 18;

struct FreeImage {
  void operator()(nifti_image* image) const { nifti_image_free(image); }
};
using NiftiImage = std::unique_ptr<nifti_image, FreeImage>;

struct CloseGzip {
  void operator()(gzFile file) const { gzclose(file); }
};
using GzipFile = std::unique_ptr<gzFile_s, CloseGzip>;

enum class Content { kVolume, kVectors };

// What niftilib would mend in silence (a zero size becomes 1) or refuse without a reason.
absl::Status CheckSizes(const int64_t (&dim)[8], Content content) {
  if (dim[0] < 1 || dim[0] > 7) {
    return absl::InvalidArgumentError(
        absl::StrCat("dim[0]: ", dim[0], " dimensions; the header is damaged"));
  }
  for (int64_t axis = 1; axis <= dim[0]; ++axis) {
    if (dim[axis] < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("dim[", axis, "]: ", dim[axis], " voxels; there is nothing to read"));
    }
  }
  if (content == Content::kVectors) {
    if (dim[0] == 5 && dim[4] == 1 && dim[5] == 3) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "no displacement field: its header must be 5D, columns x rows x slices x 1 x 3");
  }
  for (int64_t axis = 1; axis <= dim[0]; ++axis) {
    if (axis > 3 && dim[axis] > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          dim[0], "D data (", dim[axis], " along axis ", axis,
          "); a volume is 3D: split the series (fslsplit, nibabel's slicer) and import the parts"));
    }
  }
  if (dim[0] < 3 || dim[3] == 1) {
    return absl::InvalidArgumentError("2D data (a single slice); a volume is 3D");
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredType> TypeOf(int datatype) {
  switch (datatype) {
    case NIFTI_TYPE_UINT8:
      return StoredType::kUint8;
    case NIFTI_TYPE_INT8:
      return StoredType::kInt8;
    case NIFTI_TYPE_INT16:
      return StoredType::kInt16;
    case NIFTI_TYPE_UINT16:
      return StoredType::kUint16;
    case NIFTI_TYPE_INT32:
      return StoredType::kInt32;
    case NIFTI_TYPE_UINT32:
      return StoredType::kUint32;
    case NIFTI_TYPE_INT64:
      return StoredType::kInt64;
    case NIFTI_TYPE_UINT64:
      return StoredType::kUint64;
    case NIFTI_TYPE_FLOAT32:
      return StoredType::kFloat32;
    case NIFTI_TYPE_FLOAT64:
      return StoredType::kFloat64;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("voxels of type ", nifti_datatype_string(datatype),
                       "; only real numbers of one channel are read (no RGB, no complex)"));
  }
}

// Fields of either version of the header, which differ in their types alone.
template <typename Header>
absl::StatusOr<NiftiImage> ImageOf(Header header, int version, const std::string& path,
                                   Content content, nifti_image* (*convert)(Header, const char*)) {
  if (header.magic[1] != '+') {
    return absl::InvalidArgumentError(
        "an Analyze file or a header with its voxels in another file; convert it to one .nii");
  }
  Header native = header;
  if (native.sizeof_hdr != static_cast<int>(sizeof(Header))) swap_nifti_header(&native, version);
  int64_t dim[8];
  std::copy(native.dim, native.dim + 8, dim);
  if (absl::Status status = CheckSizes(dim, content); !status.ok()) return status;
  if (auto stored = TypeOf(native.datatype); !stored.ok()) return stored.status();
  NiftiImage image(convert(header, path.c_str()));
  const double offset = static_cast<double>(native.vox_offset);
  if (image == nullptr || !(std::abs(offset) < kLargestOffset)) {
    return absl::InvalidArgumentError("the NIfTI header is damaged");
  }
  // Behind the header and its 4 bytes of flags at least, as nibabel mends it.
  image->iname_offset =
      std::max(static_cast<int64_t>(offset), static_cast<int64_t>(sizeof(Header)) + 4);
  return image;
}

absl::StatusOr<NiftiImage> ReadHeader(const std::string& path, Content content) {
  static const int quiet = (nifti_set_debug_level(0), 0);
  int version = quiet;
  // The header alone: no extension is parsed, no voxel read.
  std::unique_ptr<void, decltype(&std::free)> raw(nifti_read_header(path.c_str(), &version, 0),
                                                  std::free);
  if (raw != nullptr && (version == 0 || version == 1)) {
    return ImageOf(*static_cast<nifti_1_header*>(raw.get()), 1, path, content,
                   nifti_convert_n1hdr2nim);
  }
  if (raw != nullptr && version == 2) {
    return ImageOf(*static_cast<nifti_2_header*>(raw.get()), 2, path, content,
                   nifti_convert_n2hdr2nim);
  }
  return absl::InvalidArgumentError("not a NIfTI file");
}

// The lattice in LPS from an index-to-RAS matrix.
Grid FromRas(const std::array<int64_t, 3>& size, const double (&ras)[3][4]) {
  Grid grid;
  grid.size = size;
  for (int r = 0; r < 3; ++r) grid.origin_mm[r] = r < 2 ? -ras[r][3] : ras[r][3];
  for (int i = 0; i < 3; ++i) {
    grid.spacing_mm[i] = std::hypot(ras[0][i], ras[1][i], ras[2][i]);
    for (int r = 0; r < 3; ++r) {
      const double component = grid.spacing_mm[i] > 0 ? ras[r][i] / grid.spacing_mm[i] : 0;
      grid.direction[r][i] = r < 2 ? -component : component;
    }
  }
  return grid;
}

absl::StatusOr<Grid> GridOf(const nifti_image& image) {
  const std::array<int64_t, 3> size = {image.dim[1], image.dim[2], image.dim[3]};
  double ras[3][4] = {};
  const char* source = "voxel sizes (pixdim)";
  if (image.sform_code > 0 || image.qform_code > 0) {
    const nifti_dmat44& matrix = image.sform_code > 0 ? image.sto_xyz : image.qto_xyz;
    source = image.sform_code > 0 ? "sform" : "qform";
    const double b = image.quatern_b, c = image.quatern_c, d = image.quatern_d;
    // niftilib would mend it in silence. A unit quaternion's parts; float32 rounds their squares.
    if (image.sform_code <= 0 && !(b * b + c * c + d * d <= 1 + 1e-5)) {
      return absl::InvalidArgumentError(
          "geometry from the qform: its quaternion is longer than 1, so it is no rotation");
    }
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 4; ++c) ras[r][c] = matrix.m[r][c];
    }
  } else {
    // No transform at all: as nibabel does, columns grow to the left and the centre is the origin.
    for (int i = 0; i < 3; ++i) {
      ras[i][i] = (i == 0 ? -1 : 1) * std::abs(image.pixdim[i + 1]);
      ras[i][3] = -ras[i][i] * static_cast<double>(size[i] - 1) / 2;
    }
  }
  // As ITK does and nibabel does not: the header says its unit.
  const double mm = image.xyz_units == NIFTI_UNITS_METER    ? 1e3
                    : image.xyz_units == NIFTI_UNITS_MICRON ? 1e-3
                                                            : 1;
  for (auto& row : ras) {
    for (double& value : row) value *= mm;
  }
  const Grid grid = FromRas(size, ras);
  if (absl::Status status = ValidateGrid(grid); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry from the ", source, ": ", std::string(status.message())));
  }
  return grid;
}

absl::Status Truncated(int64_t expected, int64_t room) {
  return absl::DataLossError(absl::StrCat("the header promises ", expected,
                                          " bytes of voxels, the file can hold at most ", room,
                                          "; it is truncated or its header is wrong"));
}

absl::StatusOr<int64_t> ReadBytes(gzFile file, uint8_t* out, int64_t count) {
  int64_t at = 0;
  while (at < count) {
    const int got =
        gzread(file, out + at, static_cast<unsigned>(std::min<int64_t>(count - at, 1 << 30)));
    if (got <= 0) {
      int error = Z_OK;
      const char* text = gzerror(file, &error);
      if (error == Z_DATA_ERROR || error == Z_BUF_ERROR)
        return absl::DataLossError(absl::StrCat("the gzip stream is damaged (", text, ")"));
      break;
    }
    at += got;
  }
  return at;
}

// Reads to the end of a gzip stream: only there is its checksum compared.
absl::Status ReadTrailer(gzFile file) {
  std::vector<uint8_t> rest(kMaxTrailingBytes);
  const int got = gzread(file, rest.data(), kMaxTrailingBytes);
  if (got == kMaxTrailingBytes) {
    return absl::InvalidArgumentError(
        "the gzip stream goes on far beyond the voxels that the header promises");
  }
  int error = Z_OK;
  const char* text = gzerror(file, &error);
  if (got < 0 || (error != Z_OK && error != Z_STREAM_END)) {
    return absl::DataLossError(absl::StrCat("the gzip stream is damaged (", text, ")"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Volume> ReadNifti(const std::string& path, const ReadOptions& options) {
  struct stat about = {};
  if (stat(path.c_str(), &about) != 0) return absl::NotFoundError(std::strerror(errno));
  GzipFile file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) return absl::NotFoundError(std::strerror(errno));
  gzbuffer(file.get(), kGzipBufferBytes);
  // niftilib does not tell a broken gzip stream from a file of another kind.
  uint8_t start[sizeof(nifti_1_header)];
  if (auto got = ReadBytes(file.get(), start, sizeof(start)); !got.ok()) return got.status();
  auto image = ReadHeader(path, Content::kVolume);
  if (!image.ok()) return image.status();
  auto stored = TypeOf((*image)->datatype);
  if (!stored.ok()) return stored.status();
  auto grid = GridOf(**image);
  if (!grid.ok()) return grid.status();

  const bool compressed = gzdirect(file.get()) == 0;
  const int64_t wanted = grid->voxel_count() * static_cast<int64_t>(BytesPerStoredVoxel(*stored));
  const int64_t offset = (*image)->iname_offset;
  const int64_t most = compressed ? about.st_size * kMaxDeflateRatio : about.st_size;
  // Before memory is taken for what cannot be there.
  if (offset < 0 || offset > most || wanted > most - offset)
    return Truncated(wanted, std::max<int64_t>(most - offset, 0));
  if (gzseek(file.get(), offset, SEEK_SET) != offset) return Truncated(wanted, 0);

  const bool has_scaling = std::isfinite((*image)->scl_slope) && (*image)->scl_slope != 0;
  const double inter = std::isfinite((*image)->scl_inter) ? (*image)->scl_inter : 0;
  const VoxelConverter converter(*stored, has_scaling ? (*image)->scl_slope : 1,
                                 has_scaling ? inter : 0, options.kind);
  auto volume = Volume::Allocate(*grid, converter.type(), options.kind);
  if (!volume.ok()) return volume;
  absl::Status status =
      ReadSlices([&](uint8_t* out, int64_t count) { return ReadBytes(file.get(), out, count); },
                 converter, (*image)->byteorder != nifti_short_order(), *volume);
  if (status.ok() && compressed) status = ReadTrailer(file.get());
  if (!status.ok()) return status;
  return volume;
}

namespace {

// A header (and the gap behind it) of these dimensions; dim[1..3] are those of the grid.
absl::StatusOr<std::string> HeaderOf(const Grid& grid, const int64_t (&dims)[8], int datatype,
                                     int intent) {
  NiftiImage image(nifti_make_new_nim(dims, datatype, 0));
  if (image == nullptr) return absl::ResourceExhaustedError("no memory for a NIfTI header");
  nifti_dmat44 ras = {};
  for (int r = 0; r < 3; ++r) {
    const double sign = r < 2 ? -1 : 1;
    for (int i = 0; i < 3; ++i) ras.m[r][i] = sign * grid.direction[r][i] * grid.spacing_mm[i];
    ras.m[r][3] = sign * grid.origin_mm[r];
  }
  ras.m[3][3] = 1;
  image->sform_code = image->qform_code = NIFTI_XFORM_SCANNER_ANAT;
  image->sto_xyz = image->qto_xyz = ras;
  nifti_dmat44_to_quatern(ras, &image->quatern_b, &image->quatern_c, &image->quatern_d,
                          &image->qoffset_x, &image->qoffset_y, &image->qoffset_z, nullptr, nullptr,
                          nullptr, &image->qfac);
  for (int i = 0; i < 3; ++i) image->pixdim[i + 1] = grid.spacing_mm[i];
  image->dx = grid.spacing_mm[0];
  image->dy = grid.spacing_mm[1];
  image->dz = grid.spacing_mm[2];
  image->xyz_units = NIFTI_UNITS_MM;
  image->intent_code = intent;

  // NIfTI-1 counts voxels in 16 bits.
  const bool version2 = std::max({grid.size[0], grid.size[1], grid.size[2]}) > 32767;
  std::string header(version2 ? 544 : 352, '\0');
  image->iname_offset = static_cast<int64_t>(header.size());
  image->nifti_type = version2 ? NIFTI_FTYPE_NIFTI2_1 : NIFTI_FTYPE_NIFTI1_1;
  if (version2) {
    nifti_2_header raw = {};
    nifti_convert_nim2n2hdr(image.get(), &raw);
    std::memcpy(header.data(), &raw, sizeof(raw));
  } else {
    nifti_1_header raw = {};
    nifti_convert_nim2n1hdr(image.get(), &raw);
    std::memcpy(header.data(), &raw, sizeof(raw));
  }
  return header;
}

// Bytes one after the other into an OutputFile, gzip or as they are. Level 3: a CT shrinks nearly
// as much as at 6, in a third of the time.
class ByteWriter {
 public:
  ByteWriter(bool compressed, OutputFile& file) : compressed_(compressed), file_(file) {
    if (compressed) packed_.reset(gzopen(file.aside().c_str(), "wb3"));
    if (packed_ != nullptr) gzbuffer(packed_.get(), kGzipBufferBytes);
  }
  absl::Status Write(const void* bytes, size_t count) {
    if (!compressed_) {
      absl::Status status = file_.Write(bytes, count, offset_);
      offset_ += static_cast<int64_t>(count);
      return status;
    }
    if (packed_ == nullptr) return file_.Failed(errno);
    const size_t step = size_t{1} << 24;
    for (size_t at = 0; at < count; at += step) {
      const unsigned part = static_cast<unsigned>(std::min(step, count - at));
      if (gzwrite(packed_.get(), static_cast<const uint8_t*>(bytes) + at, part) !=
          static_cast<int>(part)) {
        return file_.Failed(errno);
      }
    }
    return absl::OkStatus();
  }
  absl::Status Finish() {
    if (!compressed_) return absl::OkStatus();
    return gzclose(packed_.release()) == Z_OK ? absl::OkStatus() : file_.Failed(errno);
  }

 private:
  const bool compressed_;
  OutputFile& file_;
  GzipFile packed_;
  int64_t offset_ = 0;
};

}  // namespace

absl::StatusOr<std::string> NiftiHeader(const Grid& grid, VoxelType type, VolumeKind kind,
                                        int64_t channels) {
  static constexpr int kDatatypes[] = {NIFTI_TYPE_UINT8, NIFTI_TYPE_INT16, NIFTI_TYPE_UINT16,
                                       NIFTI_TYPE_INT32, NIFTI_TYPE_FLOAT32};
  const int64_t dims[8] = {
      channels > 1 ? 4 : 3, grid.size[0], grid.size[1], grid.size[2], channels, 1, 1, 1};
  return HeaderOf(grid, dims, kDatatypes[static_cast<int>(type)],
                  kind == VolumeKind::kLabels ? NIFTI_INTENT_LABEL : NIFTI_INTENT_NONE);
}

absl::Status WriteNifti(const Volume& volume, bool compressed, OutputFile& file) {
  auto header = NiftiHeader(volume.grid(), volume.type(), volume.kind(), 1);
  if (!header.ok()) return header.status();
  ByteWriter writer(compressed, file);
  absl::Status status = writer.Write(header->data(), header->size());
  if (status.ok()) status = writer.Write(volume.bytes(), volume.byte_count());
  return status.ok() ? writer.Finish() : status;
}

absl::Status WriteNiftiVectors(const Grid& grid, const VectorSource& source, VectorLayout layout,
                               bool compressed, OutputFile& file) {
  const auto& size = grid.size;
  const bool field = layout == VectorLayout::kDisplacementField;
  const int64_t dims[8] = {field ? 5 : 4, size[0],       size[1], size[2],
                           field ? 1 : 3, field ? 3 : 1, 1,       1};
  auto header =
      HeaderOf(grid, dims, NIFTI_TYPE_FLOAT32, field ? NIFTI_INTENT_VECTOR : NIFTI_INTENT_NONE);
  if (!header.ok()) return header.status();
  ByteWriter writer(compressed, file);
  absl::Status status = writer.Write(header->data(), header->size());
  std::vector<float> slice(static_cast<size_t>(size[0] * size[1]));
  for (int component = 0; component < 3; ++component) {
    for (int64_t z = 0; status.ok() && z < size[2]; ++z) {
      status = source(component, z, slice.data());
      if (status.ok()) status = writer.Write(slice.data(), slice.size() * sizeof(float));
    }
  }
  return status.ok() ? writer.Finish() : status;
}

absl::StatusOr<NiftiVectors> ReadNiftiVectors(const std::string& path) {
  if (struct stat about = {}; stat(path.c_str(), &about) != 0) {
    return absl::NotFoundError(std::strerror(errno));
  }
  auto image = ReadHeader(path, Content::kVectors);
  if (!image.ok()) return image.status();
  const int type = (*image)->datatype;
  if ((*image)->intent_code != NIFTI_INTENT_VECTOR ||
      (type != NIFTI_TYPE_FLOAT32 && type != NIFTI_TYPE_FLOAT64)) {
    return absl::InvalidArgumentError(
        "no displacement field: its intent must be 1007 (vector), its values float32 or float64");
  }
  auto grid = GridOf(**image);
  if (!grid.ok()) return grid.status();
  NiftiVectors vectors;
  vectors.grid = *grid;
  const auto count = static_cast<size_t>(3 * grid->voxel_count());
  const auto bytes = static_cast<int64_t>(count) * (type == NIFTI_TYPE_FLOAT32 ? 4 : 8);
  struct stat about = {};
  stat(path.c_str(), &about);
  GzipFile file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) return absl::NotFoundError(std::strerror(errno));
  gzbuffer(file.get(), kGzipBufferBytes);
  const int64_t most = about.st_size * (gzdirect(file.get()) == 0 ? kMaxDeflateRatio : 1);
  const int64_t offset = (*image)->iname_offset;
  if (offset > most || bytes > most - offset || gzseek(file.get(), offset, SEEK_SET) != offset) {
    return Truncated(bytes, std::max<int64_t>(most - offset, 0));
  }
  std::vector<uint8_t> raw(static_cast<size_t>(bytes));
  auto got = ReadBytes(file.get(), raw.data(), bytes);
  if (!got.ok()) return got.status();
  if (*got < bytes) return Truncated(bytes, *got);
  if ((*image)->byteorder != nifti_short_order()) {
    nifti_swap_Nbytes(static_cast<int64_t>(count),
                      static_cast<int>(bytes / static_cast<int64_t>(count)), raw.data());
  }
  vectors.values.resize(count);
  for (size_t i = 0; i < count; ++i) {
    double value = 0;
    if (type == NIFTI_TYPE_FLOAT32) {
      float single;
      std::memcpy(&single, raw.data() + 4 * i, 4);
      value = single;
    } else {
      std::memcpy(&value, raw.data() + 8 * i, 8);
    }
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat("value ", i, " is NaN or infinite"));
    }
    vectors.values[i] = static_cast<float>(value);
  }
  return vectors;
}

}  // namespace gvsl
