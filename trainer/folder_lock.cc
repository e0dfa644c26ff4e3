#include "trainer/folder_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace gvsl {

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::Take(const std::string& folder) {
  const int file = open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) {
    const std::string message = absl::StrCat(folder, "/lock: ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::InternalError(message);
  }
  std::unique_ptr<FolderLock> lock(new FolderLock(file));
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  if (fcntl(file, F_SETLK, &request) == 0) return lock;
  if (errno != EACCES && errno != EAGAIN) {
    return absl::InternalError(absl::StrCat(folder, "/lock: ", std::strerror(errno)));
  }
  return absl::FailedPreconditionError(
      absl::StrCat(folder, ": another gvsl-trainer is at work in this folder"));
}

FolderLock::~FolderLock() { close(file_); }

}  // namespace gvsl
