// UploadStore: volumes on their way in. A cut upload stays and is resumed at the byte it holds.
#ifndef GVSL_SERVER_UPLOAD_STORE_H_
#define GVSL_SERVER_UPLOAD_STORE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/volumes.pb.h"
#include "imaging/sha256.h"
#include "imaging/volume.h"

namespace gvsl {

class UploadStore;

// One call's hold on one upload. Not thread-safe; nobody else can write the same upload meanwhile.
class UploadWriter {
 public:
  ~UploadWriter();
  int64_t received_bytes() const { return received_; }
  int64_t total_bytes() const { return total_; }

  // Appends a chunk. DATA_LOSS (CHECKSUM_MISMATCH), INVALID_ARGUMENT (NON_FINITE_VOXELS with the
  // voxel's index, TOO_MANY_BYTES), RESOURCE_EXHAUSTED (DISK_FULL). What came before stays in each
  // case.
  absl::Status Append(const std::string& data, uint32_t crc32);

  struct Voxels {
    std::string path;    // of the complete file, not yet synced
    std::string sha256;  // of all bytes
    double min = 0;
    double max = 0;
  };
  // The complete voxels. DATA_LOSS when bytes are missing, or when `sha256` is given and is not
  // theirs.
  absl::StatusOr<Voxels> Finish(const std::string& sha256);
  // Removes what is left of the upload: after the voxels were taken, or in place of them.
  void Discard();

 private:
  friend class UploadStore;
  UploadWriter(UploadStore* store, std::string request_id)
      : store_(store), request_id_(std::move(request_id)) {}
  absl::Status Open(const v1::Volume& header, int64_t offset);
  // Counts bytes that lie in the file: digest, range, finiteness.
  absl::Status Account(const uint8_t* data, size_t size);

  UploadStore* store_;
  std::string request_id_;
  int file_ = -1;
  int64_t received_ = 0;
  int64_t total_ = 0;
  VoxelType type_ = VoxelType::kUint8;
  Grid grid_;
  Sha256 digest_;
  std::string partial_voxel_;  // bytes of a voxel that a chunk's end cut
  int64_t voxels_ = 0;
  double min_ = 0, max_ = 0;
};

// Safe for concurrent use.
class UploadStore {
 public:
  static absl::StatusOr<std::unique_ptr<UploadStore>> Open(const std::string& folder);

  // Begins an upload (offset 0: anything held before is dropped) or resumes it. `header` says what
  // the volume is to be (checked by the caller). ABORTED: OFFSET_MISMATCH, or another call writes
  // this upload. RESOURCE_EXHAUSTED (DISK_FULL) at once when the disk cannot hold the rest.
  absl::StatusOr<std::unique_ptr<UploadWriter>> Begin(const std::string& request_id,
                                                      const v1::Volume& header, int64_t offset);
  // NOT_FOUND when nothing was received.
  absl::StatusOr<v1::Upload> Get(const std::string& request_id);
  absl::Status Delete(const std::string& request_id);
  // Removes uploads that nobody touched for this long.
  void Expire(int64_t seconds);

 private:
  friend class UploadWriter;
  explicit UploadStore(std::string folder) : folder_(std::move(folder)) {}
  std::string PartPath(const std::string& request_id) const {
    return folder_ + "/" + request_id + ".part";
  }
  std::string HeaderPath(const std::string& request_id) const {
    return folder_ + "/" + request_id + ".header";
  }
  absl::Status Claim(const std::string& request_id);
  void Release(const std::string& request_id);

  const std::string folder_;
  std::mutex mutex_;
  std::set<std::string> active_;  // guarded by mutex_
};

}  // namespace gvsl

#endif  // GVSL_SERVER_UPLOAD_STORE_H_
