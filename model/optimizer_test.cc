#include "model/optimizer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace gvsl {
namespace {

using torch::Tensor;

// Ten steps on a small quadratic problem by `take_step`, and where the parameters end.
template <typename F>
void Descend(const Tensor& x, const F& take_step) {
  const Tensor target = torch::linspace(-1, 1, 12).view({3, 4});
  for (int i = 0; i < 10; ++i) {
    if (x.grad().defined()) x.grad().zero_();
    ((x - target).pow(2) * torch::arange(1, 13).view({3, 4})).sum().backward();
    take_step();
  }
}

Tensor Start() { return torch::full({3, 4}, 0.25f).requires_grad_(); }

TEST(Adam, TakesTheStepsOfPyTorchs) {
  for (const double decay : {0.0, 0.1}) {
    const Tensor ours = Start(), theirs = Start();
    OptimizationOptions options;
    options.weight_decay = decay;
    Adam adam({{"x", ours}}, options);
    torch::optim::Adam reference({theirs}, torch::optim::AdamOptions(0.05).weight_decay(decay));
    Descend(ours, [&] { adam.Step(0.05); });
    Descend(theirs, [&] { reference.step(); });
    EXPECT_TRUE(torch::allclose(ours, theirs, 0, 1e-6));
  }
}

TEST(Adam, DecouplesItsDecayAsPyTorchsAdamW) {
  const Tensor ours = Start(), theirs = Start();
  OptimizationOptions options;
  options.decoupled_decay = true;
  options.weight_decay = 0.1;
  Adam adam({{"x", ours}}, options);
  torch::optim::AdamW reference({theirs}, torch::optim::AdamWOptions(0.05).weight_decay(0.1));
  Descend(ours, [&] { adam.Step(0.05); });
  Descend(theirs, [&] { reference.step(); });
  EXPECT_TRUE(torch::allclose(ours, theirs, 0, 1e-6));
}

TEST(Adam, StepsOfWideConvolutionsAreShorterWhereTheRateGoesByTheirInputs) {
  const auto moved = [](std::vector<int64_t> shape, bool by_fan_in) {
    OptimizationOptions options;
    options.rate_by_fan_in = by_fan_in;
    Tensor x = torch::zeros(shape).requires_grad_();
    Adam adam({{"x", x}}, options);
    x.sum().backward();
    adam.Step(0.05);
    return -x.detach().min().item<double>();  // Adam's first step is the rate
  };
  EXPECT_NEAR(moved({4, 64, 3, 3, 3}, true), 0.05 / 8, 1e-6);
  EXPECT_NEAR(moved({4, 64, 3, 3, 3}, false), 0.05, 1e-6);
  EXPECT_NEAR(moved({4, 1, 3, 3, 3}, true), 0.05, 1e-6) << "never longer";
  EXPECT_NEAR(moved({3, 1728}, true), 0.05, 1e-6) << "convolutions alone";
}

TEST(Adam, GoesOnExactlyFromItsState) {
  OptimizationOptions options;
  options.ema_decay = 0.9;
  const Tensor straight = Start(), first = Start(), second = Start();
  Adam whole({{"x", straight}}, options);
  Descend(straight, [&] { whole.Step(0.05); });
  Descend(straight, [&] { whole.Step(0.05); });

  Adam before({{"x", first}}, options), after({{"x", second}}, options);
  Descend(first, [&] { before.Step(0.05); });
  StateDict kept;
  for (const auto& [name, tensor] : before.State()) kept.emplace_back(name, tensor.clone());
  ASSERT_TRUE(after.Load(kept, before.steps()).ok());
  Descend(second, [&] { after.Step(0.05); });
  EXPECT_TRUE(torch::equal(straight, second));
  EXPECT_TRUE(torch::equal(whole.served()[0].second, after.served()[0].second));
  EXPECT_FALSE(torch::equal(after.served()[0].second, second)) << "the average lags behind";
}

TEST(Adam, RefusesTheStateOfAnotherNetwork) {
  Adam adam({{"x", Start()}}, {});
  Adam other({{"y", Start()}}, {});
  EXPECT_EQ(adam.Load(other.State(), 1).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ClipGradients, ScalesToTheLimitAndTellsTheNormBefore) {
  Tensor x = torch::zeros({2}).requires_grad_();
  (x * torch::tensor({3.0f, 4.0f})).sum().backward();
  EXPECT_NEAR(ClipGradients({{"x", x}}, 0), 5, 1e-6);
  EXPECT_NEAR(ClipGradients({{"x", x}}, 1), 5, 1e-6);
  EXPECT_NEAR(x.grad().norm().item<double>(), 1, 1e-6);
}

TEST(LearningRate, RisesOverTheWarmUpAndFallsByItsSchedule) {
  OptimizationOptions options;
  options.steps = 100;
  options.learning_rate = 2;
  EXPECT_EQ(LearningRate(options, 0), 2);
  options.warmup_steps = 4;
  EXPECT_EQ(LearningRate(options, 0), 0.5);
  EXPECT_EQ(LearningRate(options, 3), 2);
  options.schedule = Schedule::kCosine;
  EXPECT_NEAR(LearningRate(options, 50), 1, 1e-9);
  options.schedule = Schedule::kPolynomial;
  EXPECT_NEAR(LearningRate(options, 50), 2 * std::pow(0.5, 0.9), 1e-9);
}

}  // namespace
}  // namespace gvsl
