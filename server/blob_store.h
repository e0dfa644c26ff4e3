// BlobStore: files named by the SHA-256 of their content, in one folder tree.
#ifndef GVSL_SERVER_BLOB_STORE_H_
#define GVSL_SERVER_BLOB_STORE_H_

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

// Safe for concurrent use: every step is one call of the file system. A blob never changes once it
// has its name.
class BlobStore {
 public:
  // `folder` is made when it is not there (MakeFolder).
  static absl::StatusOr<BlobStore> Open(const std::string& folder);

  std::string PathOf(const std::string& sha256) const;
  // Gives a finished file (on the same file system) its name: synced, renamed, folder synced. The
  // file is gone from `path` afterwards, also where the blob was there before.
  absl::Status Commit(const std::string& path, const std::string& sha256) const;
  // Unlinks; readers that have it open or mapped keep it.
  void Remove(const std::string& sha256) const;
  // Removes every blob that is not in `referenced`: what a crash between rename and record left.
  // Returns how many.
  int64_t Sweep(const std::set<std::string>& referenced) const;

 private:
  explicit BlobStore(std::string folder) : folder_(std::move(folder)) {}
  std::string folder_;
};

// Makes a folder and those above it, durably. FAILED_PRECONDITION, in words for whoever starts the
// server, when it cannot be made or written to.
absl::Status MakeFolder(const std::string& folder);
// Writes what the kernel holds of a file or folder to the disk.
absl::Status SyncPath(const std::string& path);
// RESOURCE_EXHAUSTED (DISK_FULL) for a full disk, else INTERNAL, from errno.
absl::Status WriteError(const std::string& what, int error);

}  // namespace gvsl

#endif  // GVSL_SERVER_BLOB_STORE_H_
