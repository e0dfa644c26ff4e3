// Training on a GPU against the CPU; skipped without one.
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/torch.h>

#include "model/extractor.h"
#include "model/objective.h"
#include "model/state.h"
#include "model/trainer.h"
#include "model/training_volumes.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

class CudaTrainingTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
    ASSERT_TRUE(InitializeLibTorch({"cuda", 2}).ok());  // float32 without TensorFloat-32
  }
};

struct Step {
  LossValues losses;
  StateDict gradients;
};

// Losses and gradients of one step of a seeded network on seeded smooth images, nothing distorted:
// what is drawn at random on a device is drawn otherwise on another.
Step StepOn(at::Device device, bool half_precision) {
  constexpr int64_t kSide = 48;
  ModelCard card;
  card.size = "tiny";
  card.widths = {8, 16, 32, 64, 128};
  GvslNetwork network(card);
  EXPECT_TRUE(network->LoadState(InitialState(card.widths, 5)).ok());
  {
    // The last convolution of the field begins near zero, and so would all gradients behind it.
    const torch::NoGradGuard no_grad;
    for (auto& parameter : network->named_parameters()) {
      if (parameter.key() == "out_flow.weight") parameter.value().mul_(1000);
    }
  }
  network->to(device);
  torch::manual_seed(3);
  const auto smooth = [] {
    return torch::upsample_trilinear3d(torch::rand({2, 1, 8, 8, 8}), {kSide, kSide, kSide}, true);
  };
  const Tensor a = smooth(), b = smooth();
  TrainingOptions options;
  options.crop = kSide;
  options.optimization.half_precision = half_precision;
  const TrainingImages images = Unchanged(WholeBatch(a, b), device);
  const ObjectiveResult result = ComputeObjective(network, images, options, {1, 1, 1});
  result.losses.total.backward();
  Step step;
  step.losses = LossValuesOf(StackedLosses(result.losses));
  for (const auto& parameter : network->named_parameters()) {
    step.gradients.emplace_back(parameter.key(), parameter.value().grad().cpu().to(at::kDouble));
  }
  return step;
}

double Norm(const StateDict& state) {
  double sum = 0;
  for (const auto& [name, tensor] : state) sum += tensor.square().sum().item<double>();
  return std::sqrt(sum);
}

TEST_F(CudaTrainingTest, AStepInFloat32IsTheCpus) {
  const Step cpu = StepOn(at::kCPU, false), gpu = StepOn(at::kCUDA, false);
  EXPECT_NEAR(gpu.losses.similarity, cpu.losses.similarity, 1e-4);
  EXPECT_NEAR(gpu.losses.smoothness, cpu.losses.smoothness, 1e-4 * cpu.losses.smoothness);
  EXPECT_NEAR(gpu.losses.restoration, cpu.losses.restoration, 1e-4 * cpu.losses.restoration);
  const double whole = Norm(cpu.gradients);
  for (size_t i = 0; i < cpu.gradients.size(); ++i) {
    const auto& [name, expected] = cpu.gradients[i];
    const double error = (gpu.gradients[i].second - expected).norm().item<double>();
    EXPECT_LT(error, 1e-2 * expected.norm().item<double>() + 1e-5 * whole) << name;
  }
}

TEST_F(CudaTrainingTest, AStepInBfloat16IsCloseToTheCpus) {
  const Step cpu = StepOn(at::kCPU, false), gpu = StepOn(at::kCUDA, true);
  EXPECT_NEAR(gpu.losses.similarity, cpu.losses.similarity, 0.02);
  EXPECT_NEAR(gpu.losses.restoration, cpu.losses.restoration, 0.05 * cpu.losses.restoration);
  double product = 0;
  for (size_t i = 0; i < cpu.gradients.size(); ++i) {
    ASSERT_TRUE(gpu.gradients[i].second.isfinite().all().item<bool>()) << cpu.gradients[i].first;
    product += (gpu.gradients[i].second * cpu.gradients[i].second).sum().item<double>();
  }
  EXPECT_GT(product / (Norm(cpu.gradients) * Norm(gpu.gradients)), 0.95) << "cosine";
}

TEST_F(CudaTrainingTest, SamplesHalfPrecisionAtExactPlaces) {
  // A ramp along x: what is read is the place itself, over the length.
  constexpr int64_t kLength = 200;
  const Tensor ramp = torch::arange(kLength, torch::kFloat).div(kLength).view({1, 1, 1, 1, -1});
  const Tensor image = ramp.expand({1, 1, 4, 4, kLength}).cuda().to(at::kBFloat16);
  const Tensor points = torch::tensor({1.5f, 1.5f, 150.4f}).view({1, 3, 1, 1, 1}).cuda();
  EXPECT_NEAR(SampleAt(image, points).item<float>() * kLength, 150.4, 0.5);
}

// The losses of a run, step by step.
class LossRecorder : public TrainingObserver {
 public:
  absl::Status Started(const StartReport& report) override {
    started_at = report.step;
    return absl::OkStatus();
  }
  absl::Status Step(const StepReport& report) override {
    losses.push_back(report.losses.total);
    return absl::OkStatus();
  }
  absl::Status Validation(const ValidationReport&) override { return absl::OkStatus(); }
  absl::Status Checkpoint(const CheckpointReport&) override { return absl::OkStatus(); }
  absl::Status Picture(const PictureReport&) override { return absl::OkStatus(); }
  absl::Status Warning(const std::string&) override { return absl::OkStatus(); }
  int64_t started_at = -1;
  std::vector<double> losses;
};

TEST_F(CudaTrainingTest, ARunLosesAsOnTheCpuAndGoesOnFromItsCheckpoint) {
  const TestFolder folder("cuda_training");
  TrainingSetup setup;
  auto sources = MakeTrainingVolumes(folder, 6, {40, 40, 40});
  setup.training.assign(sources.begin(), sources.begin() + 4);
  setup.validation.assign(sources.begin() + 4, sources.end());
  setup.card.size = "tiny";
  setup.card.widths = {8, 16, 32, 64, 128};
  setup.card.crop = setup.options.crop = 32;
  setup.cache_folder = folder / "cache";
  setup.run_digest = "the run";
  // What the device's own generator draws.
  setup.options.augmentation.shuffling_probability = 0;
  setup.options.augmentation.inpainting_probability = 0;
  setup.options.optimization.steps = 30;
  setup.options.optimization.learning_rate = 1e-3;
  setup.options.optimization.ema_decay = 0.9;
  setup.options.upkeep.report_every = 1;
  setup.options.upkeep.validate_every = 15;
  setup.options.upkeep.validation_pairs = 2;
  setup.options.upkeep.checkpoint_every = 20;
  setup.options.upkeep.picture_every = 15;
  const auto run = [&](const char* name, const char* device, bool half) {
    setup.folder = folder / name;
    setup.device = device;
    setup.options.optimization.half_precision = half;
    LossRecorder recorder;
    auto trainer = Trainer::Make(setup, recorder, nullptr);
    EXPECT_TRUE(trainer.ok()) << trainer.status();
    if (trainer.ok()) {
      const auto result = (*trainer)->Run();
      EXPECT_TRUE(result.ok()) << result.status();
    }
    return recorder;
  };
  const LossRecorder cpu = run("cpu", "cpu", false), exact = run("exact", "cuda:0", false),
                     half = run("half", "cuda:0", true);
  ASSERT_EQ(cpu.losses.size(), 30u);
  ASSERT_EQ(exact.losses.size(), 30u);
  ASSERT_EQ(half.losses.size(), 30u);
  double exact_error = 0, half_error = 0;
  for (size_t i = 0; i < 30; ++i) {
    exact_error = std::max(exact_error, std::abs(exact.losses[i] - cpu.losses[i]));
    half_error = std::max(half_error, std::abs(half.losses[i] - cpu.losses[i]));
  }
  std::printf("largest difference of a loss in 30 steps: float32 %.2g, bfloat16 %.2g\n",
              exact_error, half_error);
  EXPECT_LT(exact_error, 0.01);
  EXPECT_LT(half_error, 0.05);
  EXPECT_LT(half.losses.back(), half.losses.front());

  std::filesystem::remove(setup.folder + "/checkpoints/step-000000030.safetensors");
  const LossRecorder resumed = run("half", "cuda:0", true);
  EXPECT_EQ(resumed.started_at, 20);
  ASSERT_EQ(resumed.losses.size(), 10u);
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(resumed.losses[i], half.losses[20 + i], 0.02) << i;
}

}  // namespace
}  // namespace gvsl
