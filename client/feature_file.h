// Files of features: NumPy arrays and NIfTI images, and pictures of dense features.
#ifndef GVSL_CLIENT_FEATURE_FILE_H_
#define GVSL_CLIENT_FEATURE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/client.h"
#include "imaging/output_file.h"

namespace gvsl {

// The header of a .npy file (format 1.0), C order, little-endian. `type`: "<f4", "<f2", ...
std::string NpyHeader(const std::string& type, const std::vector<int64_t>& shape);

// Writes dense features as they come, each slice at its places: nothing but one slice is in memory.
//   .npy             [channel][slice][row][column], float32 or float16
//   .nii, .nii.gz    4D, channels along the fourth axis, float32, with the grid's geometry
class DenseFileWriter final : public DenseReceiver {
 public:
  // INVALID_ARGUMENT for another extension.
  static absl::StatusOr<std::unique_ptr<DenseFileWriter>> Make(const std::string& path);

  absl::Status Begin(const v1::ExtractDenseResponse::Header& header) override;
  absl::Status Slice(int64_t z, const char* data) override;
  // After the last slice: gives the file its name.
  absl::Status Finish();

 private:
  DenseFileWriter(const std::string& path, bool nifti, bool gzip)
      : path_(path), nifti_(nifti), gzip_(gzip), file_(path) {}
  absl::Status Compress();

  const std::string path_;
  const bool nifti_, gzip_;
  OutputFile file_;
  int64_t data_begin_ = 0, channels_ = 0, slices_ = 0, plane_bytes_ = 0;
};

// A picture of dense features: their first three principal components as red, green and blue, in
// the three central planes of the grid. The components come from at most 20,000 voxels, chosen by a
// fixed rule.
class DensePicture final : public DenseReceiver {
 public:
  absl::Status Begin(const v1::ExtractDenseResponse::Header& header) override;
  absl::Status Slice(int64_t z, const char* data) override;
  // A PNG file.
  absl::StatusOr<std::string> Png() const;

 private:
  bool half_ = false;
  int64_t channels_ = 0;
  int64_t size_[3] = {0, 0, 0};
  double spacing_mm_[3] = {1, 1, 1};
  int64_t step_ = 1;            // every step-th voxel enters the components
  std::vector<float> samples_;  // [n][channel]
  std::vector<float>
      planes_[3];  // axial [y][x], coronal [z][x], sagittal [z][y], each [pixel][channel]
};

}  // namespace gvsl

#endif  // GVSL_CLIENT_FEATURE_FILE_H_
