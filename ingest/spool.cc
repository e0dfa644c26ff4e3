#include "ingest/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

absl::Status Failure(const std::string& what, const std::string& path, int error) {
  const std::string text = absl::StrCat(what, " ", ShownPath(path), ": ", std::strerror(error));
  return IsDiskFull(error) ? absl::ResourceExhaustedError(text) : absl::UnavailableError(text);
}

absl::Status Sync(const std::string& path, int flags) {
  const int file = open(path.c_str(), flags | O_CLOEXEC);
  if (file < 0) return Failure("cannot open", path, errno);
  const int failed = fsync(file) != 0 ? errno : 0;
  close(file);
  return failed != 0 ? Failure("cannot sync", path, failed) : absl::OkStatus();
}

absl::Status SyncFolder(const std::string& path) { return Sync(path, O_RDONLY | O_DIRECTORY); }

absl::StatusOr<std::string> DigestOfFile(const std::string& path) {
  Sha256 hash;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return Failure("cannot open", path, errno);
  std::vector<char> buffer(1 << 18);
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), file)) {
    hash.Update(buffer.data(), count);
  }
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return Failure("cannot read", path, EIO);
  return hash.Finish();
}

std::string KeyOf(const std::string& study, const std::string& series) {
  return Sha256Of(absl::StrCat(study, "\n", series)).substr(0, 32);
}

json ToJson(const SpoolState& state) {
  return {{"uploaded", state.uploaded}, {"setAside", state.set_aside}, {"attempts", state.attempts},
          {"outages", state.outages},   {"retryAt", state.retry_at_s}, {"error", state.error},
          {"volumes", state.volumes},   {"verdicts", state.verdicts}};
}

SpoolState FromJson(const json& text) {
  SpoolState state;
  try {
    state.uploaded = text.at("uploaded").get<std::string>();
    state.set_aside = text.at("setAside").get<std::string>();
    state.attempts = text.at("attempts").get<int>();
    state.outages = text.at("outages").get<int>();
    state.retry_at_s = text.at("retryAt").get<int64_t>();
    state.error = text.at("error").get<std::string>();
    state.volumes = text.at("volumes").get<std::vector<std::string>>();
    state.verdicts = text.at("verdicts").get<std::string>();
  } catch (const json::exception&) {
    return {};
  }
  return state;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& directory) {
  std::error_code error;
  for (const char* folder : {"incoming", "series", "ledgers"}) {
    fs::create_directories(fs::path(directory) / folder, error);
    if (error) return Failure("cannot make the spool", directory, error.value());
  }
  // Others have no business with patients' images.
  if (chmod(directory.c_str(), S_IRWXU) != 0) {
    return Failure("cannot make the spool private:", directory, errno);
  }
  const std::string lock_path = directory + "/lock";
  const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return Failure("cannot make", lock_path, errno);
  std::unique_ptr<Spool> spool(new Spool(directory, lock));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another gvsl-ingest serves the spool ", directory));
  }
  for (const auto& entry : fs::directory_iterator(directory + "/incoming", error)) {
    std::error_code ignored;
    fs::remove_all(entry.path(), ignored);
  }
  return spool;
}

Spool::Spool(Spool&& other) noexcept
    : directory_(std::move(other.directory_)), lock_(std::exchange(other.lock_, -1)) {}

Spool::~Spool() {
  if (lock_ >= 0) close(lock_);
}

std::string Spool::IncomingPath() {
  return absl::StrCat(directory_, "/incoming/", ++next_, ".dcm");
}

absl::Status Spool::Keep(const std::string& incoming_path, const std::string& study_instance_uid,
                         const std::string& series_instance_uid,
                         const std::string& sop_instance_uid) {
  const std::string series =
      absl::StrCat(directory_, "/series/", KeyOf(study_instance_uid, series_instance_uid));
  const std::string instances = series + "/instances";
  const auto keep = [&]() -> absl::Status {
    absl::StatusOr<std::string> digest = DigestOfFile(incoming_path);
    if (!digest.ok()) return digest.status();
    if (absl::Status status = Sync(incoming_path, O_RDONLY); !status.ok()) return status;
    std::error_code error;
    if (fs::create_directories(instances, error)) {
      for (const std::string& folder : {directory_ + "/series", series}) {
        if (absl::Status status = SyncFolder(folder); !status.ok()) return status;
      }
    }
    if (error) return Failure("cannot make", instances, error.value());
    const std::string name = absl::StrCat(instances, "/", Sha256Of(sop_instance_uid).substr(0, 32),
                                          "-", digest->substr(0, 32), ".dcm");
    if (fs::exists(name, error)) {
      // Sent before; the folder's time stays, so that nothing is done again for it.
      fs::remove(incoming_path, error);
      return SyncFolder(instances);
    }
    if (rename(incoming_path.c_str(), name.c_str()) != 0)
      return Failure("cannot make", name, errno);
    return SyncFolder(instances);
  };
  absl::Status status = keep();
  if (!status.ok()) unlink(incoming_path.c_str());
  return status;
}

std::vector<std::string> Spool::InstancesOf(const std::string& key) const {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry :
       fs::directory_iterator(absl::StrCat(directory_, "/series/", key, "/instances"), error)) {
    paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

SpoolSeries Spool::Read(const std::string& key) const {
  SpoolSeries series;
  series.key = key;
  const std::string folder = absl::StrCat(directory_, "/series/", key);
  struct stat about = {};
  // Renaming a file into the folder is what changes its time.
  if (stat((folder + "/instances").c_str(), &about) == 0) series.last_arrival_s = about.st_mtime;
  Sha256 names;
  for (const std::string& path : InstancesOf(key)) {
    const std::string name = fs::path(path).filename().string();
    names.Update(name.data(), name.size());
    ++series.instances;
  }
  series.digest = names.Finish();
  std::ifstream state(folder + "/state.json");
  if (state) series.state = FromJson(json::parse(state, nullptr, false));
  return series;
}

absl::StatusOr<std::vector<SpoolSeries>> Spool::List() const {
  std::vector<SpoolSeries> all;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_ + "/series", error)) {
    all.push_back(Read(entry.path().filename().string()));
  }
  if (error) return Failure("cannot read the spool", directory_, error.value());
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  return all;
}

absl::Status Spool::SetState(const std::string& key, const SpoolState& state) {
  return WriteWholeFile(absl::StrCat(directory_, "/series/", key, "/state.json"),
                        ToJson(state).dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

absl::Status Spool::SetLedger(const std::string& key, const Ledger& ledger) {
  json entries = json::array();
  for (const LedgerEntry& entry : ledger) {
    entries.push_back({{"sopInstanceUid", entry.sop_instance_uid},
                       {"verdict", VerdictName(entry.verdict)},
                       {"detail", entry.detail}});
  }
  return WriteWholeFile(absl::StrCat(directory_, "/ledgers/", key, ".json"),
                        entries.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
}

void Spool::Remove(const std::string& key, const std::string& digest) {
  // Renamed first: an instance that arrives from now on makes the folder anew.
  const std::string folder = absl::StrCat(directory_, "/series/", key);
  const std::string gone = absl::StrCat(directory_, "/incoming/", key, ".removed");
  if (Read(key).digest != digest || rename(folder.c_str(), gone.c_str()) != 0) return;
  std::error_code ignored;
  fs::remove_all(gone, ignored);
}

}  // namespace gvsl
