#include "model/trained_layers.h"

#include <ATen/Parallel.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "model/cpu_kernels.h"
#include "model/winograd.h"

namespace gvsl {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kShortestRow = 16;
constexpr int64_t kShares = 16;  // of the slices, whatever the number of threads

// Computed here, by other kernels than LibTorch would choose: 3x3x3 in float32 on the CPU.
bool OnCpuHere(const Tensor& x, const Tensor& weight) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && weight.size(2) == 3 &&
         at::globalContext().userEnabledMkldnn() && at::hasMKLDNN();
}

// By Winograd's transforms, which take a third of the products of the direct sum; of fewer channels
// most of a block would be padding.
bool OnWinograd(const Tensor& weight) {
  return weight.size(0) >= kChannelBlock && weight.size(1) >= kChannelBlock;
}

bool OwnWeightGradient(const Tensor& x) { return x.size(4) >= kShortestRow; }

// `bias` may be undefined: none.
Tensor OneDnnConvolution(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return at::mkldnn_convolution(x, weight, bias, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, /*groups=*/1);
}

Tensor Convolved(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return OnWinograd(weight) ? WinogradConvolution(x, weight, bias)
                            : OneDnnConvolution(x, weight, bias);
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
    return Convolved(x, weight, bias);
  }

  static tensor_list backward(AutogradContext* context, tensor_list upstream) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], gradient = upstream[0].contiguous();
    Tensor of_x, of_weight, of_bias;
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "the gradients of this convolution have none of their own");
    if (OnWinograd(weight)) {
      std::tie(of_x, of_weight) =
          WinogradGradients(gradient, x, weight, context->needs_input_grad(0));
      return {of_x, of_weight, gradient.sum({0, 2, 3, 4})};
    }
    if (context->needs_input_grad(0)) {
      // The same convolution with the taps turned round; LibTorch would not take oneDNN for one
      // sample.
      of_x = x.size(0) == 1
                 ? OneDnnConvolution(gradient, weight.flip({2, 3, 4}).transpose(0, 1).contiguous(),
                                     Tensor())
                 : std::get<0>(Gradients(gradient, x, weight, {true, false, false}));
    }
    if (OwnWeightGradient(x)) {
      of_weight = WeightGradientOnCpu(x, gradient);
      of_bias = gradient.sum({0, 2, 3, 4});
    } else {
      std::tie(std::ignore, of_weight, of_bias) =
          Gradients(gradient, x, weight, {false, true, true});
    }
    return {of_x, of_weight, of_bias};
  }
};

class ExactConvolutionFunction : public torch::autograd::Function<ExactConvolutionFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const Tensor& bias) {
    context->save_for_backward({x, weight});
    return at::conv3d(x.to(at::kFloat), weight, bias, /*stride=*/1, /*padding=*/1);
  }

  static tensor_list backward(AutogradContext* context, tensor_list upstream) {
    const auto saved = context->get_saved_variables();
    const Tensor& x = saved[0];
    const auto type = x.scalar_type();
    const auto gradients =
        Gradients(upstream[0].to(type).contiguous(), x, saved[1].to(type), {true, true, false});
    return {std::get<0>(gradients), std::get<1>(gradients).to(at::kFloat),
            upstream[0].sum({0, 2, 3, 4})};
  }
};

// Mean and inverse deviation of the last axis of x [N, groups, values], float32 or wider.
std::pair<Tensor, Tensor> Moments(const Tensor& x, double epsilon) {
  if (x.scalar_type() != at::kBFloat16 && x.scalar_type() != at::kHalf) {
    const auto [variance, mean] = at::var_mean(x, at::IntArrayRef{2}, /*unbiased=*/false);
    return {mean, (variance + epsilon).rsqrt()};
  }
  // var_mean gives them in half precision; sums are had in float32.
  const Tensor mean = x.mean(at::IntArrayRef{2}, /*keepdim=*/false, at::kFloat);
  const Tensor norm =
      at::linalg_vector_norm(x, 2, at::IntArrayRef{2}, /*keepdim=*/false, at::kFloat);
  const Tensor square = norm.square() / static_cast<double>(x.size(2));
  return {mean, ((square - mean.square()).clamp_min(0) + epsilon).rsqrt()};
}

class GroupNormFunction : public torch::autograd::Function<GroupNormFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x_in, const Tensor& weight,
                        const Tensor& bias, int64_t groups, double epsilon) {
    const Tensor x = x_in.contiguous();
    const int64_t samples = x.size(0), channels = x.size(1);
    const auto [mean, inverse] = Moments(x.view({samples, groups, -1}), epsilon);
    const auto of_channels = [&](const Tensor& of_groups) {
      return of_groups.unsqueeze(2)
          .expand({samples, groups, channels / groups})
          .reshape({samples, channels});
    };
    const Tensor scale = of_channels(inverse) * weight;
    const Tensor shift = bias - of_channels(mean) * scale;
    const auto spread = [&](const Tensor& of_maps) {
      return of_maps.to(x.scalar_type()).view({samples, channels, 1, 1, 1});
    };
    context->save_for_backward({x, mean.to(x.scalar_type()), inverse.to(x.scalar_type()), weight});
    context->saved_data["groups"] = groups;
    return at::addcmul(spread(shift), x, spread(scale));
  }

  static tensor_list backward(AutogradContext* context, tensor_list upstream) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[3];
    const int64_t voxels = x.size(2) * x.size(3) * x.size(4);
    const auto [of_x, of_weight, of_bias] = at::native_group_norm_backward(
        upstream[0].contiguous(), x, saved[1], saved[2], weight.to(x.scalar_type()), x.size(0),
        x.size(1), voxels, context->saved_data["groups"].toInt(), {true, true, true});
    return {of_x, of_weight.to(weight.scalar_type()), of_bias.to(weight.scalar_type()), {}, {}};
  }
};

// [2 n, n]: what an axis of n values becomes at twice as many.
Tensor DoublingMatrix(int64_t n, const at::TensorOptions& options) {
  const Tensor unit = at::eye(n, options.dtype(at::kFloat)).view({1, n, n});
  return at::upsample_linear1d(unit, at::IntArrayRef{2 * n}, /*align_corners=*/true)[0].t().to(
      options.dtype());
}

class DoublingFunction : public torch::autograd::Function<DoublingFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x) {
    context->saved_data["size"] = x.sizes().vec();
    return at::upsample_trilinear3d(x, at::IntArrayRef{2 * x.size(2), 2 * x.size(3), 2 * x.size(4)},
                                    /*align_corners=*/true);
  }

  static tensor_list backward(AutogradContext* context, tensor_list upstream) {
    const std::vector<int64_t> size = context->saved_data["size"].toIntVector();
    Tensor gradient = upstream[0].contiguous();
    const auto matrix = [&](int64_t n) { return DoublingMatrix(n, gradient.options()); };
    // Along D, over planes; then H; then W, each time fewer values.
    gradient = matrix(size[2]).t().matmul(gradient.flatten(3));
    gradient = gradient.view({size[0], size[1], size[2], 2 * size[3], 2 * size[4]});
    gradient = matrix(size[3]).t().matmul(gradient);
    return {gradient.matmul(matrix(size[4]))};
  }
};

}  // namespace

Tensor ConvolutionInParts(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t part) {
  Tensor sum;
  for (int64_t at = 0; at < weight.size(1); at += part) {
    const Tensor one =
        at::conv3d(x.narrow(1, at, part), weight.narrow(1, at, part), at == 0 ? bias : Tensor(),
                   /*stride=*/1, /*padding=*/weight.size(2) / 2);
    sum = sum.defined() ? sum + one : one;
  }
  return sum;
}

Tensor GroupNormByReductions(const Tensor& x, int64_t groups, const Tensor& weight,
                             const Tensor& bias, double epsilon) {
  return GroupNormFunction::apply(x, weight, bias, groups, epsilon);
}

Tensor DoubledByMatrices(const Tensor& x) { return DoublingFunction::apply(x); }

Tensor TrainedConvolutionImpl::forward(const Tensor& x) {
  constexpr int64_t kFew = 16, kPart = 32;
  const int64_t in = weight.size(1);
  if (x.is_cuda() && weight.size(0) <= kFew && in > kPart && in % kPart == 0) {
    return ConvolutionInParts(x, weight, bias, kPart);
  }
  if (!OnCpuHere(x, weight)) return Conv3dImpl::forward(x);
  if (!at::GradMode::is_enabled()) return Convolved(x, weight, bias);
  return ConvolutionFunction::apply(x, weight, bias);
}

Tensor ExactConvolutionImpl::forward(const Tensor& x) {
  if (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble) {
    return TrainedConvolutionImpl::forward(x);
  }
  const c10::impl::ExcludeDispatchKeyGuard exact(c10::DispatchKey::AutocastCUDA);
  return ExactConvolutionFunction::apply(x, weight, bias);
}

Tensor TrainedGroupNormImpl::forward(const Tensor& x) {
  if (!x.is_cuda()) return GroupNormImpl::forward(x);
  const c10::impl::ExcludeDispatchKeyGuard as_it_is(c10::DispatchKey::AutocastCUDA);
  return GroupNormByReductions(x, options.num_groups(), weight, bias, options.eps());
}

Tensor Doubled(const Tensor& x) {
  if (x.is_cuda()) {
    // Autocast would widen it, and all that is joined to it, for a convolution that narrows it
    // again.
    const c10::impl::ExcludeDispatchKeyGuard as_it_is(c10::DispatchKey::AutocastCUDA);
    return DoubledByMatrices(x);
  }
  return at::upsample_trilinear3d(x, at::IntArrayRef{2 * x.size(2), 2 * x.size(3), 2 * x.size(4)},
                                  /*align_corners=*/true);
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
