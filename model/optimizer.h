// Adam: the optimiser of pre-training, with gradient clipping and a moving average of the weights.
#ifndef GVSL_MODEL_OPTIMIZER_H_
#define GVSL_MODEL_OPTIMIZER_H_

#include <ATen/ATen.h>

#include <vector>

#include "absl/status/status.h"
#include "model/state.h"
#include "model/training_options.h"

namespace gvsl {

// Adam (Kingma and Ba 2015; betas 0.9 and 0.999, epsilon 1e-8) or AdamW (Loshchilov and Hutter
// 2019), as PyTorch computes them. All its state is in State(), so a run can be stopped and go on
// exactly.
class Adam {
 public:
  // The parameters, which it changes in place. Their gradients may be undefined (an ablation): such
  // parameters stay as they are.
  Adam(StateDict parameters, const OptimizationOptions& options);

  // One step with the parameters' gradients, and of the moving average. `rate` is the learning
  // rate.
  void Step(double rate);
  int64_t steps() const { return steps_; }

  // What is validated and served: the moving average where there is one, else the parameters.
  const StateDict& served() const { return average_.empty() ? parameters_ : average_; }

  // Parameters, moments and average under the names `weights.`, `mean.`, `square.` and `average.`;
  // shared, not copied.
  StateDict State() const;
  // INVALID_ARGUMENT if the names or shapes are others.
  absl::Status Load(const StateDict& state, int64_t steps);

 private:
  const OptimizationOptions options_;
  StateDict parameters_, means_, squares_, average_;
  int64_t steps_ = 0;
};

// Scales the gradients down to a norm of `limit` where they are above it (0: never). Returns the
// norm before; not finite if any gradient is not.
double ClipGradients(const StateDict& parameters, double limit);

}  // namespace gvsl

#endif  // GVSL_MODEL_OPTIMIZER_H_
