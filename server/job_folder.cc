#include "server/job_folder.h"

#include <fcntl.h>
#include <google/protobuf/text_format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "server/blob_store.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

constexpr off_t kTailBytes = 1024;
constexpr size_t kTailLines = 8;
constexpr int kDeepest = 8;

// True for what server and process tell each other, and for files that are being written.
bool IsPrivate(const std::string& path) {
  for (const char* own : {"task.textproto", "lock", "events.jsonl", "log.txt"}) {
    if (path == own) return true;
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.empty() || name[0] == '.' || IsAsideName(name);
}

v1::JobArtifact Describe(const std::string& path, const struct stat& about) {
  v1::JobArtifact artifact;
  artifact.set_path(path);
  artifact.set_size_bytes(about.st_size);
  artifact.mutable_update_time()->set_seconds(about.st_mtim.tv_sec);
  artifact.mutable_update_time()->set_nanos(static_cast<int32_t>(about.st_mtim.tv_nsec));
  return artifact;
}

void Walk(const std::string& root, const std::string& below, int depth,
          std::vector<v1::JobArtifact>& found) {
  std::error_code error;
  for (fs::directory_iterator at(absl::StrCat(root, "/", below), error), end; !error && at != end;
       at.increment(error)) {
    const std::string path = below + at->path().filename().string();
    struct stat about = {};
    if (lstat(absl::StrCat(root, "/", path).c_str(), &about) != 0 || IsPrivate(path)) continue;
    if (S_ISREG(about.st_mode)) found.push_back(Describe(path, about));
    if (S_ISDIR(about.st_mode) && depth < kDeepest) Walk(root, path + "/", depth + 1, found);
  }
}

}  // namespace

OpenArtifact::OpenArtifact(OpenArtifact&& other) noexcept
    : file_(other.file_), about_(std::move(other.about_)) {
  other.file_ = -1;
}

OpenArtifact::~OpenArtifact() {
  if (file_ >= 0) close(file_);
}

JobFolder::JobFolder(const std::string& data_dir, const std::string& job)
    : data_dir_(fs::absolute(data_dir).string()), path_(data_dir_ + "/" + job) {}

absl::Status JobFolder::Prepare(const v1::TrainingTask& task) const {
  for (const std::string& folder : {path_, task.cache_dir()}) {
    if (folder.empty()) continue;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return WriteError("cannot make the job's folder", error.value());
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(task, &text);
  if (absl::Status status = WriteWholeFile(path_ + "/task.textproto", text); !status.ok())
    return status;
  return SyncPath(fs::path(path_).parent_path().string());
}

absl::StatusOr<pid_t> JobFolder::LockHolder() const {
  // Closing a file lets go of the locks that this process has on it: the server has one for no
  // longer than Withdraw takes.
  const int file = open((path_ + "/lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0 && errno == ENOENT) return 0;
  if (file < 0) return absl::InternalError(absl::StrCat("lock: ", std::strerror(errno)));
  const auto closed = absl::MakeCleanup([file] { close(file); });
  struct flock wanted = {};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_SET;
  if (fcntl(file, F_GETLK, &wanted) != 0)
    return absl::InternalError(absl::StrCat("lock: ", std::strerror(errno)));
  if (wanted.l_type == F_UNLCK) return 0;
  return wanted.l_pid > 0 ? wanted.l_pid : -1;
}

absl::StatusOr<bool> JobFolder::Withdraw() const {
  const int file = open((path_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (file < 0 && errno == ENOENT) return true;  // no folder: no task
  if (file < 0) return absl::InternalError(absl::StrCat("lock: ", std::strerror(errno)));
  const auto closed = absl::MakeCleanup([file] { close(file); });
  struct flock wanted = {};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_SET;
  if (fcntl(file, F_SETLK, &wanted) != 0) {
    if (errno == EACCES || errno == EAGAIN) return false;
    return absl::InternalError(absl::StrCat("lock: ", std::strerror(errno)));
  }
  if (unlink((path_ + "/task.textproto").c_str()) != 0 && errno != ENOENT)
    return absl::InternalError(absl::StrCat("task.textproto: ", std::strerror(errno)));
  return true;
}

std::string JobFolder::LogTail() const {
  const int file = open(log_path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return "";
  const auto closed = absl::MakeCleanup([file] { close(file); });
  struct stat about = {};
  if (fstat(file, &about) != 0) return "";
  const off_t begin = std::max<off_t>(0, about.st_size - kTailBytes);
  std::string text(static_cast<size_t>(std::min(about.st_size, kTailBytes)), '\0');
  const ssize_t got = pread(file, text.data(), text.size(), begin);
  text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (begin > 0) text.erase(0, text.find('\n') == std::string::npos ? 0 : text.find('\n') + 1);
  std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  if (lines.size() > kTailLines) lines.erase(lines.begin(), lines.end() - kTailLines);
  std::string tail;
  for (const std::string& line : lines) absl::StrAppend(&tail, tail.empty() ? "" : "\n", line);
  for (char& c : tail) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 127 || (byte < 32 && c != '\n')) c = '?';  // a field of protobuf is UTF-8
  }
  return absl::StrReplaceAll(tail, {{path_ + "/", ""}, {path_, "."}, {data_dir_ + "/", ""}});
}

std::vector<v1::JobArtifact> JobFolder::Artifacts() const {
  std::vector<v1::JobArtifact> found;
  Walk(path_, "", 0, found);
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.path() < b.path(); });
  return found;
}

absl::StatusOr<OpenArtifact> JobFolder::Open(const std::string& artifact) const {
  const absl::Status absent = WithReason(
      absl::NotFoundError("the job has no such file; gvsl jobs artifacts JOB lists them"),
      "ARTIFACT_NOT_FOUND");
  const std::vector<std::string> parts = absl::StrSplit(artifact, '/');
  if (IsPrivate(artifact) || parts.size() > kDeepest + 1 || artifact.find('\0') != artifact.npos)
    return absent;
  int at = open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  for (size_t i = 0; at >= 0 && i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const bool hidden = parts[i].empty() || parts[i][0] == '.';  // `..`, too
    const int next = hidden ? -1
                            : openat(at, parts[i].c_str(),
                                     O_CLOEXEC | O_NOFOLLOW |
                                         (last ? O_RDONLY | O_NONBLOCK : O_PATH | O_DIRECTORY));
    close(at);
    at = next;
  }
  struct stat about = {};
  if (at < 0) return absent;
  if (fstat(at, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(at);
    return absent;
  }
  return OpenArtifact(at, Describe(artifact, about));
}

void JobFolder::Remove(const std::string& scratch) const {
  std::error_code error;
  fs::rename(path_, scratch, error);
  if (!error) fs::remove_all(scratch, error);
}

int SetJobsAside(const std::string& data_dir, const std::set<std::string>& ids) {
  int moved = 0;
  std::error_code error;
  std::vector<std::string> folders;
  for (fs::directory_iterator at(data_dir + "/jobs", error), end; !error && at != end;
       at.increment(error)) {
    folders.push_back(at->path().filename().string());
  }
  for (const std::string& id : folders) {
    const JobFolder folder(data_dir, "jobs/" + id);
    const auto holder = folder.LockHolder();
    if (ids.count(id) > 0 || !holder.ok() || *holder != 0) continue;
    std::error_code failed;
    fs::create_directories(data_dir + "/unreferenced_jobs", failed);
    fs::rename(folder.path(), absl::StrCat(data_dir, "/unreferenced_jobs/", id), failed);
    moved += failed ? 0 : 1;
  }
  return moved;
}

}  // namespace gvsl
