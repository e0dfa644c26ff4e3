#include "imaging/image_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "imaging/metaimage_file.h"
#include "imaging/nifti_file.h"

namespace gvsl {
namespace {

enum class Format { kNifti, kNiftiGzip, kMha, kMhd, kUnknown };

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() > end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

Format FormatOf(const std::string& path) {
  if (EndsWith(path, ".nii")) return Format::kNifti;
  if (EndsWith(path, ".nii.gz")) return Format::kNiftiGzip;
  if (EndsWith(path, ".mha")) return Format::kMha;
  if (EndsWith(path, ".mhd")) return Format::kMhd;
  return Format::kUnknown;
}

// A path as a message shows it: the end of a long one.
std::string Shown(const std::string& path) {
  constexpr size_t kMost = 200;
  return path.size() <= kMost ? path : absl::StrCat("...", path.substr(path.size() - kMost));
}

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(Shown(path), ": ", std::string(status.message())));
}

absl::Status UnknownFormat(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(
      Shown(path), ": unknown extension; volumes are .nii, .nii.gz, .mha or .mhd files"));
}

absl::Status SyncFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool good = file >= 0 && fsync(file) == 0;
  const int error = errno;
  if (file >= 0) close(file);
  return good ? absl::OkStatus()
              : absl::UnavailableError(absl::StrCat("cannot sync: ", std::strerror(error)));
}

// Writes under a temporary name beside `path`, then renames.
absl::Status WriteAside(const Volume& volume, const std::string& path, Format format) {
  const std::filesystem::path target = path;
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat("there is no folder ", Shown(folder.string())));
  }
  // The extension stays: MetaIO goes by it.
  const std::string aside =
      (folder / absl::StrCat(".", getpid(), ".aside.", target.filename().string())).string();
  const std::string data_name = format == Format::kMhd ? target.stem().string() + ".raw" : "";
  absl::Status status = format == Format::kMha || format == Format::kMhd
                            ? WriteMetaImage(volume, aside, data_name)
                            : WriteNifti(volume, aside, format == Format::kNiftiGzip);
  if (status.ok()) status = SyncFile(aside);
  if (status.ok() && std::rename(aside.c_str(), path.c_str()) != 0) {
    status = absl::UnavailableError(absl::StrCat("cannot rename: ", std::strerror(errno)));
  }
  if (!status.ok()) std::filesystem::remove(aside, error);
  return status;
}

}  // namespace

absl::StatusOr<Volume> ReadVolume(const std::string& path, const ReadOptions& options) {
  const Format format = FormatOf(path);
  if (format == Format::kUnknown) return UnknownFormat(path);
  auto volume = format == Format::kMha || format == Format::kMhd ? ReadMetaImage(path, options)
                                                                 : ReadNifti(path, options);
  if (!volume.ok()) return WithPath(volume.status(), path);
  return volume;
}

absl::Status WriteVolume(const Volume& volume, const std::string& path) {
  const Format format = FormatOf(path);
  if (format == Format::kUnknown) return UnknownFormat(path);
  return WithPath(WriteAside(volume, path, format), path);
}

}  // namespace gvsl
