#include "ingest/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kNanosecondsPerSecond = 1000000000;
// Two changes of a folder within one tick of the file system's clock have the same time: a folder
// that changed so lately is read again.
constexpr int64_t kSettledNs = 2 * kNanosecondsPerSecond;

absl::Status Failure(const std::string& what, const std::string& path, int error) {
  const std::string text = absl::StrCat(what, " ", ShownPath(path), ": ", std::strerror(error));
  return IsDiskFull(error) ? absl::ResourceExhaustedError(text) : absl::UnavailableError(text);
}

absl::Status Sync(const std::string& path) {
  const int failed = SyncToDisk(path);
  return failed != 0 ? Failure("cannot sync", path, failed) : absl::OkStatus();
}

// When a folder's names last changed, in ns; -1 where there is none.
int64_t TimeOf(const std::string& folder) {
  struct stat about = {};
  if (stat(folder.c_str(), &about) != 0) return -1;
  return int64_t{about.st_mtim.tv_sec} * kNanosecondsPerSecond + about.st_mtim.tv_nsec;
}

absl::StatusOr<std::string> DigestOfFile(const std::string& path, int64_t offset) {
  Sha256 hash;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return Failure("cannot open", path, errno);
  fseeko(file, offset, SEEK_SET);
  std::vector<char> buffer(1 << 18);
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), file)) {
    hash.Update(buffer.data(), count);
  }
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return Failure("cannot read", path, EIO);
  return hash.Finish();
}

// Of the hashes that are names.
constexpr size_t kNameDigits = 32;

std::string KeyOf(const std::string& study, const std::string& series) {
  return Sha256Of(absl::StrCat(study, "\n", series)).substr(0, kNameDigits);
}

// How the name of an instance's file begins.
std::string NameOf(const std::string& sop_instance_uid) {
  return Sha256Of(sop_instance_uid).substr(0, kNameDigits);
}

json ToJson(const SpoolState& state) {
  return {{"uploaded", state.uploaded},  {"setAside", state.set_aside},
          {"underWay", state.under_way}, {"attempts", state.attempts},
          {"outages", state.outages},    {"retryAt", state.retry_at_s},
          {"error", state.error},        {"volumes", state.volumes},
          {"verdicts", state.verdicts},  {"unused", state.unused}};
}

SpoolState FromJson(const json& text) {
  SpoolState state;
  try {
    state.uploaded = text.at("uploaded").get<std::string>();
    state.set_aside = text.at("setAside").get<std::string>();
    state.under_way = text.at("underWay").get<std::string>();
    state.attempts = text.at("attempts").get<int>();
    state.outages = text.at("outages").get<int>();
    state.retry_at_s = text.at("retryAt").get<int64_t>();
    state.error = text.at("error").get<std::string>();
    state.volumes = text.at("volumes").get<std::vector<std::string>>();
    state.verdicts = text.at("verdicts").get<std::string>();
    state.unused = text.at("unused").get<int64_t>();
  } catch (const json::exception&) {
    return {};
  }
  return state;
}

// Discarded where the file is absent, damaged or cannot be read.
json ReadJson(const std::string& path) {
  try {
    std::ifstream file(path);
    return json::parse(file, nullptr, false);
  } catch (const std::exception&) {  // of the stream
    return json(json::value_t::discarded);
  }
}

}  // namespace

const char* SpoolStateName(const SpoolSeries& series) {
  if (series.is_done()) return "uploaded";
  if (series.is_set_aside()) return "set_aside";
  return series.state.error.empty() ? "waiting" : "retrying";
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& directory) {
  for (const char* folder : {"/incoming", "/series", "/ledgers", "/commitments"}) {
    if (absl::Status status = MakeFolders(directory + folder); !status.ok()) return status;
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
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory + "/incoming", error)) {
    std::error_code ignored;
    fs::remove_all(entry.path(), ignored);
  }
  // Folders that a killed process had made, and not yet synced.
  if (syncfs(lock) != 0) return Failure("cannot sync", directory, errno);
  return spool;
}

Spool::~Spool() {
  if (lock_ >= 0) close(lock_);
}

std::string Spool::IncomingPath() {
  return absl::StrCat(directory_, "/incoming/", ++next_, ".dcm");
}

absl::Status Spool::Keep(const std::string& incoming_path, int64_t content_offset,
                         const std::string& study_instance_uid,
                         const std::string& series_instance_uid,
                         const std::string& sop_instance_uid) {
  const std::string instances = absl::StrCat(
      directory_, "/series/", KeyOf(study_instance_uid, series_instance_uid), "/instances");
  const auto keep = [&]() -> absl::Status {
    absl::StatusOr<std::string> digest = DigestOfFile(incoming_path, content_offset);
    if (!digest.ok()) return digest.status();
    if (absl::Status status = Sync(incoming_path); !status.ok()) return status;
    const std::string name = absl::StrCat(instances, "/", NameOf(sop_instance_uid), "-",
                                          digest->substr(0, kNameDigits), ".dcm");
    {
      const std::lock_guard<std::mutex> lock(folders_);
      if (absl::Status status = MakeFolders(instances); !status.ok()) return status;
      std::error_code error;
      if (fs::exists(name, error)) {
        // Sent before; the folder's time stays, so that nothing is done again for it.
        unlink(incoming_path.c_str());
      } else if (rename(incoming_path.c_str(), name.c_str()) != 0) {
        return Failure("cannot make", name, errno);
      }
    }
    return Sync(instances);
  };
  absl::Status status = keep();
  if (!status.ok()) unlink(incoming_path.c_str());
  return status;
}

int64_t Spool::FreeBytes() const {
  struct statvfs disk = {};
  // A disk that does not tell is found full by writing.
  if (statvfs(directory_.c_str(), &disk) != 0) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
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
  const std::string folder = absl::StrCat(directory_, "/series/", key);
  // Renaming a file into a folder is what changes its time. Taken before its names are read: what
  // comes in between is seen the next time.
  Seen now;
  now.folder_time_ns = TimeOf(folder);
  now.instances_time_ns = TimeOf(folder + "/instances");
  {
    const std::lock_guard<std::mutex> lock(seen_mutex_);
    const auto seen = seen_.find(key);
    if (seen != seen_.end() && seen->second.folder_time_ns == now.folder_time_ns &&
        seen->second.instances_time_ns == now.instances_time_ns) {
      return seen->second.series;
    }
  }
  SpoolSeries& series = now.series;
  series.key = key;
  series.last_arrival_s = std::max<int64_t>(0, now.instances_time_ns) / kNanosecondsPerSecond;
  Sha256 names;
  for (const std::string& path : InstancesOf(key)) {
    const std::string name = fs::path(path).filename().string();
    names.Update(name.data(), name.size());
    ++series.instances;
  }
  series.digest = names.Finish();
  series.state = FromJson(ReadJson(folder + "/state.json"));
  std::error_code error;
  series.is_committed = fs::exists(folder + "/committed", error);

  const int64_t clock_ns = int64_t{std::time(nullptr)} * kNanosecondsPerSecond;
  const std::lock_guard<std::mutex> lock(seen_mutex_);
  if (clock_ns - std::max(now.folder_time_ns, now.instances_time_ns) > kSettledNs) {
    seen_[key] = now;
  } else {
    seen_.erase(key);
  }
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
  const std::string path = absl::StrCat(directory_, "/ledgers/", key, ".json");
  json entries = json::array();
  std::set<std::string> uids;
  for (const LedgerEntry& entry : ledger) {
    uids.insert(entry.sop_instance_uid);
    entries.push_back({{"sopInstanceUid", entry.sop_instance_uid},
                       {"sopClassUid", entry.sop_class_uid},
                       {"verdict", VerdictName(entry.verdict)},
                       {"detail", entry.detail}});
  }
  const json old = ReadJson(path);
  if (old.is_array()) {
    for (const json& entry : old) {
      if (entry.is_object() && uids.count(entry.value("sopInstanceUid", "")) == 0) {
        entries.push_back(entry);
      }
    }
  }
  return WriteWholeFile(path, entries.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
}

absl::StatusOr<SafeInstances> Spool::Commit(const std::set<std::string>& sop_instance_uids) {
  std::map<std::string, std::string> uid_of_name;
  for (const std::string& uid : sop_instance_uids) uid_of_name[NameOf(uid)] = uid;
  SafeInstances safe;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_ + "/series", error)) {
    const std::string key = entry.path().filename().string();
    const auto in_series = [&] {
      SafeInstances found;
      for (const std::string& path : InstancesOf(key)) {
        const auto wanted =
            uid_of_name.find(fs::path(path).filename().string().substr(0, kNameDigits));
        if (wanted != uid_of_name.end()) found[wanted->second].paths.push_back(path);
      }
      return found;
    };
    if (in_series().empty()) continue;
    // Again: the series may have been removed meanwhile, and then is in its ledger.
    const std::lock_guard<std::mutex> lock(folders_);
    const SafeInstances found = in_series();
    if (found.empty()) continue;
    const std::string folder = absl::StrCat(directory_, "/series/", key);
    if (absl::Status status = Sync(folder + "/instances"); !status.ok()) return status;
    if (absl::Status status = WriteWholeFile(folder + "/committed", ""); !status.ok()) {
      return status;
    }
    for (const auto& [uid, instance] : found) {
      auto& paths = safe[uid].paths;
      paths.insert(paths.end(), instance.paths.begin(), instance.paths.end());
    }
  }
  if (error) return Failure("cannot read the spool", directory_, error.value());
  if (safe.size() == sop_instance_uids.size()) return safe;
  for (const auto& entry : fs::directory_iterator(directory_ + "/ledgers", error)) {
    for (const json& one : ReadJson(entry.path().string())) {
      const std::string uid = one.is_object() ? one.value("sopInstanceUid", "") : "";
      if (sop_instance_uids.count(uid) != 0 && safe.count(uid) == 0 &&
          one.value("verdict", "") == VerdictName(Verdict::kUsed) &&
          one.value("detail", "").empty()) {
        safe[uid].sop_class_uid = one.value("sopClassUid", "");
      }
    }
  }
  if (error) return Failure("cannot read the spool", directory_, error.value());
  return safe;
}

bool Spool::Remove(const std::string& key, const std::string& digest) {
  // Renamed first: an instance that arrives from now on makes the folder anew.
  const std::lock_guard<std::mutex> lock(folders_);
  const std::string folder = absl::StrCat(directory_, "/series/", key);
  const std::string gone = absl::StrCat(directory_, "/incoming/", key, ".removed");
  const SpoolSeries series = Read(key);
  if (series.digest != digest || (series.is_committed && series.state.unused > 0) ||
      rename(folder.c_str(), gone.c_str()) != 0) {
    return false;
  }
  {
    const std::lock_guard<std::mutex> seen(seen_mutex_);
    seen_.erase(key);
  }
  std::error_code ignored;
  fs::remove_all(gone, ignored);
  return true;
}

}  // namespace gvsl
