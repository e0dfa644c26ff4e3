// FolderLock: one trainer a job's folder (docs/adr/0006-job-folder.md).
#ifndef GVSL_TRAINER_FOLDER_LOCK_H_
#define GVSL_TRAINER_FOLDER_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace gvsl {

// A record lock on the folder's file `lock`, held as long as the object and the process live. Who
// asks with F_GETLK is told the process. Not inherited by children.
class FolderLock {
 public:
  // FAILED_PRECONDITION if another process holds it; NOT_FOUND without the folder.
  static absl::StatusOr<std::unique_ptr<FolderLock>> Take(const std::string& folder);
  ~FolderLock();

 private:
  explicit FolderLock(int file) : file_(file) {}
  const int file_;
};

}  // namespace gvsl

#endif  // GVSL_TRAINER_FOLDER_LOCK_H_
