#include "imaging/image_file.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "imaging/metaimage_file.h"
#include "imaging/nifti_file.h"
#include "imaging/output_file.h"

namespace gvsl {
namespace {

enum class Format { kNifti, kNiftiGzip, kMha, kMhd, kUnknown };

// An extension alone is no file's name.
bool HasExtension(const std::string& path, const std::string& extension) {
  return path.size() > extension.size() && absl::EndsWith(path, extension);
}

Format FormatOf(const std::string& path) {
  if (HasExtension(path, ".nii")) return Format::kNifti;
  if (HasExtension(path, ".nii.gz")) return Format::kNiftiGzip;
  if (HasExtension(path, ".mha")) return Format::kMha;
  if (HasExtension(path, ".mhd")) return Format::kMhd;
  return Format::kUnknown;
}

absl::Status UnknownFormat(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(
      ShownPath(path), ": unknown extension; volumes are .nii, .nii.gz, .mha or .mhd files"));
}

absl::Status WriteRaw(const Volume& volume, const std::string& path) {
  OutputFile file(path);
  absl::Status status = file.Write(volume.bytes(), volume.byte_count(), 0);
  return status.ok() ? file.Commit() : status;
}

absl::Status Write(const Volume& volume, const std::string& path, Format format) {
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  std::string data_name;
  if (format == Format::kMhd) {
    const std::filesystem::path target(path);
    data_name = target.stem().string() + ".raw";
    absl::Status status = WriteRaw(volume, (target.parent_path() / data_name).string());
    if (!status.ok()) return status;
  }
  absl::Status status = format == Format::kMha || format == Format::kMhd
                            ? WriteMetaImage(volume, data_name, file)
                            : WriteNifti(volume, format == Format::kNiftiGzip, file);
  return status.ok() ? file.Commit() : status;
}

}  // namespace

absl::StatusOr<Volume> ReadVolume(const std::string& path, const ReadOptions& options) {
  const Format format = FormatOf(path);
  if (format == Format::kUnknown) return UnknownFormat(path);
  auto volume = format == Format::kMha || format == Format::kMhd ? ReadMetaImage(path, options)
                                                                 : ReadNifti(path, options);
  if (volume.ok()) return volume;
  return absl::Status(volume.status().code(),
                      absl::StrCat(ShownPath(path), ": ", std::string(volume.status().message())));
}

absl::Status WriteVolume(const Volume& volume, const std::string& path) {
  const Format format = FormatOf(path);
  if (format == Format::kUnknown) return UnknownFormat(path);
  return Write(volume, path, format);
}

}  // namespace gvsl
