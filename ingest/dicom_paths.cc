#include "ingest/dicom_paths.h"

#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/parallel.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

// Regular files below a path, each once; links to folders are not followed.
void AddFiles(const std::string& path, std::set<std::string>& files,
              std::vector<absl::Status>* unreadable) {
  std::error_code error;
  const auto failed = [&](const fs::path& where) {
    unreadable->push_back(absl::NotFoundError(
        absl::StrCat("cannot read ", ShownPath(where.string()), ": ", error.message())));
  };
  const fs::file_status status = fs::status(path, error);
  if (fs::is_regular_file(status)) {
    files.insert(path);
    return;
  }
  // Folder by folder: one that cannot be read costs only itself.
  std::vector<fs::path> folders = {path};
  while (!folders.empty()) {
    const fs::path folder = std::move(folders.back());
    folders.pop_back();
    fs::directory_iterator entry(folder, error);
    if (error) {
      failed(folder);
      continue;
    }
    while (entry != fs::directory_iterator()) {
      std::error_code ignored;
      if (entry->is_directory(ignored) && !entry->is_symlink(ignored)) {
        folders.push_back(entry->path());
      } else if (entry->is_regular_file(ignored)) {
        files.insert(entry->path().string());
      }
      entry.increment(error);
      if (error) {
        failed(folder);
        break;
      }
    }
  }
}

std::vector<DicomInstance> ReadAll(const std::vector<std::string>& files, int threads,
                                   const StepProgress& progress) {
  std::vector<DicomInstance> instances(files.size());
  std::mutex mutex;
  int64_t done = 0;
  std::atomic<size_t> next{0};
  const int64_t total = static_cast<int64_t>(files.size());
  // Files differ in size by thousands: each thread takes the next one when it is free.
  ParallelFor(total, threads, [&](int64_t, int64_t) {
    for (size_t i = next++; i < files.size(); i = next++) {
      instances[i] = ReadDicomInstance(files[i]);
      const std::lock_guard<std::mutex> lock(mutex);
      if (progress) progress("reading", "files", ++done, total);
    }
  });
  return instances;
}

}  // namespace

std::vector<Series> ReadDicomPaths(const std::vector<std::string>& paths, int threads,
                                   const StepProgress& progress,
                                   std::vector<absl::Status>* unreadable) {
  std::set<std::string> files;
  for (const std::string& path : paths) AddFiles(path, files, unreadable);
  return GroupBySeries(ReadAll({files.begin(), files.end()}, threads, progress));
}

}  // namespace gvsl
