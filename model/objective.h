// The GVSL objective: from two crops to the three losses (He et al., CVPR 2023, Section 3).
#ifndef GVSL_MODEL_OBJECTIVE_H_
#define GVSL_MODEL_OBJECTIVE_H_

#include <ATen/ATen.h>

#include <array>

#include "model/network.h"
#include "model/pair_loader.h"
#include "model/training_options.h"
#include "model/training_report.h"

namespace gvsl {

// What the network sees of a batch: [N, 1, crop, crop, crop] float32 in [0, 1] on the device.
struct TrainingImages {
  at::Tensor a;          // what has to be restored, and what B is aligned to
  at::Tensor distorted;  // A as the network is shown it; `a` itself without the fundament
  at::Tensor b;
  // Of the same size: 1 where a volume is shown, 0 in the padding around it.
  at::Tensor a_inside, b_inside;
};

// Voxels that are read around a crop, so that a rotated crop has content in its corners.
int64_t CropMargin(const TrainingOptions& options);

// A batch as it was read, on the device.
TrainingImages Unchanged(const PairBatch& batch, at::Device device);

// Brings a batch to the device and changes it at random, each sample by its own key (seed, step,
// place in the batch). `spacing_mm` along D, H, W.
TrainingImages Augment(const PairBatch& batch, const TrainingOptions& options,
                       const std::array<double, 3>& spacing_mm, at::Device device);

// 1 where A and the aligned B both show their volumes; no gradient. `fixed_to_moving` [N, 3, D, H,
// W], undefined: B as it is.
at::Tensor CommonInside(const TrainingImages& images, const at::Tensor& fixed_to_moving);

// Scalars; undefined where the method leaves a loss out.
struct LossTensors {
  at::Tensor total, similarity, smoothness, restoration;
};

// total, similarity, smoothness, restoration as one float32 tensor [4], detached, so that they
// cross from the device once; 0 for one that is left out. LossValuesOf waits for it.
at::Tensor StackedLosses(const LossTensors& losses);
LossValues LossValuesOf(const at::Tensor& stacked);

// Runs the network and computes the losses. `spacing_mm` along D, H, W.
struct ObjectiveResult {
  LossTensors losses;
  GvslOutput output;
};
ObjectiveResult ComputeObjective(GvslNetwork& network, const TrainingImages& images,
                                 const TrainingOptions& options,
                                 const std::array<double, 3>& spacing_mm);

// bf16 in the network while it lives, where wanted and the device is CUDA.
class HalfPrecisionScope {
 public:
  HalfPrecisionScope(bool wanted, at::Device device);
  ~HalfPrecisionScope();
  HalfPrecisionScope(const HalfPrecisionScope&) = delete;
  HalfPrecisionScope& operator=(const HalfPrecisionScope&) = delete;

 private:
  const bool on_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_OBJECTIVE_H_
