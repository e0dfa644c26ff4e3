#include "model/unet_engine.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "model/cpu_unet.h"
#include "model/extractor.h"
#include "model/network.h"

namespace gvsl {
namespace {

// float32 through 18 convolutions and norms with outputs of order one, against double precision:
// the goldens of the official network show 1.5e-5 between the two, and Winograd's transforms add
// about as much.
constexpr double kTolerance = 1e-4;

struct Case {
  std::array<int64_t, 5> widths;
  std::array<int64_t, 5> shape;  // N, 1, D, H, W
};

StateDict StateOf(const UNet& unet) {
  StateDict state;
  for (const auto& parameter : unet->named_parameters()) {
    state.emplace_back("unet." + parameter.key(), parameter.value().detach());
  }
  return state;
}

// Norms that are not the identity, so that a wrong channel order shows.
UNet RandomUNet(const std::array<int64_t, 5>& widths) {
  torch::manual_seed(7);
  UNet unet(widths);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : unet->parameters()) {
    if (parameter.dim() == 1) parameter.add_(0.2 * torch::rand_like(parameter));
  }
  return unet;
}

// The same module in double precision, which LibTorch computes.
UNet Exact(UNet& unet, const std::array<int64_t, 5>& widths) {
  const torch::NoGradGuard no_grad;
  UNet exact(widths);
  exact->to(at::kDouble);
  const StateDict state = StateOf(unet);
  size_t k = 0;
  for (auto& parameter : exact->parameters()) parameter.copy_(state[k++].second);
  return exact;
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() ? (a - b).abs().max().item<double>() : 1e30;
}

class UNetEngineTest : public testing::TestWithParam<Case> {};

TEST_P(UNetEngineTest, GivesTheModulesResults) {
  const Case& one = GetParam();
  UNet unet = RandomUNet(one.widths);
  const at::Tensor image = at::rand(one.shape);
  const UNetEngine engine(StateOf(unet), one.widths, at::kCPU, at::kFloat);
  const UNetEngine::Output ours = engine.Forward(image, 1);
  const torch::NoGradGuard no_grad;
  const UNetFeatures expected = Exact(unet, one.widths)->forward(image.to(at::kDouble));
  EXPECT_LT(Difference(ours.dense, expected.dense), kTolerance);
  EXPECT_LT(Difference(ours.global, expected.global), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(
    WidthsAndSizes, UNetEngineTest,
    testing::Values(Case{{8, 16, 32, 64, 128}, {1, 1, 16, 16, 16}},  // deepest level of one voxel
                    Case{{8, 16, 32, 64, 128}, {2, 1, 48, 16, 32}},  // odd sides below, a batch
                    Case{{16, 32, 64, 128, 256}, {1, 1, 32, 64, 48}},
                    Case{{8, 24, 40, 56, 72}, {1, 1, 32, 16, 80}},  // channels that need padding
                    Case{{32, 64, 128, 256, 512}, {1, 1, 32, 32, 32}}));

TEST(UNetEngine, LeavesTheGlobalMapUnchangedWithoutDense) {
  const std::array<int64_t, 5> widths = {8, 16, 32, 64, 128};
  const UNetEngine engine(StateOf(RandomUNet(widths)), widths, at::kCPU, at::kFloat);
  const at::Tensor image = at::rand({1, 1, 32, 32, 32});
  const UNetEngine::Output with = engine.Forward(image, 1), without = engine.Forward(image, 0);
  EXPECT_FALSE(without.dense.defined());
  EXPECT_TRUE(at::equal(with.global, without.global));
}

// Levels of the decoder by the module, each read at a voxel of the image: its own voxels lie at the
// centres of the blocks that they stand for, and between those it is linear.
at::Tensor JoinedLevels(UNet& unet, const at::Tensor& image, int64_t levels) {
  const std::array<at::Tensor, 5> all = unet->Levels(image.to(at::kDouble));  // the last is finest
  std::vector<at::Tensor> joined;
  for (int64_t level = 0; level < levels; ++level) {
    at::Tensor values = all[static_cast<size_t>(4 - level)];
    for (int64_t axis = 2; axis < 5; ++axis) {
      const int64_t coarse = values.size(axis);
      at::Tensor place = (at::arange(image.size(axis), at::kDouble) + 0.5) / (1 << level) - 0.5;
      place = place.clamp(0, static_cast<double>(coarse - 1));
      const at::Tensor low = place.floor().to(at::kLong);
      const at::Tensor high = (low + 1).clamp_max(coarse - 1);
      std::vector<int64_t> shape(5, 1);
      shape[static_cast<size_t>(axis)] = image.size(axis);
      const at::Tensor share = (place - low).view(shape);
      values =
          values.index_select(axis, low) * (1 - share) + values.index_select(axis, high) * share;
    }
    joined.push_back(values);
  }
  return at::cat(joined, 1).to(at::kFloat);
}

TEST(UNetEngine, JoinsTheDecodersLevelsTheLastFirst) {
  const std::array<int64_t, 5> widths = {8, 24, 40, 56, 72};
  UNet unet = RandomUNet(widths), exact = Exact(unet, widths);
  const torch::NoGradGuard no_grad;
  const at::Tensor image = at::rand({2, 1, 32, 16, 48});
  const UNetEngine engine(StateOf(unet), widths, at::kCPU, at::kFloat);
  const UNetEngine through_libtorch(StateOf(unet), widths, at::kCPU, at::kDouble);
  for (int64_t levels = 1; levels <= 4; ++levels) {
    const at::Tensor expected = JoinedLevels(exact, image, levels);
    EXPECT_LT(Difference(engine.Forward(image, levels).dense, expected), kTolerance) << levels;
    EXPECT_LT(Difference(through_libtorch.Forward(image, levels).dense, expected), kTolerance)
        << levels;
  }
  EXPECT_TRUE(
      at::equal(engine.Forward(image, 4).dense.narrow(1, 0, 8), engine.Forward(image, 1).dense));
}

TEST(UNetEngine, IsDeterministicForAThreadCount) {
  const std::array<int64_t, 5> widths = {16, 32, 64, 128, 256};
  at::set_num_threads(2);
  const UNetEngine engine(StateOf(RandomUNet(widths)), widths, at::kCPU, at::kFloat);
  const at::Tensor image = at::rand({1, 1, 32, 48, 32});
  EXPECT_TRUE(at::equal(engine.Forward(image, 1).dense, engine.Forward(image, 1).dense));
}

TEST(CpuUNet, AgreesOnEveryProcessorFamily) {
  const std::array<int64_t, 5> widths = {16, 32, 64, 128, 256};
  UNet unet = RandomUNet(widths);
  const torch::NoGradGuard no_grad;
  const at::Tensor image = at::rand({1, 1, 32, 32, 48});
  const at::Tensor expected = Exact(unet, widths)->forward(image.to(at::kDouble)).dense;
  for (const CpuKernels* const* table = AllCpuKernels(); *table != nullptr; ++table) {
    const CpuUNet cpu(StateOf(unet), widths, **table);
    at::Tensor dense = at::empty({1, 16, 32, 32, 48}), global = at::empty({256 * 2 * 2 * 3});
    cpu.Forward(image.data_ptr<float>(), {32, 32, 48}, {dense.data_ptr<float>()},
                global.data_ptr<float>());
    EXPECT_LT(Difference(dense, expected), kTolerance) << (*table)->name;
  }
}

// Where an image is constant a group's channels differ by their biases alone, and a norm divides by
// little: what rounding leaves there is what a wrong variance would show.
TEST(CpuUNet, IsAsExactWhereTheImageIsConstant) {
  const std::array<int64_t, 5> widths = {8, 16, 32, 64, 128};
  UNet unet = RandomUNet(widths);
  const torch::NoGradGuard no_grad;
  size_t k = 0;
  for (auto& parameter : unet->parameters()) {
    if (k++ % 4 == 1) parameter.add_(2);  // biases that are large beside their differences
  }
  const StateDict state = StateOf(unet);
  at::Tensor corner = at::full({1, 1, 32, 32, 32}, 0.5);
  corner[0][0].slice(0, 0, 4).slice(1, 0, 4).slice(2, 0, 4) = 1;
  const std::pair<std::string, at::Tensor> images[] = {
      {"zero", at::zeros({1, 1, 32, 32, 32})},
      {"constant", at::full({1, 1, 32, 32, 32}, 0.5)},
      {"constant but for a corner", corner}};
  UNet exact = Exact(unet, widths);
  for (const auto& [name, image] : images) {
    const UNetFeatures expected = exact->forward(image.to(at::kDouble));
    for (const CpuKernels* const* table = AllCpuKernels(); *table != nullptr; ++table) {
      const CpuUNet cpu(state, widths, **table);
      at::Tensor dense = at::empty({1, 8, 32, 32, 32}), global = at::empty({1, 128, 2, 2, 2});
      cpu.Forward(image.data_ptr<float>(), {32, 32, 32}, {dense.data_ptr<float>()},
                  global.data_ptr<float>());
      EXPECT_LT(Difference(dense, expected.dense), kTolerance) << name << " " << (*table)->name;
      EXPECT_LT(Difference(global, expected.global), kTolerance) << name << " " << (*table)->name;
    }
  }
}

// The path that GPUs take, run on the CPU.
TEST(UNetEngine, GivesTheSameThroughLibTorchsOperators) {
  const std::array<int64_t, 5> widths = {8, 16, 32, 64, 128};
  UNet unet = RandomUNet(widths);
  const at::Tensor image = at::rand({1, 1, 32, 32, 32});
  const UNetEngine engine(StateOf(unet), widths, at::kCPU, at::kDouble);
  const torch::NoGradGuard no_grad;
  const at::Tensor expected = Exact(unet, widths)->forward(image.to(at::kDouble)).dense;
  EXPECT_LT(Difference(engine.Forward(image, 1).dense, expected), kTolerance);
}

TEST(UNetEngine, GivesTheSameOnAGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  const std::array<int64_t, 5> widths = {32, 64, 128, 256, 512};
  UNet unet = RandomUNet(widths);
  const at::Tensor image = at::rand({2, 1, 32, 48, 64});
  const torch::NoGradGuard no_grad;
  const at::Tensor expected = unet->forward(image).dense;
  ASSERT_TRUE(InitializeLibTorch({"cuda", 2}).ok());  // float32 without TensorFloat-32
  const UNetEngine exact(StateOf(unet), widths, at::kCUDA, at::kFloat);
  // cuDNN sums in its own order, up to 13824 products an output, through 18 layers; TensorFloat-32,
  // of 10 bits, would be off by more.
  EXPECT_LT(Difference(exact.Forward(image.cuda(), 1).dense.cpu(), expected),
            1e-3 * expected.abs().max().item<double>());
  const UNetEngine half(StateOf(unet), widths, at::kCUDA, at::kBFloat16);
  const at::Tensor error = (half.Forward(image.cuda(), 1).dense.cpu() - expected).abs();
  // bfloat16 has 8 bits of mantissa: 0.4 % a rounding, through 18 layers.
  EXPECT_LT(error.mean().item<double>(), 2e-2);
}

}  // namespace
}  // namespace gvsl
