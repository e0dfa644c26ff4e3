#include "server/model_registry.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_replace.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"
#include "imaging/status_reason.h"
#include "server/log.h"
#include "server/names.h"
#include "trainer/card_conversion.h"

namespace gvsl {
namespace {

absl::StatusOr<std::string> DigestOf(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return absl::InternalError("the model file cannot be read again");
  Sha256 hash;
  std::string buffer(1 << 20, '\0');
  while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), file))
    hash.Update(buffer.data(), got);
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return absl::InternalError("the model file cannot be read again");
  return hash.Finish();
}

}  // namespace

absl::Status WithoutPaths(const absl::Status& status, const std::vector<std::string>& paths,
                          const std::string& instead) {
  std::vector<std::pair<std::string, std::string>> words;
  for (const std::string& path : paths) {
    words.emplace_back(path, instead);
    words.emplace_back(ShownPath(path), instead);
  }
  const std::string text = absl::StrReplaceAll(status.message(), words);
  if (status.ok() || text == status.message()) return status;
  LogError(std::string(status.message()));
  const std::string reason = ReasonOf(status);
  absl::Status clean(status.code(), text);
  return reason.empty() ? clean : WithReason(clean, reason.c_str());
}

absl::StatusOr<bool> ModelMadeBefore(ServerState& state, const Creation& creation,
                                     v1::Model* response) {
  if (creation.request_id.empty()) return false;
  auto made = state.metadata->FindCreation("models", creation);
  if (!made.ok()) return made.status();
  if (!made->has_value()) return false;
  auto stored = state.metadata->GetModel(**made);
  if (!stored.ok()) return stored.status();
  *response = std::move(stored->model);
  return true;
}

absl::Status RegisterModel(ServerState& state, const std::string& path, const ModelInfo& info,
                           const std::string& display_name, const Creation& creation,
                           v1::Model* response) {
  auto digest = DigestOf(path);
  if (!digest.ok()) return digest.status();
  StoredModel stored;
  stored.blob_sha256 = *digest;
  v1::Model& model = stored.model;
  model.set_name("models/" + NewId());
  model.set_display_name(display_name);
  *model.mutable_card() = ToProto(info.card);
  *model.mutable_identity() = IdentityOf(model.name(), info);
  model.set_parameter_count(info.parameter_count);
  *model.mutable_create_time() = Now();
  model.set_global_channels(static_cast<int32_t>(info.card.global_channels()));
  model.set_dense_channels(static_cast<int32_t>(info.card.dense_channels()));
  return state.StoreBlob(path, *digest, [&]() -> absl::Status {
    // The same request may have come twice at the same time: the first one made the model.
    auto before = ModelMadeBefore(state, creation, response);
    if (!before.ok() || *before) return before.status();
    auto added = state.metadata->AddModel(stored, creation);
    if (!added.ok()) return added.status();
    *response = *std::move(added);
    return absl::OkStatus();
  });
}

}  // namespace gvsl
