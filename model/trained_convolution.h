// TrainedConvolution: LibTorch's Conv3d on oneDNN's and our own kernels on the CPU.
#ifndef GVSL_MODEL_TRAINED_CONVOLUTION_H_
#define GVSL_MODEL_TRAINED_CONVOLUTION_H_

#include <torch/torch.h>

namespace gvsl {

// For 3x3x3 in float32 on the CPU, where LibTorch's choices cost most of a step
// (docs/performance.md); everything else is Conv3d's.
// - One sample of few channels: LibTorch leaves oneDNN aside for a kernel ten times slower.
// - The weights' gradient: oneDNN has no kernel of its own in 3D on AVX2 and multiplies the matrix
//   of all taps; for channels in times channels out up to 4,096, ours is used.
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
