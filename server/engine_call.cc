#include "server/engine_call.h"

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/model_registry.h"
#include "server/names.h"
#include "server/volume_conversion.h"

namespace gvsl {

absl::StatusOr<StoredModel> ModelOf(ServerState& state, const std::string& name) {
  if (name.empty()) return state.metadata->GetModel("models/default");
  auto id = IdOf("models", name, "model");
  if (!id.ok()) return id.status();
  return state.metadata->GetModel(name);
}

absl::StatusOr<StoredVolume> VolumeOf(ServerState& state, const std::string& name,
                                      const std::string& field, bool labels) {
  auto id = IdOf("volumes", name, field);
  if (!id.ok()) return id.status();
  auto stored = state.metadata->GetVolume(name);
  if (!stored.ok()) return stored;
  if ((KindOf(stored->volume) == VolumeKind::kLabels) != labels) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", name,
                     labels ? " is an image, not a label map" : " is a label map, not an image"));
  }
  return stored;
}

absl::Status OnDevice(ServerState& state, const StoredModel& model, const CancelFunction& cancelled,
                      const std::function<absl::Status(Extractor&)>& work, bool admitted) {
  const std::string path = state.blobs->PathOf(model.blob_sha256);
  absl::Status result = state.engine->Run(path, cancelled, work, admitted);
  return ReasonOf(result) == InferenceEngine::kModelNotLoaded
             ? state.Unreadable(model.model.name(), result)
             : WithoutPaths(result, {path});
}

absl::Status OnEngine(ServerState& state, const StoredModel& model, const WindowOptions& options,
                      const CancelFunction& cancelled,
                      const std::function<absl::Status(Extractor&)>& work, bool admitted) {
  return OnDevice(
      state, model, cancelled,
      [&](Extractor& extractor) {
        absl::Status status = extractor.CheckWindow(options, state.memory_bytes());
        return status.ok() ? work(extractor) : status;
      },
      admitted);
}

}  // namespace gvsl
