// Trainer: GVSL pre-training, from stored volumes to a model file.
//
//   auto trainer = Trainer::Make(setup, observer, nullptr);
//   auto result = (*trainer)->Run();
//
// In the run's folder it keeps `checkpoints/`, `last.safetensors` and, with validation,
// `best.safetensors`. A run that was ended at any moment goes on from its last checkpoint, and on
// the CPU with the same losses, bit for bit, as if it had never been ended.
#ifndef GVSL_MODEL_TRAINER_H_
#define GVSL_MODEL_TRAINER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/card.h"
#include "model/training_options.h"
#include "model/training_report.h"
#include "model/volume_cache.h"

namespace at {
class Tensor;
}

namespace gvsl {

// Hears of a run: on the thread of Make and Run, and of Stop, which may call while Run does. A
// status that is not OK ends the run.
class TrainingObserver {
 public:
  virtual ~TrainingObserver() = default;
  virtual absl::Status Started(const StartReport& report) = 0;
  virtual absl::Status Step(const StepReport& report) = 0;
  virtual absl::Status Validation(const ValidationReport& report) = 0;
  virtual absl::Status Checkpoint(const CheckpointReport& report) = 0;
  virtual absl::Status Picture(const PictureReport& report) = 0;
  virtual absl::Status Warning(const std::string& message) = 0;
};

// The processes that share a batch. Methods are called by all of them, in the same order.
class RankGroup {
 public:
  virtual ~RankGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Adds a float32 tensor up over all ranks, in place.
  virtual absl::Status Sum(at::Tensor& tensor) = 0;
};

struct TrainingSetup {
  TrainingOptions options;
  ModelCard card;                  // geometry corrected; crop is the options'
  std::string initial_model_path;  // safetensors; empty: random weights by the seed
  std::vector<SourceVolume> training, validation;
  std::string cache_folder;
  int64_t cache_bytes = 0;  // 0: no limit
  std::string folder;
  std::string device = "cpu";  // as InitializeLibTorch returned it
  int loader_threads = 2;
  std::string run_digest;  // of settings and data: a checkpoint of another is refused
  // Text for the card of a model written after `step` with these results, where they are known.
  std::function<std::string(int64_t step, const std::optional<LossValues>& losses,
                            const std::optional<ValidationReport>& validation)>
      provenance;
};

struct TrainingResult {
  int64_t step = 0;
  bool stopped_early = false;
  std::string model;  // file in the folder: best.safetensors or last.safetensors
};

class Trainer {
 public:
  // Caches the volumes, builds the network and restores the last checkpoint. `group` may be null:
  // one process. Both must outlive the trainer. INVALID_ARGUMENT, FAILED_PRECONDITION,
  // RESOURCE_EXHAUSTED say what a person must change.
  static absl::StatusOr<std::unique_ptr<Trainer>> Make(const TrainingSetup& setup,
                                                       TrainingObserver& observer,
                                                       RankGroup* group);
  ~Trainer();

  // Trains to the end. RESOURCE_EXHAUSTED (DISK_FULL) where a checkpoint or a model could not be
  // written; DATA_LOSS (DIVERGED) where a loss is no longer finite; CANCELLED after Stop.
  absl::StatusOr<TrainingResult> Run();

  // From any thread, while Run runs or not: keeps the last finished step in a checkpoint unless it
  // is, and lets no further step finish. Takes as long as writing it, not as long as a step.
  // Returns the step.
  absl::StatusOr<int64_t> Stop();

  // Steps finished, those before a checkpoint counted. From any thread.
  int64_t step() const;

 private:
  struct Impl;
  explicit Trainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_TRAINER_H_
