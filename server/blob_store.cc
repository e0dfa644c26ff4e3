#include "server/blob_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace fs = std::filesystem;
namespace {

std::vector<std::string> FilesBelow(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code gone;
    if (at->is_regular_file(gone)) files.push_back(at->path().string());
  }
  return files;
}

// 0 for a file that is not there.
int64_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

}  // namespace

absl::Status WriteError(const std::string& what, int error) {
  const std::string text = absl::StrCat(what, ": ", std::strerror(error));
  if (IsDiskFull(error)) {
    return WithReason(
        absl::ResourceExhaustedError(text + "; free space on the server's data folder"),
        "DISK_FULL");
  }
  return absl::InternalError(text);
}

absl::Status SyncPath(const std::string& path) {
  const int error = SyncToDisk(path);
  return error == 0 ? absl::OkStatus() : WriteError("cannot sync to disk", error);
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

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(const std::string& folder) {
  if (absl::Status status = MakeFolder(folder); !status.ok()) return status;
  std::unique_ptr<BlobStore> store(new BlobStore(folder));
  for (const std::string& blob : FilesBelow(folder)) store->bytes_ += SizeOf(blob);
  return store;
}

std::string BlobStore::PathOf(const std::string& sha256) const {
  return absl::StrCat(folder_, "/", sha256.substr(0, 2), "/", sha256);
}

absl::Status BlobStore::Commit(const std::string& path, const std::string& sha256) {
  const std::string target = PathOf(sha256);
  std::error_code error;
  const std::string shard = fs::path(target).parent_path().string();
  if (absl::Status status = SyncPath(path); !status.ok()) return status;
  fs::create_directory(shard, error);
  // Also over a blob of that name: the disk may have damaged it, and these bytes were just hashed.
  const int64_t before = SizeOf(target);
  if (std::rename(path.c_str(), target.c_str()) != 0)
    return WriteError("cannot store the file", errno);
  bytes_ += SizeOf(target) - before;
  // Both names, also those that an earlier process made: it may have been killed before it synced.
  if (absl::Status status = SyncPath(shard); !status.ok()) return status;
  return SyncPath(folder_);
}

void BlobStore::Remove(const std::string& sha256) {
  const int64_t bytes = SizeOf(PathOf(sha256));
  std::error_code error;
  if (fs::remove(PathOf(sha256), error)) bytes_ -= bytes;
}

absl::StatusOr<int64_t> BlobStore::SetAside(const std::set<std::string>& referenced,
                                            const std::string& aside) {
  for (const std::string& path : FilesBelow(aside)) {
    const std::string sha256 = fs::path(path).filename().string();
    if (referenced.count(sha256) == 0) continue;
    if (absl::Status status = Commit(path, sha256); !status.ok()) return status;
  }
  int64_t moved = 0;
  for (const std::string& path : FilesBelow(folder_)) {
    const std::string name = fs::path(path).filename().string();
    if (referenced.count(name) > 0) continue;
    if (absl::Status status = MakeFolder(aside); !status.ok()) return status;
    const int64_t bytes = SizeOf(path);
    if (std::rename(path.c_str(), (aside + "/" + name).c_str()) != 0)
      return WriteError("cannot set an unreferenced blob aside", errno);
    bytes_ -= bytes;
    ++moved;
  }
  return moved;
}

}  // namespace gvsl
