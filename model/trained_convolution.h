// TrainedConvolution: LibTorch's Conv3d with a faster gradient of its weights on the CPU.
#ifndef GVSL_MODEL_TRAINED_CONVOLUTION_H_
#define GVSL_MODEL_TRAINED_CONVOLUTION_H_

#include <torch/torch.h>

namespace gvsl {

// oneDNN has no kernel of its own for the weights' gradient in 3D on AVX2; it builds the matrix of
// all taps and multiplies it, which for the few channels of the full-resolution layers takes longer
// than all the rest of a step (docs/performance.md). For those layers, in float32 on the CPU, ours
// is used: 3x3x3, zero-padded, channels in times channels out at most 4,096. Everything else is
// Conv3d's.
class TrainedConvolutionImpl : public torch::nn::Conv3dImpl {
 public:
  using torch::nn::Conv3dImpl::Conv3dImpl;
  torch::Tensor forward(const torch::Tensor& x);
};
TORCH_MODULE(TrainedConvolution);

// [out, in, 3, 3, 3] from x [N, in, D, H, W] and the gradient [N, out, D, H, W] of what came of it.
// Sums do not depend on the number of threads.
torch::Tensor WeightGradientOnCpu(const torch::Tensor& x, const torch::Tensor& gradient);

}  // namespace gvsl

#endif  // GVSL_MODEL_TRAINED_CONVOLUTION_H_
