// What a training run tells of itself.
#ifndef GVSL_MODEL_TRAINING_REPORT_H_
#define GVSL_MODEL_TRAINING_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace gvsl {

// What a loss that the method leaves out is told as: 0.
struct LossValues {
  double total = 0, similarity = 0, smoothness = 0, restoration = 0;
};

struct StartReport {
  int64_t step = 0;
  std::string device;
  std::string checkpoint;  // its file name; empty for a beginning
  int64_t parameter_count = 0;
};

struct StepReport {
  int64_t step = 0;  // counted from 1
  LossValues losses;
  double learning_rate = 0;
  double gradient_norm = 0;
  double steps_per_second = 0;
  double data_wait_share = 0;
  int64_t memory_bytes = 0;  // peak of the process on the host
};

struct ValidationReport {
  int64_t step = 0;
  LossValues losses;
  double ncc_before = 0, ncc_after = 0;
  double folding_percent = 0;
  bool best = false;
};

struct CheckpointReport {
  int64_t step = 0;
  std::string file;  // in checkpoints/
  double seconds = 0;
};

// Central axial slices in [0, 1], except `displacement`, in mm: A, A distorted, B, B aligned, A
// restored, length of the displacement. Those that the method has not are empty.
struct PictureReport {
  int64_t step = 0;
  int64_t rows = 0, columns = 0;
  std::vector<float> a, distorted, b, warped, restored, displacement;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_TRAINING_REPORT_H_
