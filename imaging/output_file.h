// OutputFile: a file written aside, synced and renamed, so that its name never stands for half a
// file, also after a loss of power.
#ifndef GVSL_IMAGING_OUTPUT_FILE_H_
#define GVSL_IMAGING_OUTPUT_FILE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace gvsl {

// Opens a new file beside `path` (status() tells) and replaces `path`, or the file that a link of
// this name points to, by it at Commit. Destroyed before, it leaves nothing behind and an older
// file as it was. Not thread-safe.
//
// Errors: RESOURCE_EXHAUSTED with reason DISK_FULL where the disk, a quota or the file size limit
// is reached; NOT_FOUND without the folder; PERMISSION_DENIED where it cannot be written;
// INVALID_ARGUMENT where `path` is a device or a pipe; INTERNAL for other faults.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const absl::Status& status() const { return status_; }
  // Writes at a byte position; what lies between two writes is zero.
  absl::Status Write(const void* data, size_t size, int64_t offset);
  // OK: the file and its name are on the disk.
  absl::Status Commit();

  // Where the bytes are until then: another library may write them there, by this name.
  const std::string& aside() const { return aside_; }
  // The status of another library's write to aside() that failed with `error`, of errno.
  absl::Status Failed(int error) const;

 private:
  const std::string path_;
  std::string aside_;
  int file_ = -1;
  absl::Status status_;
};

// A small file at once.
absl::Status WriteWholeFile(const std::string& path, const std::string& content);

// Makes the folder and those above it that are not there, and syncs their names to the disk.
// Statuses as OutputFile's.
absl::Status MakeFolders(const std::string& folder);

// Whether this is the name of a file that an OutputFile writes aside.
bool IsAsideName(const std::string& name);

// Deletes the files aside in `folder` and below that were last written so long ago: a process that
// was killed has left them. Nobody may be writing one for so long.
void RemoveAsideFiles(const std::string& folder, std::chrono::seconds unwritten_for);

// Syncs a file or a folder (the names in it) to the disk. 0, or the error of errno.
int SyncToDisk(const std::string& path);

// A path as a message shows it: the end of a long one.
std::string ShownPath(const std::string& path);

// True for the errors of a disk, a quota or a file that can grow no more.
bool IsDiskFull(int error);

}  // namespace gvsl

#endif  // GVSL_IMAGING_OUTPUT_FILE_H_
