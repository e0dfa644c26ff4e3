// OutputFile: a file written aside and renamed, so that its name never stands for half a file.
#ifndef GVSL_CLIENT_OUTPUT_FILE_H_
#define GVSL_CLIENT_OUTPUT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace gvsl {

// Opens a new file beside `path` (status() tells) and replaces `path`, or the file that a link of
// this name points to, by it at Commit. Destroyed before, it leaves nothing behind and an older
// file as it was. Not thread-safe.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // NOT_FOUND: the folder is not there. PERMISSION_DENIED: it cannot be written. INVALID_ARGUMENT:
  // `path` is a device or a pipe.
  const absl::Status& status() const { return status_; }
  // Writes at a byte position; what lies between two writes is zero. RESOURCE_EXHAUSTED: disk full.
  absl::Status Write(const void* data, size_t size, int64_t offset);
  absl::Status Commit();
  // Where the bytes are until then.
  const std::string& aside() const { return aside_; }

 private:
  const std::string path_;
  std::string aside_;
  int file_ = -1;
  absl::Status status_;
};

// A small file at once.
absl::Status WriteWholeFile(const std::string& path, const std::string& content);

}  // namespace gvsl

#endif  // GVSL_CLIENT_OUTPUT_FILE_H_
