#include "client/feature_file.h"

#include <zlib.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/nifti_file.h"
#include "imaging/png.h"

namespace gvsl {
namespace {

constexpr int64_t kMostSamples = 20000;
constexpr int kGapPixels = 4;

}  // namespace

std::string NpyHeader(const std::string& type, const std::vector<int64_t>& shape) {
  std::string text = absl::StrCat("{'descr': '", type, "', 'fortran_order': False, 'shape': (");
  for (int64_t side : shape) absl::StrAppend(&text, side, ", ");
  absl::StrAppend(&text, "), }");
  // Magic, version and length take 10 bytes; the whole is a multiple of 64 that ends in a new line.
  text.resize((text.size() + 11 + 63) / 64 * 64 - 11, ' ');
  text += '\n';
  const auto length = static_cast<uint16_t>(text.size());
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(length & 0xff);
  header += static_cast<char>(length >> 8);
  return header + text;
}

absl::StatusOr<std::unique_ptr<DenseFileWriter>> DenseFileWriter::Make(const std::string& path) {
  const bool gzip = absl::EndsWith(path, ".nii.gz"), nifti = gzip || absl::EndsWith(path, ".nii");
  if (!nifti && !absl::EndsWith(path, ".npy")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.substr(0, 200), ": dense features go to a .npy, .nii or .nii.gz file"));
  }
  std::unique_ptr<DenseFileWriter> writer(new DenseFileWriter(path, nifti, gzip));
  if (!writer->file_.status().ok()) return writer->file_.status();
  return writer;
}

absl::Status DenseFileWriter::Begin(const v1::ExtractDenseResponse::Header& header) {
  auto grid = FromProto(header.grid());
  if (!grid.ok()) return grid.status();
  const bool half = header.type() == v1::FLOAT16;
  if (half && nifti_)
    return absl::InvalidArgumentError("NIfTI has no half precision; write a .npy");
  channels_ = header.channels();
  slices_ = grid->size[2];
  plane_bytes_ = grid->size[0] * grid->size[1] * (half ? 2 : 4);
  std::string head;
  if (nifti_) {
    auto made = NiftiHeader(*grid, VoxelType::kFloat32, VolumeKind::kImage, channels_);
    if (!made.ok()) return made.status();
    head = *std::move(made);
  } else {
    head = NpyHeader(half ? "<f2" : "<f4", {channels_, slices_, grid->size[1], grid->size[0]});
  }
  data_begin_ = static_cast<int64_t>(head.size());
  return file_.Write(head.data(), head.size(), 0);
}

absl::Status DenseFileWriter::Slice(int64_t z, const char* data) {
  // Channels are the slowest axis of the file and a plane of each comes with every slice.
  for (int64_t c = 0; c < channels_; ++c) {
    absl::Status status = file_.Write(data + c * plane_bytes_, static_cast<size_t>(plane_bytes_),
                                      data_begin_ + (c * slices_ + z) * plane_bytes_);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DenseFileWriter::Finish() { return gzip_ ? Compress() : file_.Commit(); }

absl::Status DenseFileWriter::Compress() {
  OutputFile packed(path_);
  errno = 0;
  gzFile out = packed.status().ok() ? gzopen(packed.aside().c_str(), "wb1") : nullptr;
  std::FILE* in = std::fopen(file_.aside().c_str(), "rb");
  bool good = out != nullptr && in != nullptr;
  std::vector<char> buffer(1 << 20);
  while (good) {
    const size_t got = std::fread(buffer.data(), 1, buffer.size(), in);
    if (got == 0) good = std::ferror(in) == 0;
    if (got == 0) break;
    good = gzwrite(out, buffer.data(), static_cast<unsigned>(got)) == static_cast<int>(got);
  }
  if (in != nullptr) std::fclose(in);
  if (out != nullptr) good = gzclose(out) == Z_OK && good;
  if (good) return packed.Commit();
  return packed.Failed(errno);
}

absl::Status DensePicture::Begin(const v1::ExtractDenseResponse::Header& header) {
  auto grid = FromProto(header.grid());
  if (!grid.ok()) return grid.status();
  half_ = header.type() == v1::FLOAT16;
  channels_ = header.channels();
  for (int i = 0; i < 3; ++i) {
    size_[i] = grid->size[i];
    spacing_mm_[i] = grid->spacing_mm[i];
  }
  step_ = std::max<int64_t>(1, grid->voxel_count() / kMostSamples);
  planes_[0].resize(static_cast<size_t>(size_[0] * size_[1] * channels_));
  planes_[1].resize(static_cast<size_t>(size_[0] * size_[2] * channels_));
  planes_[2].resize(static_cast<size_t>(size_[1] * size_[2] * channels_));
  return absl::OkStatus();
}

absl::Status DensePicture::Slice(int64_t z, const char* data) {
  const int64_t columns = size_[0], rows = size_[1], plane = columns * rows;
  const auto value = [&](int64_t c, int64_t i) {
    if (half_) {
      uint16_t bits;
      std::memcpy(&bits, data + (c * plane + i) * 2, sizeof(bits));
      return static_cast<float>(Eigen::numext::bit_cast<Eigen::half>(bits));
    }
    float v;
    std::memcpy(&v, data + (c * plane + i) * 4, sizeof(v));
    return v;
  };
  const auto keep = [&](std::vector<float>& out, int64_t pixel, int64_t i) {
    for (int64_t c = 0; c < channels_; ++c)
      out[static_cast<size_t>(pixel * channels_ + c)] = value(c, i);
  };
  for (int64_t i = (step_ - z * plane % step_) % step_; i < plane; i += step_) {
    for (int64_t c = 0; c < channels_; ++c) samples_.push_back(value(c, i));
  }
  if (z == size_[2] / 2) {
    for (int64_t i = 0; i < plane; ++i) keep(planes_[0], i, i);
  }
  for (int64_t x = 0; x < columns; ++x) keep(planes_[1], z * columns + x, rows / 2 * columns + x);
  for (int64_t y = 0; y < rows; ++y) keep(planes_[2], z * rows + y, y * columns + columns / 2);
  return absl::OkStatus();
}

absl::StatusOr<std::string> DensePicture::Png() const {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> samples(
      samples_.data(), static_cast<Eigen::Index>(samples_.size()) / channels_, channels_);
  const Eigen::RowVectorXd mean = samples.cast<double>().colwise().mean();
  const Eigen::MatrixXd centred = samples.cast<double>().rowwise() - mean;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(centred.transpose() * centred /
                                                              static_cast<double>(centred.rows()));
  const int components = static_cast<int>(std::min<int64_t>(3, channels_));
  // The greatest come last. Two standard deviations either side fill the range of a colour.
  const Eigen::MatrixXd basis = solver.eigenvectors().rightCols(components).rowwise().reverse();
  const Eigen::VectorXd deviation =
      solver.eigenvalues().tail(components).reverse().cwiseMax(1e-20).cwiseSqrt();

  // Pictures: axial (rows along y), coronal and sagittal (rows along z, its first slice below).
  const int axes[3][2] = {{0, 1}, {0, 2}, {1, 2}};
  const double mm_per_pixel = std::min({spacing_mm_[0], spacing_mm_[1], spacing_mm_[2]});
  int widths[3], heights[3], width = 0, height = 0;
  for (int p = 0; p < 3; ++p) {
    widths[p] = std::max(1, static_cast<int>(std::lround(static_cast<double>(size_[axes[p][0]]) *
                                                         spacing_mm_[axes[p][0]] / mm_per_pixel)));
    heights[p] = std::max(1, static_cast<int>(std::lround(static_cast<double>(size_[axes[p][1]]) *
                                                          spacing_mm_[axes[p][1]] / mm_per_pixel)));
    width += widths[p] + (p > 0 ? kGapPixels : 0);
    height = std::max(height, heights[p]);
  }
  std::vector<uint8_t> rgb(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  int left = 0;
  for (int p = 0; p < 3; ++p) {
    const int64_t columns = size_[axes[p][0]], rows = size_[axes[p][1]];
    for (int y = 0; y < heights[p]; ++y) {
      int64_t row = static_cast<int64_t>(y) * rows / heights[p];
      if (p > 0) row = rows - 1 - row;
      for (int x = 0; x < widths[p]; ++x) {
        const int64_t column = static_cast<int64_t>(x) * columns / widths[p];
        const Eigen::Map<const Eigen::RowVectorXf> feature(
            planes_[p].data() + (row * columns + column) * channels_, channels_);
        const Eigen::RowVectorXd scores = (feature.cast<double>() - mean) * basis;
        uint8_t* pixel = &rgb[3 * (static_cast<size_t>(y) * static_cast<size_t>(width) +
                                   static_cast<size_t>(left + x))];
        for (int c = 0; c < components; ++c) {
          const double level = 0.5 + scores[c] / (4 * deviation[c]);
          pixel[c] = static_cast<uint8_t>(std::lround(255 * std::clamp(level, 0.0, 1.0)));
        }
      }
    }
    left += widths[p] + kGapPixels;
  }
  return EncodePngRgb(width, height, rgb);
}

}  // namespace gvsl
