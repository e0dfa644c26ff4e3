// BlobStore: files named by the SHA-256 of their content, in one folder tree.
#ifndef GVSL_SERVER_BLOB_STORE_H_
#define GVSL_SERVER_BLOB_STORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

// Safe for concurrent use on different blobs; Commit and Remove of one blob must not meet. A blob
// never changes once it has its name.
class BlobStore {
 public:
  // `folder` is made when it is not there (MakeFolder).
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(const std::string& folder);

  std::string PathOf(const std::string& sha256) const;
  // Gives a finished file (on the same file system) its name: synced, renamed, folder synced. The
  // file is gone from `path` afterwards, also where the blob was there before.
  absl::Status Commit(const std::string& path, const std::string& sha256);
  // Unlinks; readers that have it open or mapped keep it.
  void Remove(const std::string& sha256);
  // Moves every blob that is not in `referenced` to the folder `aside` (on the same file system),
  // and takes back from there what is. Returns how many were moved away. Nothing is deleted: a blob
  // without a record is what a crash between the two left, or all that is left when an older
  // database was restored. Before any other call.
  absl::StatusOr<int64_t> SetAside(const std::set<std::string>& referenced,
                                   const std::string& aside);
  // Of all blobs.
  int64_t bytes() const { return bytes_; }

 private:
  explicit BlobStore(std::string folder) : folder_(std::move(folder)) {}
  const std::string folder_;
  std::atomic<int64_t> bytes_{0};
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
