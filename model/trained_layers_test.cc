// What the layers compute on CUDA, checked on the CPU against LibTorch's operators.
#include "model/trained_layers.h"

#include <gtest/gtest.h>

namespace gvsl {
namespace {

using torch::Tensor;

const auto kDouble = torch::TensorOptions(torch::kDouble);

// Both give the same values, and the same gradients of a weighted sum of them.
void ExpectSame(const std::function<Tensor(const std::vector<Tensor>&)>& ours,
                const std::function<Tensor(const std::vector<Tensor>&)>& theirs,
                std::vector<Tensor> inputs, double tolerance) {
  for (Tensor& input : inputs) input.requires_grad_();
  const Tensor a = ours(inputs), b = theirs(inputs);
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance);
  const Tensor weights = torch::rand_like(b);
  const auto gradients = [&](const Tensor& out) {
    return torch::autograd::grad({(out * weights).sum()}, inputs);
  };
  const auto of_a = gradients(a), of_b = gradients(b);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LT((of_a[i] - of_b[i]).abs().max().item<double>(),
              tolerance * (1 + of_b[i].abs().max().item<double>()))
        << "input " << i;
  }
}

TEST(TrainedLayers, AConvolutionInPartsIsTheConvolution) {
  for (int64_t side : {1, 3}) {
    ExpectSame([](const auto& in) { return ConvolutionInParts(in[0], in[1], in[2], 4); },
               [&](const auto& in) { return at::conv3d(in[0], in[1], in[2], 1, side / 2); },
               {torch::rand({2, 12, 4, 5, 6}, kDouble),
                torch::rand({3, 12, side, side, side}, kDouble), torch::rand({3}, kDouble)},
               1e-12);
  }
}

TEST(TrainedLayers, GroupNormByReductionsIsGroupNorm) {
  ExpectSame([](const auto& in) { return GroupNormByReductions(in[0], 2, in[1], in[2], 1e-5); },
             [](const auto& in) { return at::group_norm(in[0], 2, in[1], in[2], 1e-5); },
             {torch::rand({3, 8, 4, 5, 6}, kDouble) * 3 + 5, torch::rand({8}, kDouble),
              torch::rand({8}, kDouble)},
             1e-10);
}

TEST(TrainedLayers, GroupNormOfAConstantIsItsBias) {
  const Tensor x = torch::full({1, 8, 4, 4, 4}, 7.0, kDouble), bias = torch::rand({8}, kDouble);
  const Tensor y = GroupNormByReductions(x, 1, torch::ones({8}, kDouble), bias, 1e-5);
  EXPECT_LT((y - bias.view({1, 8, 1, 1, 1})).abs().max().item<double>(), 1e-9);
}

TEST(TrainedLayers, GroupNormInHalfPrecisionIsFloat32sToTheRounding) {
  const Tensor x = (torch::randn({1, 8, 8, 8, 8}) * 0.5 + 2).to(torch::kBFloat16);
  const Tensor ones = torch::ones({8}), zeros = torch::zeros({8});
  const Tensor expected = at::group_norm(x.to(torch::kFloat), 1, ones, zeros, 1e-5);
  const Tensor y = GroupNormByReductions(x, 1, ones, zeros, 1e-5);
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  // 8 bits of numbers up to 8: of x times scale, of the shift, and of the sum.
  EXPECT_LT((y.to(torch::kFloat) - expected).abs().max().item<double>(), 3 * 8 / 512.0);
}

TEST(TrainedLayers, DoublingByMatricesIsTrilinear) {
  ExpectSame([](const auto& in) { return DoubledByMatrices(in[0]); },
             [](const auto& in) {
               return at::upsample_trilinear3d(in[0], at::IntArrayRef{6, 8, 10}, true);
             },
             {torch::rand({2, 3, 3, 4, 5}, kDouble)}, 1e-6);
}

}  // namespace
}  // namespace gvsl
