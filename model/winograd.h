// 3x3x3 convolutions of stride 1 with zeros around, in float32 on the CPU, and their gradients, on
// the Winograd kernels of model/cpu_kernels.h: for training, whose tensors are planar. Values as
// LibTorch's, to rounding; they do not depend on the number of threads.
#ifndef GVSL_MODEL_WINOGRAD_H_
#define GVSL_MODEL_WINOGRAD_H_

#include <ATen/ATen.h>

#include <utility>

#include "model/cpu_kernels.h"

namespace gvsl {

// A value a channel, with zeros behind them up to PaddedChannels.
at::Tensor PaddedVector(const at::Tensor& vector);

// Weights [out, in, 3, 3, 3] as a Convolution wants them, [point][out block][in][16], both channel
// counts padded. `turned`: those of the gradient of its input, the same convolution with the taps
// turned round and in and out exchanged.
at::Tensor WinogradWeights(const at::Tensor& weight, bool turned);

// [N, out, D, H, W] from x [N, in, D, H, W]. `bias` [out].
at::Tensor WinogradConvolution(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias,
                               const CpuKernels& kernels = BestCpuKernels());

// Of x, undefined unless `wants_x`, and of the weights, given the gradient of what came of them.
std::pair<at::Tensor, at::Tensor> WinogradGradients(const at::Tensor& gradient, const at::Tensor& x,
                                                    const at::Tensor& weight, bool wants_x,
                                                    const CpuKernels& kernels = BestCpuKernels());

}  // namespace gvsl

#endif  // GVSL_MODEL_WINOGRAD_H_
