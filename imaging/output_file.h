// OutputFile: a file written aside, synced and renamed, so that its name never stands for half a
// file.
#ifndef GVSL_IMAGING_OUTPUT_FILE_H_
#define GVSL_IMAGING_OUTPUT_FILE_H_

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

// A path as a message shows it: the end of a long one.
std::string ShownPath(const std::string& path);

// True for the errors of a disk, a quota or a file that can grow no more.
bool IsDiskFull(int error);

}  // namespace gvsl

#endif  // GVSL_IMAGING_OUTPUT_FILE_H_
