// Convolutions by Winograd's transforms against LibTorch's in double precision.
#include "model/winograd.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace gvsl {
namespace {

struct Case {
  int64_t in, out;
  std::array<int64_t, 4> shape;  // N, D, H, W
};

// Names of the tests.
void PrintTo(const Case& one, std::ostream* out) {
  *out << one.in << " to " << one.out << " channels, " << one.shape[1] << "x" << one.shape[2] << "x"
       << one.shape[3];
}

struct Inputs {
  at::Tensor x, weight, bias, gradient;
};

Inputs InputsOf(const Case& one) {
  const auto& [n, d, h, w] = one.shape;
  at::manual_seed(3);
  return {at::randn({n, one.in, d, h, w}), at::randn({one.out, one.in, 3, 3, 3}) * 0.1,
          at::randn({one.out}), at::randn({n, one.out, d, h, w})};
}

// Against the size of what is compared: float32 sums of up to 10^4 products, in another order.
void ExpectClose(const at::Tensor& ours, const at::Tensor& exact, const std::string& what) {
  ASSERT_EQ(ours.sizes(), exact.sizes()) << what;
  const double scale = exact.abs().max().item<double>();
  EXPECT_LT((ours.to(at::kDouble) - exact).abs().max().item<double>(), 1e-5 * scale) << what;
}

class WinogradTest : public testing::TestWithParam<Case> {};

TEST_P(WinogradTest, GivesTheConvolutionAndItsGradients) {
  const Inputs in = InputsOf(GetParam());
  const at::Tensor x = in.x.to(at::kDouble), weight = in.weight.to(at::kDouble);
  const at::Tensor expected = at::conv3d(x, weight, in.bias.to(at::kDouble), 1, 1);
  const auto [of_x, of_weight, of_bias] = at::convolution_backward(
      in.gradient.to(at::kDouble), x, weight, at::IntArrayRef{weight.size(0)}, {1, 1, 1}, {1, 1, 1},
      {1, 1, 1}, false, {0, 0, 0}, 1, {true, true, false});
  for (const CpuKernels* const* table = AllCpuKernels(); *table != nullptr; ++table) {
    const std::string name = (*table)->name;
    ExpectClose(WinogradConvolution(in.x, in.weight, in.bias, **table), expected, name);
    const auto ours = WinogradGradients(in.gradient, in.x, in.weight, true, **table);
    ExpectClose(ours.first, of_x, name + " of x");
    ExpectClose(ours.second, of_weight, name + " of the weights");
    EXPECT_FALSE(WinogradGradients(in.gradient, in.x, in.weight, false, **table).first.defined());
  }
}

INSTANTIATE_TEST_SUITE_P(
    ChannelsAndSizes, WinogradTest,
    testing::Values(Case{16, 16, {2, 8, 8, 8}},
                    Case{48, 32, {1, 6, 20, 10}},   // 150 tiles: blocks that end within a row
                    Case{24, 40, {2, 5, 4, 7}},     // padded channels, odd sides
                    Case{16, 32, {3, 1, 1, 1}},     // the deepest level of a crop of 16
                    Case{8, 3, {1, 4, 6, 4}},       //
                    Case{64, 64, {1, 18, 18, 18}},  // 729 tiles: three blocks of the gradient
                    Case{256, 128, {1, 2, 4, 4}}));

TEST(Winograd, DoesNotDependOnTheNumberOfThreads) {
  // 27 tiles: one block of them for one thread, two for two.
  const Inputs in = InputsOf({32, 48, {1, 6, 6, 6}});
  for (const CpuKernels* const* table = AllCpuKernels(); *table != nullptr; ++table) {
    const auto all = [&](int threads) {
      at::set_num_threads(threads);
      const auto gradients = WinogradGradients(in.gradient, in.x, in.weight, true, **table);
      return std::array<at::Tensor, 3>{WinogradConvolution(in.x, in.weight, in.bias, **table),
                                       gradients.first, gradients.second};
    };
    const auto one = all(1), two = all(2);
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << (*table)->name << i;
  }
}

// Memory formats that LibTorch may hand over.
TEST(Winograd, TakesTensorsThatAreNotContiguous) {
  const Inputs in = InputsOf({16, 16, {2, 4, 6, 8}});
  const auto turned = [](const at::Tensor& t) {
    return t.contiguous(at::MemoryFormat::ChannelsLast3d);
  };
  EXPECT_TRUE(at::equal(WinogradConvolution(turned(in.x), turned(in.weight), in.bias),
                        WinogradConvolution(in.x, in.weight, in.bias)));
  EXPECT_TRUE(
      at::equal(WinogradGradients(turned(in.gradient), turned(in.x), in.weight, true).second,
                WinogradGradients(in.gradient, in.x, in.weight, true).second));
}

}  // namespace
}  // namespace gvsl
