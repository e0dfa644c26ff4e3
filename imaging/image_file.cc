#include "imaging/image_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

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

absl::Status WriteRaw(const Volume& volume, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(volume.bytes()),
             static_cast<std::streamsize>(volume.byte_count()));
  file.close();
  if (file) return absl::OkStatus();
  return absl::ResourceExhaustedError("writing broke off; is the disk full?");
}

absl::Status SyncFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool good = file >= 0 && fsync(file) == 0;
  const int error = errno;
  if (file >= 0) close(file);
  return good ? absl::OkStatus()
              : absl::UnavailableError(absl::StrCat("cannot sync: ", std::strerror(error)));
}

// Calls write(name) with a temporary name beside `target`, then renames what it wrote.
template <typename Write>
absl::Status WriteAside(const std::filesystem::path& target, const Write& write) {
  static std::atomic<int> writes{0};
  // The extension stays: MetaIO goes by it. The name may be as long as the file system allows.
  const std::string name = target.filename().string();
  const std::string aside =
      (target.parent_path() / absl::StrCat(".aside.", getpid(), ".", writes++, ".")).string() +
      name.substr(name.size() - std::min<size_t>(name.size(), 16));
  absl::Status status = write(aside);
  if (status.ok()) status = SyncFile(aside);
  if (status.ok() && std::rename(aside.c_str(), target.c_str()) != 0) {
    status = absl::UnavailableError(absl::StrCat("cannot rename: ", std::strerror(errno)));
  }
  std::error_code ignored;
  if (!status.ok()) std::filesystem::remove(aside, ignored);
  return status;
}

absl::Status Write(const Volume& volume, const std::filesystem::path& target, Format format) {
  std::error_code error;
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat("there is no folder ", Shown(folder.string())));
  }
  std::string data_name;
  if (format == Format::kMhd) {
    data_name = target.stem().string() + ".raw";
    absl::Status status = WriteAside(
        folder / data_name, [&](const std::string& aside) { return WriteRaw(volume, aside); });
    if (!status.ok()) return status;
  }
  return WriteAside(target, [&](const std::string& aside) {
    return format == Format::kMha || format == Format::kMhd
               ? WriteMetaImage(volume, aside, data_name)
               : WriteNifti(volume, aside, format == Format::kNiftiGzip);
  });
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
  return WithPath(Write(volume, path, format), path);
}

}  // namespace gvsl
