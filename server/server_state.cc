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

  auto metadata = MetadataStore::Open(folder + "/metadata.sqlite");
  if (!metadata.ok()) return metadata.status();
  state->metadata = *std::move(metadata);
  auto blobs = BlobStore::Open(folder + "/blobs");
  if (!blobs.ok()) return blobs.status();
  state->blobs = std::make_unique<BlobStore>(*std::move(blobs));
  auto uploads = UploadStore::Open(folder + "/uploads");
  if (!uploads.ok()) return uploads.status();
  state->uploads = *std::move(uploads);
  state->uploads->Expire(int64_t{3600} * config.upload_expiry_h());

  // What a killed server left behind: scratch files, and blobs whose record was never written.
  std::error_code error;
  fs::remove_all(folder + "/scratch", error);
  if (absl::Status status = MakeFolder(folder + "/scratch"); !status.ok()) return status;
  auto referenced = state->metadata->Blobs();
  if (!referenced.ok()) return referenced.status();
  if (const int64_t swept = state->blobs->Sweep(*referenced); swept > 0) {
    LogInfo(absl::StrCat("removed ", swept, " blob(s) that no record names"));
  }
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
  if (!volume.ok()) {
    const auto still_there = metadata->GetVolume(stored.volume.name());
    if (!still_there.ok()) return still_there.status();  // deleted meanwhile
    return WithReason(absl::DataLossError(absl::StrCat(
                          stored.volume.name(),
                          ": its voxels cannot be read: ", std::string(volume.status().message()))),
                      "STORED_DATA_LOST");
  }
  volume->set_modality(stored.volume.modality());
  return volume;
}

google::protobuf::Timestamp Now() {
  const int64_t us = absl::ToUnixMicros(absl::Now());
  google::protobuf::Timestamp time;
  time.set_seconds(us / 1000000);
  time.set_nanos(static_cast<int32_t>(us % 1000000 * 1000));
  return time;
}

}  // namespace gvsl
