#include "server/job_task.h"

#include <unistd.h>

#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"
#include "model/model_file.h"
#include "server/job_capacity.h"
#include "server/job_folder.h"
#include "server/model_registry.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

std::string BlobPath(const ServerState& state, const std::string& sha256) {
  return fs::absolute(state.blobs->PathOf(sha256)).string();
}

}  // namespace

absl::StatusOr<v1::TrainingTask> TaskOf(ServerState& state, const v1::Job& job) {
  auto inputs = state.jobs->Inputs(job.name());
  if (!inputs.ok()) return inputs.status();
  v1::TrainingTask task;
  task.set_job(job.name());
  *task.mutable_spec() = job.spec();
  const auto add = [&](const std::vector<std::string>& names, auto* volumes) -> absl::Status {
    for (const std::string& name : names) {
      auto stored = state.metadata->GetVolume(name);
      if (!stored.ok()) return stored.status();
      v1::TrainingTask::TrainingVolume& volume = *volumes->Add();
      volume.set_name(name);
      volume.set_path(BlobPath(state, stored->blob_sha256));
      volume.set_voxels_sha256(stored->blob_sha256);
      *volume.mutable_grid() = stored->volume.grid();
      volume.set_voxel_type(stored->volume.voxel_type());
      volume.set_modality(stored->volume.modality());
    }
    return absl::OkStatus();
  };
  if (absl::Status status = add(inputs->training, task.mutable_training()); !status.ok())
    return status;
  if (absl::Status status = add(inputs->validation, task.mutable_validation()); !status.ok())
    return status;
  if (!inputs->initial_model.empty()) {
    auto model = state.metadata->GetModel(inputs->initial_model);
    if (!model.ok()) return model.status();
    task.set_initial_model_path(BlobPath(state, model->blob_sha256));
  }
  task.set_data_sha256(job.data_sha256());
  task.set_cache_dir(JobCacheFolder(state));
  task.set_cache_bytes(CapacityOf(state).cache_bytes);
  task.set_device(state.device);
  task.set_threads(state.config.threads());
  return task;
}

absl::StatusOr<std::string> StoreModelOf(ServerState& state, const v1::Job& job,
                                         const std::string& file) {
  // No client can send a request of this name: an id has no slash.
  const Creation creation = {job.name(), Sha256Of("model of " + job.name())};
  v1::Model model;
  auto before = ModelMadeBefore(state, creation, &model);
  if (!before.ok()) return before.status();
  if (*before) return model.name();

  const JobFolder folder(state.config.data_dir(), job.name());
  if (auto artifact = folder.Open(file); !artifact.ok())
    return absl::NotFoundError("the file that its process named is not there");
  const std::string path = folder.path() + "/" + file;
  auto info = ReadModelInfo(path);
  if (!info.ok()) return WithoutPaths(info.status(), {path});
  const Scratch scratch(state);
  // A second name for the same bytes: the process only ever replaces the first one.
  std::error_code error;
  if (link(path.c_str(), scratch.path.c_str()) != 0) fs::copy_file(path, scratch.path, error);
  if (error) return WriteError("cannot keep the model file", error.value());
  absl::Status stored =
      RegisterModel(state, scratch.path, *info, job.display_name(), creation, &model);
  if (!stored.ok()) return stored;
  return model.name();
}

}  // namespace gvsl
