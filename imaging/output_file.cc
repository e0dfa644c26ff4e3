#include "imaging/output_file.h"

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
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

constexpr char kAside[] = ".part-XXXXXX";
constexpr size_t kAsideRandom = 6;  // X's

absl::Status Failure(const std::string& path, int error) {
  const std::string text =
      absl::StrCat("cannot write ", ShownPath(path), ": ", std::strerror(error));
  if (IsDiskFull(error)) return WithReason(absl::ResourceExhaustedError(text), "DISK_FULL");
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(text, "; make the folder first"));
    case EACCES:
    case EPERM:
    case EROFS:
    case EISDIR:
      return absl::PermissionDeniedError(text);
    default:
      return absl::InternalError(text);
  }
}

// A link stays a link: the file behind it is replaced.
std::string BehindLinks(const std::string& path) {
  std::error_code error;
  const std::string target = std::filesystem::canonical(path, error).string();
  return error ? path : target;
}

// A new name beside `path`, for mkostemp; within what a file system allows for a name.
std::string NameAside(const std::string& path) {
  constexpr size_t kLongestName = 255 - (sizeof(kAside) - 1);
  const size_t name = path.rfind('/') + 1;  // 0 without a slash
  return path.substr(0, name) + path.substr(name, kLongestName) + kAside;
}

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// The names in a folder. Some file systems sync none, and a folder need not be readable: then all
// that can be done is done.
int SyncNames(const std::string& folder) {
  const int error = SyncToDisk(folder);
  return error == EINVAL || error == ENOTSUP || error == EACCES ? 0 : error;
}

}  // namespace

OutputFile::OutputFile(const std::string& path)
    : path_(BehindLinks(path)), aside_(NameAside(path_)) {
  struct stat about = {};
  if (stat(path_.c_str(), &about) == 0 && !S_ISREG(about.st_mode)) {
    // Told now, not by the rename after the work; and /dev/null is not replaced by a file.
    status_ = S_ISDIR(about.st_mode)
                  ? Failure(path_, EISDIR)
                  : absl::InvalidArgumentError(absl::StrCat("cannot write ", ShownPath(path_),
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
  const bool synced = fsync(file_) == 0;
  int error = synced ? 0 : errno;
  // Network file systems tell a full disk only when the file is closed.
  if (close(std::exchange(file_, -1)) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(aside_.c_str(), path_.c_str()) != 0) error = errno;
  if (error != 0) {
    unlink(aside_.c_str());
    return Failure(path_, error);
  }
  error = SyncNames(FolderOf(path_));
  return error == 0 ? absl::OkStatus() : Failure(path_, error);
}

absl::Status OutputFile::Failed(int error) const {
  return status_.ok() ? Failure(path_, error != 0 ? error : EIO) : status_;
}

absl::Status WriteWholeFile(const std::string& path, const std::string& content) {
  OutputFile file(path);
  absl::Status status = file.Write(content.data(), content.size(), 0);
  return status.ok() ? file.Commit() : status;
}

absl::Status MakeFolders(const std::string& folder) {
  namespace fs = std::filesystem;
  const fs::path path = fs::path(folder).lexically_normal();
  std::error_code error;
  if (path.empty() || fs::is_directory(path, error)) return absl::OkStatus();
  const std::string above = FolderOf(path.string());
  if (above != folder) {
    if (absl::Status status = MakeFolders(above); !status.ok()) return status;
  }
  fs::create_directory(path, error);  // no error where another process was faster
  if (error) return Failure(folder, error.value());
  const int synced = SyncNames(above);
  return synced == 0 ? absl::OkStatus() : Failure(folder, synced);
}

bool IsAsideName(const std::string& name) {
  const std::string fixed(kAside, sizeof(kAside) - 1 - kAsideRandom);
  const size_t length = fixed.size() + kAsideRandom;
  return name.size() > length && name.compare(name.size() - length, fixed.size(), fixed) == 0;
}

void RemoveAsideFiles(const std::string& folder, std::chrono::seconds unwritten_for) {
  namespace fs = std::filesystem;
  const auto oldest = fs::file_time_type::clock::now() - unwritten_for;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code gone;
    if (IsAsideName(at->path().filename().string()) && at->is_regular_file(gone) &&
        at->last_write_time(gone) <= oldest && !gone) {
      fs::remove(at->path(), gone);
    }
  }
}

int SyncToDisk(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  const int error = fsync(file) == 0 ? 0 : errno;
  close(file);
  return error;
}

std::string ShownPath(const std::string& path) {
  constexpr size_t kMost = 200;
  return path.size() <= kMost ? path : absl::StrCat("...", path.substr(path.size() - kMost));
}

bool IsDiskFull(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

}  // namespace gvsl
