// What a pre-training run is told. No LibTorch type appears here. Defaults are those of
// proto/gvsl/v1/jobs.proto, which explains each field.
#ifndef GVSL_MODEL_TRAINING_OPTIONS_H_
#define GVSL_MODEL_TRAINING_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace gvsl {

struct AugmentationOptions {
  double rotation_deg = 20;
  double scale = 0.25;
  double translation = 0.05;  // of the crop's side
  double shear_deg = 5;
  double elastic_voxels = 2;  // root mean square
  double spatial_probability = 1;
  bool same_for_both = false;
  double inpainting_probability = 0.9;
  double shuffling_probability = 0.5;
  double intensity_probability = 0.9;
  double inversion_probability = 0.5;
};

struct MethodOptions {
  double similarity_weight = 1;
  double smoothness_weight = 1;
  double restoration_weight = 1;
  int64_t ncc_window = 9;
  bool signed_correlation = false;
  bool z_matching = true;
  bool fundament = true;
  bool affine_head = true;
};

enum class Schedule { kConstant, kCosine, kPolynomial };

struct OptimizationOptions {
  int64_t steps = 200000;
  int64_t batch_size = 2;  // over all ranks and accumulated passes
  int64_t accumulation = 1;
  double learning_rate = 1e-4;
  bool decoupled_decay = false;  // AdamW
  double weight_decay = 0;
  int64_t warmup_steps = 0;
  Schedule schedule = Schedule::kConstant;
  bool rate_by_fan_in = false;  // a convolution's steps over its inputs / 216, where it has more
  double clip_norm = 0;         // 0: not at all
  double ema_decay = 0;         // 0: none
  bool half_precision = false;  // bf16 in the network; CUDA alone
  uint64_t seed = 0;
};

struct UpkeepOptions {
  int64_t report_every = 10;
  int64_t validate_every = 1000;
  int64_t validation_pairs = 8;
  int64_t checkpoint_every = 1000;
  int64_t keep_checkpoints = 3;
  int64_t picture_every = 1000;
  int64_t early_stopping = 0;  // validations without a better one; 0: never
};

struct TrainingOptions {
  int64_t crop = 128;
  MethodOptions method;
  AugmentationOptions augmentation;
  OptimizationOptions optimization;
  UpkeepOptions upkeep;
};

// The learning rate of the step that follows `done` finished ones.
double LearningRate(const OptimizationOptions& options, int64_t done);

}  // namespace gvsl

#endif  // GVSL_MODEL_TRAINING_OPTIONS_H_
