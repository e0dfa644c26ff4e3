#include "model/checkpoint.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

constexpr char kStem[] = "step-";
constexpr char kSuffix[] = ".safetensors";

using Metadata = std::vector<std::pair<std::string, std::string>>;

std::string Exactly(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%a", value);
  return text;
}

Metadata MetadataOf(const Checkpoint& checkpoint) {
  return {{"best_score", Exactly(checkpoint.best_score)},
          {"run", checkpoint.run_digest},
          {"step", absl::StrCat(checkpoint.step)},
          {"validated_step", absl::StrCat(checkpoint.validated_step)},
          {"validations_since_best", absl::StrCat(checkpoint.validations_since_best)}};
}

// Over the tensors and everything that is told about them.
std::string Digest(const Checkpoint& checkpoint) {
  std::string text = WeightsDigest(checkpoint.state);
  for (const auto& [key, value] : MetadataOf(checkpoint))
    absl::StrAppend(&text, "\n", key, "=", value);
  return Sha256Of(text);
}

// Checkpoints of a folder, the newest first.
std::vector<fs::path> Listed(const std::string& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kStem, 0) == 0 && entry.path().extension() == kSuffix)
      paths.push_back(entry.path());
  }
  std::sort(paths.rbegin(), paths.rend());
  return paths;
}

absl::StatusOr<Checkpoint> Read(const std::string& path) {
  auto file = ReadSafetensors(path);
  if (!file.ok()) return file.status();
  Checkpoint checkpoint;
  std::string digest;
  for (const auto& [key, value] : file->metadata) {
    const int64_t number = std::strtoll(value.c_str(), nullptr, 10);
    if (key == "step") checkpoint.step = number;
    if (key == "best_score") checkpoint.best_score = std::strtod(value.c_str(), nullptr);
    if (key == "run") checkpoint.run_digest = value;
    if (key == "sha256") digest = value;
    if (key == "validated_step") checkpoint.validated_step = number;
    if (key == "validations_since_best") checkpoint.validations_since_best = number;
  }
  checkpoint.state = std::move(file->state);
  if (digest != Digest(checkpoint))
    return absl::DataLossError("its content is not what its digest says");
  return checkpoint;
}

}  // namespace

std::string CheckpointName(int64_t step) {
  char name[64];
  std::snprintf(name, sizeof(name), "%s%09" PRId64 "%s", kStem, step, kSuffix);
  return name;
}

absl::Status WriteCheckpoint(const std::string& folder, const Checkpoint& checkpoint,
                             int64_t keep) {
  std::error_code error;
  fs::create_directories(folder, error);
  SafetensorsFile file;
  // Off the device once, for the digest and for the file.
  Checkpoint on_host = checkpoint;
  try {
    for (auto& [name, tensor] : on_host.state) tensor = tensor.to(at::kCPU);
  } catch (const std::exception& failure) {
    return absl::ResourceExhaustedError(absl::StrCat("LibTorch: ", failure.what()));
  }
  file.state = on_host.state;
  file.metadata = MetadataOf(on_host);
  file.metadata.emplace_back("sha256", Digest(on_host));
  const std::string path = (fs::path(folder) / CheckpointName(checkpoint.step)).string();
  if (absl::Status status = WriteSafetensors(file, path); !status.ok()) return status;
  const std::vector<fs::path> paths = Listed(folder);
  for (size_t i = static_cast<size_t>(std::max<int64_t>(1, keep)); i < paths.size(); ++i) {
    fs::remove(paths[i], error);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Checkpoint>> ReadLastCheckpoint(
    const std::string& folder, const std::string& run_digest,
    const std::function<void(const std::string&)>& warn) {
  for (const fs::path& path : Listed(folder)) {
    auto checkpoint = Read(path.string());
    if (!checkpoint.ok()) {
      warn(absl::StrCat("checkpoint ", path.filename().string(), " is damaged (",
                        checkpoint.status().message(), "); the one before it is used"));
      continue;
    }
    if (checkpoint->run_digest != run_digest) {
      return absl::FailedPreconditionError(
          absl::StrCat("checkpoint ", path.filename().string(),
                       " is of a run with other settings or data; begin a new job for these"));
    }
    return std::optional<Checkpoint>(*std::move(checkpoint));
  }
  return std::optional<Checkpoint>();
}

}  // namespace gvsl
