// Checkpoints: all that a training run needs to go on exactly, in a folder of numbered files.
#ifndef GVSL_MODEL_CHECKPOINT_H_
#define GVSL_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/state.h"
#include "model/training_report.h"

namespace gvsl {

// Random numbers, the samples' order and the schedule are functions of the step and the seed
// (model/random_stream.h), so the step stands for them.
struct Checkpoint {
  int64_t step = 0;
  double best_score = std::numeric_limits<double>::infinity();
  int64_t validations_since_best = 0;
  int64_t validated_step = 0;  // the last one
  std::string run_digest;      // of the settings and data that the run was given
  // What the model's card tells; unknown in the files of older programs.
  std::optional<LossValues> losses;            // of the last step
  std::optional<ValidationReport> validation;  // the last one
  StateDict state;                             // of the optimiser: weights, moments, average
};

// `step-000000120.safetensors`.
std::string CheckpointName(int64_t step);

// Writes the checkpoint aside, synced and renamed, with a SHA-256 over all of it; then deletes all
// but the last `keep` up to it, and those of later steps, which were damaged or this run would have
// gone on from them. RESOURCE_EXHAUSTED (DISK_FULL): the older ones are as they were.
absl::Status WriteCheckpoint(const std::string& folder, const Checkpoint& checkpoint, int64_t keep);

// The last checkpoint that is whole, or nothing. Damaged ones are passed over and told to `warn`.
// FAILED_PRECONDITION if it belongs to a run with other settings or data; UNAVAILABLE where one
// cannot be read for another reason than damage: none is passed over for that.
absl::StatusOr<std::optional<Checkpoint>> ReadLastCheckpoint(
    const std::string& folder, const std::string& run_digest,
    const std::function<void(const std::string&)>& warn);

// The step of the folder's last checkpoint by its name, whole or not; 0 without any.
int64_t LastCheckpointStep(const std::string& folder);

}  // namespace gvsl

#endif  // GVSL_MODEL_CHECKPOINT_H_
