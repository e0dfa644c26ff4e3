#include "ingest/inbox.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "ingest/received_instance.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

// Deletes the folders between a file that went and the inbox, as far as they are empty.
void RemoveEmptyFolders(fs::path folder, const fs::path& inbox) {
  std::error_code ignored;
  while (folder != inbox && fs::remove(folder, ignored)) folder = folder.parent_path();
}

}  // namespace

absl::Status Inbox::RunOnce(int64_t now_s, int64_t min_free_bytes) {
  std::error_code error;
  std::vector<std::string> settled;
  for (fs::recursive_directory_iterator entry(directory_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().filename().string()[0] == '.') {
      entry.disable_recursion_pending();
      continue;
    }
    struct stat about = {};
    // The time of change, which a copy that keeps the time of writing changes too.
    if (lstat(entry->path().c_str(), &about) == 0 && S_ISREG(about.st_mode) &&
        now_s - std::max(about.st_mtime, about.st_ctime) >= settle_s_) {
      settled.push_back(entry->path().string());
    }
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot read the inbox ", directory_, ": ", error.message()));
  }
  absl::Status first;  // what costs one file alone
  for (const std::string& path : settled) {
    if (spool_.FreeBytes() < min_free_bytes) {
      return absl::ResourceExhaustedError("the spool's disk is nearly full: the inbox waits");
    }
    const absl::Status status = Take(path);
    if (absl::IsResourceExhausted(status)) return status;
    if (first.ok()) first = status;
  }
  return first;
}

absl::Status Inbox::Take(const std::string& path) {
  const absl::Status kept = KeepCopy(spool_, path, max_object_bytes_);
  std::error_code error;
  if (kept.ok()) {
    fs::remove(path, error);
    RemoveEmptyFolders(fs::path(path).parent_path(), directory_);
  } else if (absl::IsInvalidArgument(kept)) {
    // Under its path in the inbox: two files of one name do not meet.
    const fs::path refused =
        fs::path(directory_) / ".refused" / fs::path(path).lexically_relative(directory_);
    if (absl::Status made = MakeFolders(refused.parent_path().string()); !made.ok()) return made;
    fs::rename(path, refused, error);
  } else {
    return kept;
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("a file cannot be taken from the inbox: ", error.message()));
  }
  if (observer_) observer_(kept);
  return absl::OkStatus();
}

}  // namespace gvsl
