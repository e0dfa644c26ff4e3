// PrivateFolder: a place for what names patients, for as long as it is needed.
#ifndef GVSL_INGEST_PRIVATE_FOLDER_H_
#define GVSL_INGEST_PRIVATE_FOLDER_H_

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gvsl {

// A folder in $TMPDIR for its owner alone, gone with this object.
class PrivateFolder {
 public:
  PrivateFolder()
      : path_((std::filesystem::temp_directory_path() / "gvsl-ingest-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) error_ = errno;
  }
  ~PrivateFolder() {
    std::error_code ignored;
    if (error_ == 0) std::filesystem::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  // UNAVAILABLE where it could not be made.
  absl::Status status() const {
    if (error_ == 0) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("cannot make ", path_, ": ", std::strerror(error_)));
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int error_ = 0;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_PRIVATE_FOLDER_H_
