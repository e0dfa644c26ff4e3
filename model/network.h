// The GVSL network: 3D U-Net and the Z-matching heads (He et al., CVPR 2023), as LibTorch modules
// whose parameter names are the official ones. For training and parity; serving uses
// model/unet_engine.h.
#ifndef GVSL_MODEL_NETWORK_H_
#define GVSL_MODEL_NETWORK_H_

#include <torch/torch.h>

#include "absl/status/status.h"
#include "model/card.h"
#include "model/state.h"

namespace gvsl {

struct UNetFeatures {
  torch::Tensor dense;   // [N, widths[0], D, H, W]
  torch::Tensor global;  // [N, widths[4], D'/16, H'/16, W'/16] of the padded input
};

// 3D U-Net. Input [N, 1, D, H, W] float in [0, 1], any size: zero-padded to multiples of 16 (floor
// before, ceil after), the dense output cropped back.
class UNetImpl : public torch::nn::Module {
 public:
  explicit UNetImpl(const std::array<int64_t, 5>& widths);
  UNetFeatures forward(const torch::Tensor& image);

  // The bottleneck and what each step of the decoder makes of it, coarsest first: level k is [N,
  // widths[4 - k], D / 2^(4 - k), ...]; the last are the dense features. Sides are multiples of 16.
  std::array<torch::Tensor, 5> Levels(const torch::Tensor& image);

 private:
  struct Blocks;
  std::shared_ptr<Blocks> blocks_;
};
TORCH_MODULE(UNet);

struct GvslOutput {
  UNetFeatures fixed;       // features of A
  UNetFeatures moving;      // features of B
  torch::Tensor embedding;  // [N, C] of the affine head; corrected: B to A less A to B
  torch::Tensor rotation, scale, translation,
      shear;                    // raw head outputs, [N, 3], [N, 3], [N, 3], [N, 6]
  torch::Tensor affine;         // [N, 3, 4]
  torch::Tensor moving_affine;  // B after the affine sampler, [N, 1, D, H, W]
  torch::Tensor moving_dense_affine;
  torch::Tensor flow;             // [N, 3, D, H, W], (D, H, W) displacements in voxels
  torch::Tensor fixed_to_moving;  // [N, 3, D, H, W]: where each voxel of A lies in B, (D, H, W) in
                                  // voxels; corrected geometry alone
  torch::Tensor warped;           // [N, 1, D, H, W]
  torch::Tensor restored;         // [N, 1, D, H, W]
};

// U-Net and heads; forward(A, B) aligns B (moving) to A (fixed).
class GvslNetworkImpl : public torch::nn::Module {
 public:
  explicit GvslNetworkImpl(const ModelCard& card);
  GvslOutput forward(const torch::Tensor& a, const torch::Tensor& b);
  // The U-Net and the restoration head on A alone: `fixed` and `restored`, nothing else.
  GvslOutput Restore(const torch::Tensor& a);
  // Copies a whole StateLayout into the parameters. INVALID_ARGUMENT if it does not fit.
  absl::Status LoadState(const StateDict& state);
  // The parameters in StateLayout's order (shared, not copied).
  StateDict State() const;

  // The released code builds the affine matrix from Python floats, so its affine head and f_conv
  // get no gradient. True repeats that, for parity with its training; false (the default) lets the
  // gradient through.
  void set_detach_affine(bool detach) { detach_affine_ = detach; }
  // False: the affine map is the identity and its head is not run (an ablation of the paper).
  void set_affine_head(bool run) { affine_head_ = run; }

  UNet unet{nullptr};

 private:
  void PredictAffine(GvslOutput& output);
  void ForwardOfficial(const torch::Tensor& moving, GvslOutput& output);
  void ForwardCorrected(const torch::Tensor& moving, GvslOutput& output);
  torch::Tensor PredictFlow(const GvslOutput& output);

  struct Heads;
  std::shared_ptr<Heads> heads_;
  Geometry geometry_;
  std::array<double, 3> spacing_mm_;  // along D, H, W
  bool detach_affine_ = false;
  bool affine_head_ = true;
};
TORCH_MODULE(GvslNetwork);

}  // namespace gvsl

#endif  // GVSL_MODEL_NETWORK_H_
