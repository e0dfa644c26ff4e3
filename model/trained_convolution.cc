#include "model/trained_convolution.h"

#include <ATen/Parallel.h>

#include "model/cpu_kernels.h"

namespace gvsl {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kMostChannelPairs = 4096;  // above, the matrix product has work enough
constexpr int64_t kShortestRow = 16;
constexpr int64_t kShares = 16;  // of the slices, whatever the number of threads

// oneDNN's kernels, in float32 on the CPU.
bool OnOneDnn(const Tensor& x, const Tensor& weight) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && weight.size(2) == 3 &&
         at::globalContext().userEnabledMkldnn() && at::hasMKLDNN();
}

bool OwnWeightGradient(const Tensor& x, const Tensor& weight) {
  return x.size(4) >= kShortestRow && weight.size(0) * weight.size(1) <= kMostChannelPairs;
}

Tensor OneDnnConvolution(const Tensor& x, const Tensor& weight, const c10::optional<Tensor>& bias) {
  return at::mkldnn_convolution(x, weight, bias, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, /*groups=*/1);
}

// LibTorch's own gradients of x, the weights and the bias, those that are wanted.
std::tuple<Tensor, Tensor, Tensor> Gradients(const Tensor& gradient, const Tensor& x,
                                             const Tensor& weight, std::array<bool, 3> wanted) {
  return at::convolution_backward(gradient, x, weight, at::IntArrayRef{weight.size(0)}, {1, 1, 1},
                                  {1, 1, 1}, {1, 1, 1}, /*transposed=*/false, {0, 0, 0},
                                  /*groups=*/1, wanted);
}

class ConvolutionFunction : public torch::autograd::Function<ConvolutionFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const Tensor& bias) {
    context->save_for_backward({x, weight});
    return OneDnnConvolution(x, weight, bias);
  }

  static tensor_list backward(AutogradContext* context, tensor_list upstream) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], gradient = upstream[0].contiguous();
    Tensor of_x, of_weight, of_bias;
    if (context->needs_input_grad(0)) {
      // The same convolution with the taps turned round; LibTorch would not take oneDNN for one
      // sample.
      of_x = x.size(0) == 1
                 ? OneDnnConvolution(gradient, weight.flip({2, 3, 4}).transpose(0, 1).contiguous(),
                                     c10::nullopt)
                 : std::get<0>(Gradients(gradient, x, weight, {true, false, false}));
    }
    if (OwnWeightGradient(x, weight)) {
      of_weight = WeightGradientOnCpu(x, gradient);
      of_bias = gradient.sum({0, 2, 3, 4});
    } else {
      std::tie(std::ignore, of_weight, of_bias) =
          Gradients(gradient, x, weight, {false, true, true});
    }
    return {of_x, of_weight, of_bias};
  }
};

}  // namespace

Tensor TrainedConvolutionImpl::forward(const Tensor& x) {
  if (!OnOneDnn(x, weight)) return Conv3dImpl::forward(x);
  if (!at::GradMode::is_enabled()) return OneDnnConvolution(x, weight, bias);
  return ConvolutionFunction::apply(x, weight, bias);
}

Tensor WeightGradientOnCpu(const Tensor& x, const Tensor& gradient) {
  const CpuKernels& kernels = BestCpuKernels();
  WeightGradient task;
  task.extent = {x.size(2), x.size(3), x.size(4)};
  task.in_channels = x.size(1);
  task.out_channels = gradient.size(1);
  task.stride = (task.extent.width + kGradientRow - 1) / kGradientRow * kGradientRow;
  const int64_t beyond = task.stride - task.extent.width;
  // Zeros around, so that the kernel has no edges to mind.
  const Tensor input = at::constant_pad_nd(x, {1, 1 + beyond, 1, 1, 1, 1}).contiguous();
  const Tensor rows =
      beyond == 0 ? gradient.contiguous() : at::constant_pad_nd(gradient, {0, beyond}).contiguous();
  const Tensor sums =
      at::zeros({kShares, task.out_channels, task.in_channels, 3, 3, 3}, x.options());
  const int64_t slices = x.size(0) * task.extent.depth;
  at::parallel_for(0, kShares, 1, [&](int64_t begin, int64_t end) {
    const int64_t needed = WeightGradientScratch(task.in_channels, task.out_channels);
    std::vector<float> scratch(static_cast<size_t>(needed));
    for (int64_t share = begin; share < end; ++share) {
      const int64_t last = slices * (share + 1) / kShares;
      for (int64_t at = slices * share / kShares; at < last;) {
        const int64_t sample = at / task.extent.depth, z = at % task.extent.depth;
        const int64_t stop = std::min(task.extent.depth, z + last - at);
        WeightGradient part = task;
        part.input = input.data_ptr<float>() + sample * input.stride(0);
        part.gradient = rows.data_ptr<float>() + sample * rows.stride(0);
        kernels.weight_gradient(part, z, stop, scratch.data(),
                                sums.data_ptr<float>() + share * sums.stride(0));
        at += stop - z;
      }
    }
  });
  return sums.sum(0);
}

}  // namespace gvsl
