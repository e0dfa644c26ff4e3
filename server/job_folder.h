// JobFolder: the folder that a job's process and the server share (docs/adr/0006-job-folder.md), as
// the server sees it.
#ifndef GVSL_SERVER_JOB_FOLDER_H_
#define GVSL_SERVER_JOB_FOLDER_H_

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"
#include "gvsl/v1/training_task.pb.h"

namespace gvsl {

// A file of a job, open for reading; closed with it.
class OpenArtifact {
 public:
  OpenArtifact(int file, v1::JobArtifact about) : file_(file), about_(std::move(about)) {}
  OpenArtifact(OpenArtifact&& other) noexcept;
  OpenArtifact& operator=(OpenArtifact&&) = delete;
  ~OpenArtifact();
  int file() const { return file_; }
  const v1::JobArtifact& about() const { return about_; }

 private:
  int file_;
  v1::JobArtifact about_;
};

// Safe for concurrent use. Only Prepare, Withdraw and Remove change anything.
class JobFolder {
 public:
  // The folder of `jobs/{id}` below the server's data folder; it need not be there.
  JobFolder(const std::string& data_dir, const std::string& job);

  const std::string& path() const { return path_; }
  std::string events_path() const { return path_ + "/events.jsonl"; }
  std::string log_path() const { return path_ + "/log.txt"; }

  // Makes the folder and writes the task. As OutputFile's statuses.
  absl::Status Prepare(const v1::TrainingTask& task) const;
  // The process that holds the lock: 0 for none, -1 for one that has no number here (another
  // machine's, or another container's). INTERNAL when it cannot be asked.
  absl::StatusOr<pid_t> LockHolder() const;
  // Takes the task away, so that a process of an earlier server that has not taken the lock yet
  // will find nothing to do. False when one holds the lock: it has the task. INTERNAL on failure.
  absl::StatusOr<bool> Withdraw() const;
  // The last lines of the log, at most 1 KiB, without the names of the server's own folders.
  std::string LogTail() const;

  // Files that the job has made, by path; no links, nothing outside of the folder, nothing of what
  // server and process tell each other, nothing half-written.
  std::vector<v1::JobArtifact> Artifacts() const;
  // NOT_FOUND (ARTIFACT_NOT_FOUND) for what Artifacts does not list.
  absl::StatusOr<OpenArtifact> Open(const std::string& artifact) const;

  // Removes the folder by way of `scratch`, a name on the same file system that is not there yet.
  void Remove(const std::string& scratch) const;

 private:
  const std::string data_dir_, path_;
};

// Moves folders of jobs that are in no record (a deletion was cut, or an older database was
// restored) to `unreferenced_jobs` in the data folder, but for those whose process runs. Returns
// how many.
int SetJobsAside(const std::string& data_dir, const std::set<std::string>& ids);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_FOLDER_H_
