#include "server/server_state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/wire.h"
#include "imaging/status_reason.h"
#include "server/job_folder.h"
#include "server/log.h"
#include "server/names.h"
#include "server/volume_conversion.h"

namespace gvsl {
namespace fs = std::filesystem;

absl::StatusOr<std::unique_ptr<ServerState>> ServerState::Open(const v1::ServerConfig& config) {
  auto state = std::make_unique<ServerState>(config);
  const std::string& folder = config.data_dir();
  if (absl::Status status = MakeFolder(folder); !status.ok()) return status;
  state->lock_file = open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (state->lock_file < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("data_dir: cannot open ", folder, "/lock: ", std::strerror(errno)));
  }
  if (flock(state->lock_file, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("data_dir: another gvsld works in ", folder,
                                                      "; stop it, or name another folder"));
  }

  auto device = InitializeLibTorch({config.device(), config.threads()});
  if (!device.ok()) return device.status();
  state->device = *device;
  state->threads = config.threads() > 0 ? config.threads()
                                        : static_cast<int>(std::thread::hardware_concurrency());

  auto blobs = BlobStore::Open(folder + "/blobs");
  if (!blobs.ok()) return blobs.status();
  state->blobs = *std::move(blobs);
  const std::string database = folder + "/metadata.sqlite";
  std::error_code error;
  if (state->blobs->bytes() > 0 && !fs::exists(database, error)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "data_dir: ", database, " is missing, and ", folder, "/blobs holds ", state->blobs->bytes(),
        " bytes that only it can name; restore it from the backup that ",
        "belongs to these blobs, or move ", folder, "/blobs away to begin anew"));
  }
  auto opened = Database::Open(database);
  if (!opened.ok()) return opened.status();
  state->database = *std::move(opened);
  state->metadata = std::make_unique<MetadataStore>(*state->database);
  state->jobs = std::make_unique<JobStore>(*state->database);
  state->registrations = std::make_unique<RegistrationStore>(*state->database);
  auto uploads = UploadStore::Open(folder + "/uploads");
  if (!uploads.ok()) return uploads.status();
  state->uploads = *std::move(uploads);
  state->uploads->Expire(int64_t{3600} * config.upload_expiry_h());

  // What a killed server left behind: scratch files, and blobs whose record was never written.
  fs::remove_all(folder + "/scratch", error);
  if (absl::Status status = MakeFolder(folder + "/scratch"); !status.ok()) return status;
  auto referenced = state->metadata->Blobs();
  if (!referenced.ok()) return referenced.status();
  auto moved = state->blobs->SetAside(*referenced, folder + "/unreferenced");
  if (!moved.ok()) return moved.status();
  if (*moved > 0) {
    LogInfo(absl::StrCat("moved ", *moved, " blob(s) that no record names to ", folder,
                         "/unreferenced; delete them there unless an older metadata.sqlite was "
                         "restored"));
  }
  if (absl::Status status = MakeFolder(folder + "/jobs"); !status.ok()) return status;
  auto jobs = state->jobs->Ids();
  if (!jobs.ok()) return jobs.status();
  if (const int folders = SetJobsAside(folder, *jobs); folders > 0) {
    LogInfo(absl::StrCat("moved ", folders, " folder(s) of jobs that no record names to ", folder,
                         "/unreferenced_jobs; delete them there unless an older metadata.sqlite ",
                         "was restored"));
  }
  if (absl::Status status = MakeFolder(folder + "/search"); !status.ok()) return status;
  EmbeddingCatalog::Options search;
  search.index.exact_up_to = config.exact_search_up_to();
  search.index.search_effort = config.search_effort();
  search.memory_bytes = config.search_memory_mib() << 20;
  state->embeddings =
      std::make_unique<EmbeddingCatalog>(*state->database, folder + "/search", search);
  InferenceEngine::Options options;
  options.device = {state->device, state->threads};
  options.queue_capacity = config.queue_capacity();
  state->engine = std::make_unique<InferenceEngine>(options);
  return state;
}

ServerState::~ServerState() {
  engine.reset();
  if (lock_file >= 0) close(lock_file);
}

std::string ServerState::ScratchPath() const {
  return absl::StrCat(config.data_dir(), "/scratch/", NewId());
}

absl::Status ServerState::StoreBlob(const std::string& path, const std::string& sha256,
                                    const std::function<absl::Status()>& write_record) {
  // Gigabytes go to the disk here, not under the lock, where Commit finds nothing left to sync.
  if (absl::Status status = SyncPath(path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(blob_mutex_);
  if (absl::Status status = blobs->Commit(path, sha256); !status.ok()) return status;
  absl::Status status = write_record();
  if (!status.ok()) {
    const auto named = metadata->Blobs();
    if (named.ok() && named->count(sha256) == 0) blobs->Remove(sha256);
  }
  return status;
}

absl::Status ServerState::RemoveBlob(
    const std::function<absl::StatusOr<std::string>()>& delete_record) {
  const std::lock_guard<std::mutex> lock(blob_mutex_);
  const auto unneeded = delete_record();
  if (unneeded.ok() && !unneeded->empty()) blobs->Remove(*unneeded);
  return unneeded.status();
}

absl::StatusOr<Volume> ServerState::MapVolume(const StoredVolume& stored) const {
  auto grid = FromProto(stored.volume.grid());
  if (!grid.ok()) return grid.status();
  auto volume = Volume::Map(blobs->PathOf(stored.blob_sha256), *grid,
                            FromProto(stored.volume.voxel_type()), KindOf(stored.volume));
  if (!volume.ok()) return Unreadable(stored.volume.name(), volume.status());
  volume->set_modality(stored.volume.modality());
  return volume;
}

absl::Status ServerState::Unreadable(const std::string& name, const absl::Status& detail) const {
  const bool is_model = name.rfind("models/", 0) == 0;
  absl::Status still_there =
      is_model ? metadata->GetModel(name).status() : metadata->GetVolume(name).status();
  if (!still_there.ok()) return still_there;
  LogError(absl::StrCat(name, ": ", std::string(detail.message())));
  const std::string text =
      absl::StrCat(name, is_model ? ": its weights" : ": its voxels", " cannot be read");
  switch (detail.code()) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kInvalidArgument:
      return WithReason(absl::DataLossError(text + "; the server's disk has lost them"),
                        "STORED_DATA_LOST");
    case absl::StatusCode::kResourceExhausted:
      return absl::ResourceExhaustedError(text + "; the server has too little memory");
    default:
      return absl::InternalError(text);
  }
}

google::protobuf::Timestamp Now() {
  const int64_t us = absl::ToUnixMicros(absl::Now());
  google::protobuf::Timestamp time;
  time.set_seconds(us / 1000000);
  time.set_nanos(static_cast<int32_t>(us % 1000000 * 1000));
  return time;
}

}  // namespace gvsl
