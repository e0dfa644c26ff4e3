#include "server/blob_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace fs = std::filesystem;

absl::Status WriteError(const std::string& what, int error) {
  const std::string text = absl::StrCat(what, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return WithReason(
        absl::ResourceExhaustedError(text + "; free space on the server's data folder"),
        "DISK_FULL");
  }
  return absl::InternalError(text);
}

absl::Status SyncPath(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 || fsync(file) != 0) {
    const int error = errno;
    if (file >= 0) close(file);
    return WriteError("cannot sync to disk", error);
  }
  close(file);
  return absl::OkStatus();
}

absl::Status MakeFolder(const std::string& folder) {
  std::error_code error;
  const bool made = fs::create_directories(folder, error);
  if (error || access(folder.c_str(), W_OK | X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("data_dir: cannot write to ", folder, ": ",
                     error ? error.message() : std::string(std::strerror(errno)),
                     "; give this user the rights, or name another folder"));
  }
  return made ? SyncPath(fs::absolute(folder).parent_path().string()) : absl::OkStatus();
}

absl::StatusOr<BlobStore> BlobStore::Open(const std::string& folder) {
  if (absl::Status status = MakeFolder(folder); !status.ok()) return status;
  return BlobStore(folder);
}

std::string BlobStore::PathOf(const std::string& sha256) const {
  return absl::StrCat(folder_, "/", sha256.substr(0, 2), "/", sha256);
}

absl::Status BlobStore::Commit(const std::string& path, const std::string& sha256) const {
  const std::string target = PathOf(sha256);
  std::error_code error;
  const std::string shard = fs::path(target).parent_path().string();
  if (fs::exists(target, error)) {
    fs::remove(path, error);
  } else {
    if (absl::Status status = SyncPath(path); !status.ok()) return status;
    fs::create_directory(shard, error);
    if (std::rename(path.c_str(), target.c_str()) != 0)
      return WriteError("cannot store the file", errno);
  }
  // Both names, also those that an earlier process made: it may have been killed before it synced.
  if (absl::Status status = SyncPath(shard); !status.ok()) return status;
  return SyncPath(folder_);
}

void BlobStore::Remove(const std::string& sha256) const {
  std::error_code error;
  fs::remove(PathOf(sha256), error);
}

int64_t BlobStore::Sweep(const std::set<std::string>& referenced) const {
  int64_t removed = 0;
  std::error_code error;
  for (const auto& shard : fs::directory_iterator(folder_, error)) {
    if (!shard.is_directory(error)) continue;
    for (const auto& blob : fs::directory_iterator(shard.path(), error)) {
      if (referenced.count(blob.path().filename().string()) == 0 && fs::remove(blob.path(), error))
        ++removed;
    }
  }
  return removed;
}

}  // namespace gvsl
