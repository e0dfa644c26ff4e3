#include "model/checkpoint.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
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

// Numbers as one value of the metadata, to the bit.
std::string Joined(const std::vector<double>& values) {
  std::string text;
  for (double value : values) absl::StrAppend(&text, text.empty() ? "" : " ", Exactly(value));
  return text;
}

// `count` numbers, or nothing for a value that is no such list.
std::optional<std::vector<double>> Split(const std::string& text, size_t count) {
  std::vector<double> values;
  const char* at = text.c_str();
  for (char* end = nullptr; *at != '\0'; at = end) {
    values.push_back(std::strtod(at, &end));
    if (end == at) return std::nullopt;
  }
  if (values.size() != count) return std::nullopt;
  return values;
}

std::vector<double> NumbersOf(const LossValues& losses) {
  return {losses.total, losses.similarity, losses.smoothness, losses.restoration};
}

constexpr size_t kLosses = 4, kValidation = 9;

std::vector<double> NumbersOf(const ValidationReport& report) {
  std::vector<double> numbers = NumbersOf(report.losses);
  numbers.insert(numbers.end(),
                 {static_cast<double>(report.step), report.ncc_before, report.ncc_after,
                  report.folding_percent, report.best ? 1.0 : 0.0});
  return numbers;
}

std::optional<LossValues> LossesOf(const std::optional<std::vector<double>>& numbers) {
  if (!numbers) return std::nullopt;
  return LossValues{(*numbers)[0], (*numbers)[1], (*numbers)[2], (*numbers)[3]};
}

std::optional<ValidationReport> ValidationOf(const std::optional<std::vector<double>>& numbers) {
  if (!numbers) return std::nullopt;
  ValidationReport report;
  report.losses = *LossesOf(numbers);
  report.step = static_cast<int64_t>((*numbers)[4]);
  report.ncc_before = (*numbers)[5];
  report.ncc_after = (*numbers)[6];
  report.folding_percent = (*numbers)[7];
  report.best = (*numbers)[8] != 0;
  return report;
}

Metadata MetadataOf(const Checkpoint& checkpoint) {
  Metadata metadata = {{"best_score", Exactly(checkpoint.best_score)},
                       {"run", checkpoint.run_digest},
                       {"step", absl::StrCat(checkpoint.step)},
                       {"validated_step", absl::StrCat(checkpoint.validated_step)},
                       {"validations_since_best", absl::StrCat(checkpoint.validations_since_best)}};
  if (checkpoint.losses) metadata.emplace_back("losses", Joined(NumbersOf(*checkpoint.losses)));
  if (checkpoint.validation)
    metadata.emplace_back("validation", Joined(NumbersOf(*checkpoint.validation)));
  return metadata;
}

// Over the tensors and everything that is told about them.
std::string Digest(const Checkpoint& checkpoint) {
  std::string text = WeightsDigest(checkpoint.state);
  for (const auto& [key, value] : MetadataOf(checkpoint))
    absl::StrAppend(&text, "\n", key, "=", value);
  return Sha256Of(text);
}

struct Entry {
  int64_t step = 0;
  fs::path path;
};

// Checkpoints of a folder by their names, the newest first; none without the folder.
absl::StatusOr<std::vector<Entry>> Listed(const std::string& folder) {
  std::vector<Entry> entries;
  std::error_code error;
  fs::directory_iterator at(folder, error);
  if (error == std::errc::no_such_file_or_directory) return entries;
  for (const fs::directory_iterator end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.rfind(kStem, 0) != 0 || at->path().extension() != kSuffix) continue;
    const int64_t step = std::strtoll(name.c_str() + sizeof(kStem) - 1, nullptr, 10);
    entries.push_back({step, at->path()});
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("the checkpoints' folder cannot be read: ", error.message()));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.step > b.step; });
  return entries;
}

// Whether a status of Read tells of the file's content, and not of the machine at this moment.
bool IsDamage(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsDataLoss(status);
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
    if (key == "losses") checkpoint.losses = LossesOf(Split(value, kLosses));
    if (key == "validation") checkpoint.validation = ValidationOf(Split(value, kValidation));
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
  if (absl::Status status = MakeFolders(folder); !status.ok()) return status;
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
  const auto entries = Listed(folder);
  if (!entries.ok()) return absl::OkStatus();  // the next one prunes
  int64_t kept = 0;
  for (const Entry& entry : *entries) {
    std::error_code error;
    if (entry.step > checkpoint.step || ++kept > std::max<int64_t>(1, keep))
      fs::remove(entry.path, error);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Checkpoint>> ReadLastCheckpoint(
    const std::string& folder, const std::string& run_digest,
    const std::function<void(const std::string&)>& warn) {
  const auto entries = Listed(folder);
  if (!entries.ok()) return entries.status();
  for (const Entry& entry : *entries) {
    const std::string name = entry.path.filename().string();
    auto checkpoint = Read(entry.path.string());
    if (!checkpoint.ok() && !IsDamage(checkpoint.status())) {
      return absl::UnavailableError(absl::StrCat(
          "checkpoint ", name, " cannot be read now: ", checkpoint.status().message()));
    }
    if (!checkpoint.ok()) {
      warn(absl::StrCat("checkpoint ", name, " is damaged (", checkpoint.status().message(),
                        ") and is passed over"));
      continue;
    }
    if (checkpoint->run_digest != run_digest) {
      return absl::FailedPreconditionError(
          absl::StrCat("checkpoint ", name,
                       " is of a run with other settings or data (a volume's modality counts as "
                       "well); set them back, or begin a new job for these"));
    }
    return std::optional<Checkpoint>(*std::move(checkpoint));
  }
  if (!entries->empty()) warn("no checkpoint is whole: training begins again at step 0");
  return std::optional<Checkpoint>();
}

int64_t LastCheckpointStep(const std::string& folder) {
  const auto entries = Listed(folder);
  return !entries.ok() || entries->empty() ? 0 : entries->front().step;
}

}  // namespace gvsl
