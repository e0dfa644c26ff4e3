// The network's layers as training computes them: LibTorch's modules, where its own choices cost
// most of a step replaced by others of the same values (docs/performance.md).
#ifndef GVSL_MODEL_TRAINED_LAYERS_H_
#define GVSL_MODEL_TRAINED_LAYERS_H_

#include <torch/torch.h>

namespace gvsl {

// On the CPU, for 3x3x3 in float32:
// - From 16 channels to 16 or more, Winograd's transforms (model/winograd.h).
// - Fewer, by oneDNN, even for one sample, where LibTorch takes a kernel ten times slower; but the
//   weights' gradient, for which oneDNN has no kernel of its own in 3D on AVX2, by ours for rows of
//   16 voxels or more.
// On CUDA: a convolution of many channels to few is a sum over parts of them. For the gradients of
// 64 to 16 at 128^3 in bf16 cuDNN takes 426 ms, for those of 32 to 16 3.6 ms (H100, cuDNN 9.19).
class TrainedConvolutionImpl : public torch::nn::Conv3dImpl {
 public:
  using torch::nn::Conv3dImpl::Conv3dImpl;
  torch::Tensor forward(const torch::Tensor& x);
};
TORCH_MODULE(TrainedConvolution);

// Computes in float32 what half precision gave it, and the gradients in half precision: on CUDA
// those of float32 take 113 ms where bf16 takes 3 ms (16 to 3 channels at 128^3, H100).
class ExactConvolutionImpl : public TrainedConvolutionImpl {
 public:
  using TrainedConvolutionImpl::TrainedConvolutionImpl;
  torch::Tensor forward(const torch::Tensor& x);
};
TORCH_MODULE(ExactConvolution);

// On CUDA, LibTorch's group norm sums each group of a sample with one block of threads: 60 of 193
// ms of the base U-Net's step at 128^3, batch 4, on an H100 that has room for hundreds. Everything
// else is GroupNorm's.
class TrainedGroupNormImpl : public torch::nn::GroupNormImpl {
 public:
  using torch::nn::GroupNormImpl::GroupNormImpl;
  torch::Tensor forward(const torch::Tensor& x);
};
TORCH_MODULE(TrainedGroupNorm);

// Trilinear, corners on corners, to twice the size. On CUDA its gradient is three products with
// matrices, one an axis: LibTorch's adds up with atomics, 16 ms instead of 1.3 (64 channels, 64^3
// to 128^3, batch 4, H100).
torch::Tensor Doubled(const torch::Tensor& x);

// What the modules compute on CUDA, on any device and in any precision.
//
// Conv3d with padding of half the side, as the sum over parts of `part` input channels.
torch::Tensor ConvolutionInParts(const torch::Tensor& x, const torch::Tensor& weight,
                                 const torch::Tensor& bias, int64_t part);
torch::Tensor GroupNormByReductions(const torch::Tensor& x, int64_t groups,
                                    const torch::Tensor& weight, const torch::Tensor& bias,
                                    double epsilon);
torch::Tensor DoubledByMatrices(const torch::Tensor& x);

// [out, in, 3, 3, 3] from x [N, in, D, H, W] and the gradient [N, out, D, H, W] of what came of it.
// Sums do not depend on the number of threads.
torch::Tensor WeightGradientOnCpu(const torch::Tensor& x, const torch::Tensor& gradient);

}  // namespace gvsl

#endif  // GVSL_MODEL_TRAINED_LAYERS_H_
