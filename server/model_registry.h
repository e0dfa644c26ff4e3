// From a model file of ours to a stored model: for imported, created and trained ones alike.
#ifndef GVSL_SERVER_MODEL_REGISTRY_H_
#define GVSL_SERVER_MODEL_REGISTRY_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/models.pb.h"
#include "model/model_file.h"
#include "server/server_state.h"

namespace gvsl {

// A file in the scratch folder that is gone when its scope ends.
struct Scratch {
  explicit Scratch(const ServerState& state) : path(state.ScratchPath()) {}
  ~Scratch() {
    std::error_code error;
    std::filesystem::remove(path, error);
  }
  const std::string path;
};

// What a client is told instead of the path of a Scratch.
constexpr char kScratchFile[] = "a file of the server";

// A status of another room for a client: `instead` stands for the names of the server's files,
// which go to the log.
absl::Status WithoutPaths(const absl::Status& status, const std::vector<std::string>& paths,
                          const std::string& instead = "the model file");

// Whether this request made a model before, which is then in `response`.
absl::StatusOr<bool> ModelMadeBefore(ServerState& state, const Creation& creation,
                                     v1::Model* response);

// Stores a safetensors file of ours, which is gone from `path` then, and its record. The same
// creation twice makes one model.
absl::Status RegisterModel(ServerState& state, const std::string& path, const ModelInfo& info,
                           const std::string& display_name, const Creation& creation,
                           v1::Model* response);

}  // namespace gvsl

#endif  // GVSL_SERVER_MODEL_REGISTRY_H_
