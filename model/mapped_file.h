// MappedFile: a file as model reads it, mapped whole.
#ifndef GVSL_MODEL_MAPPED_FILE_H_
#define GVSL_MODEL_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

class MappedFile {
 public:
  // NOT_FOUND without the file; an empty file maps to nothing.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_;
  size_t size_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_MAPPED_FILE_H_
