#include "client/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

absl::Status Failure(const std::string& path, int error) {
  const std::string text =
      absl::StrCat("cannot write ", path.substr(0, 200), ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(text);
  }
  if (error == ENOENT || error == ENOTDIR) {
    return absl::NotFoundError(absl::StrCat(text, "; make the folder first"));
  }
  return absl::PermissionDeniedError(text);
}

// A link stays a link: the file behind it is replaced.
std::string BehindLinks(const std::string& path) {
  std::error_code error;
  const std::string target = std::filesystem::canonical(path, error).string();
  return error ? path : target;
}

}  // namespace

OutputFile::OutputFile(const std::string& path)
    : path_(BehindLinks(path)), aside_(path_ + ".part-XXXXXX") {
  struct stat about = {};
  if (stat(path_.c_str(), &about) == 0 && !S_ISREG(about.st_mode)) {
    // Told now, not by the rename after the work; and /dev/null is not replaced by a file.
    status_ = S_ISDIR(about.st_mode)
                  ? Failure(path_, EISDIR)
                  : absl::InvalidArgumentError(absl::StrCat("cannot write ", path_.substr(0, 200),
                                                            ": it is not a regular file"));
    return;
  }
  file_ = mkostemp(aside_.data(), O_CLOEXEC);
  if (file_ < 0) {
    status_ = Failure(path_, errno);
    return;
  }
  // mkostemp's files are for the owner alone; this one is to be like any other.
  const mode_t mask = umask(0);
  umask(mask);
  fchmod(file_, 0666 & ~mask);
}

OutputFile::~OutputFile() {
  if (file_ < 0) return;
  close(file_);
  unlink(aside_.c_str());
}

absl::Status OutputFile::Write(const void* data, size_t size, int64_t offset) {
  if (!status_.ok()) return status_;
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = pwrite(file_, bytes, size, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failure(path_, errno);
    bytes += written;
    offset += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Commit() {
  if (!status_.ok()) return status_;
  // Network file systems tell a full disk only when the file is closed.
  if (close(std::exchange(file_, -1)) != 0 || std::rename(aside_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    unlink(aside_.c_str());
    return Failure(path_, error);
  }
  return absl::OkStatus();
}

absl::Status WriteWholeFile(const std::string& path, const std::string& content) {
  OutputFile file(path);
  absl::Status status = file.Write(content.data(), content.size(), 0);
  return status.ok() ? file.Commit() : status;
}

}  // namespace gvsl
