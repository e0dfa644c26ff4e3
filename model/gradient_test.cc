// Gradients of every differentiable piece of ours, against central differences in double precision.
#include <gtest/gtest.h>

#include "model/affine.h"
#include "model/losses.h"
#include "model/network.h"
#include "model/objective.h"
#include "model/trained_layers.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

const auto kDouble = torch::TensorOptions(torch::kDouble);

// The largest difference between the gradient of a scalar function and central differences,
// relative to the largest gradient. The function must be smooth within 1e-5 of `at`.
template <typename F>
double GradientError(const F& function, const Tensor& at) {
  constexpr double kStep = 1e-5;
  Tensor variable = at.clone().requires_grad_();
  function(variable).backward();
  const Tensor analytic = variable.grad().flatten();
  const torch::NoGradGuard no_grad;
  Tensor numeric = torch::zeros_like(analytic);
  Tensor moved = at.clone().contiguous();
  double* values = moved.data_ptr<double>();
  for (int64_t i = 0; i < moved.numel(); ++i) {
    const double before = values[i];
    values[i] = before + kStep;
    const double above = function(moved).template item<double>();
    values[i] = before - kStep;
    const double below = function(moved).template item<double>();
    values[i] = before;
    numeric[i] = (above - below) / (2 * kStep);
  }
  EXPECT_GT(analytic.abs().max().item<double>(), 0);
  return ((analytic - numeric).abs().max() / analytic.abs().max()).item<double>();
}

// Central differences are right to about step^2 times the third derivative, and rounding over step.
constexpr double kBound = 1e-6;

// Points whose coordinates keep away from integers, where trilinear interpolation has its kinks.
Tensor PointsBetween(const Tensor& grid) {
  return grid.floor() + 0.1 + 0.8 * torch::rand(grid.sizes(), kDouble);
}

class Gradient : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(5); }
  const Tensor weights_ = torch::rand({2, 3, 4, 5, 3}, kDouble);
};

TEST_F(Gradient, OfSamplingByThePoints) {
  const Tensor image = torch::rand({2, 3, 6, 5, 4}, kDouble);
  // Some lie half or whole outside.
  const Tensor points = PointsBetween(torch::rand({2, 3, 4, 5, 3}, kDouble) * 8 - 2);
  EXPECT_LT(
      GradientError([&](const Tensor& p) { return (SampleAt(image, p) * weights_).sum(); }, points),
      kBound);
}

TEST_F(Gradient, OfSamplingByTheImage) {
  const Tensor image = torch::rand({2, 3, 6, 5, 4}, kDouble);
  const Tensor points = torch::rand({2, 3, 4, 5, 3}, kDouble) * 8 - 2;
  EXPECT_LT(
      GradientError([&](const Tensor& i) { return (SampleAt(i, points) * weights_).sum(); }, image),
      kBound);
}

TEST_F(Gradient, OfTheAffineMapByAllFifteenValues) {
  const Tensor image = torch::rand({2, 1, 6, 7, 5}, kDouble);
  const Tensor grid = VoxelGrid({6, 7, 5}, kDouble);
  const Tensor weights = torch::rand({2, 3, 6, 7, 5}, kDouble);
  const auto moved = [&](const Tensor& v) {
    const Tensor matrix =
        AffineMatrix(v.slice(1, 0, 3), v.slice(1, 3, 6), v.slice(1, 6, 9), v.slice(1, 9, 15));
    return (TransformPoints(grid, matrix, {6, 7, 5}, {2.5, 1, 0.7}) * weights).sum();
  };
  EXPECT_LT(GradientError(moved, torch::rand({2, 15}, kDouble) * 1.6 - 0.8), kBound);
}

TEST_F(Gradient, OfLocalCorrelation) {
  const Tensor a = torch::rand({1, 1, 7, 6, 8}, kDouble), b = torch::rand({1, 1, 7, 6, 8}, kDouble);
  for (const int64_t window : {3, 5}) {
    EXPECT_LT(GradientError([&](const Tensor& x) { return LocalCorrelation(x, b, window); }, a),
              kBound);
  }
  const Tensor inside = torch::rand({1, 1, 7, 6, 8}) > 0.3;
  EXPECT_LT(
      GradientError(
          [&](const Tensor& x) { return LocalCorrelation(x, b, 3, inside, Correlation::kSigned); },
          a),
      kBound);
  EXPECT_LT(GradientError([&](const Tensor& x) { return LocalCorrelation(x, b, 3, inside); }, a),
            kBound);
}

TEST_F(Gradient, OfTheFieldsSmoothness) {
  const Tensor field = torch::rand({2, 3, 4, 5, 3}, kDouble);
  EXPECT_LT(GradientError(
                [](const Tensor& f) {
                  return FieldSmoothness(f, {2, 1, 0.5});
                },
                field),
            kBound);
}

TEST_F(Gradient, OfTheComposedMapByTheDisplacement) {
  const Tensor image = torch::rand({1, 1, 6, 7, 5}, kDouble);
  const Tensor matrix =
      AffineMatrix(torch::full({1, 3}, 0.3, kDouble), torch::full({1, 3}, 0.2, kDouble),
                   torch::full({1, 3}, 0.4, kDouble), torch::full({1, 6}, 0.1, kDouble));
  const Tensor grid = VoxelGrid({6, 7, 5}, kDouble);
  const Tensor fixed = torch::rand({1, 1, 6, 7, 5}, kDouble);
  const auto loss = [&](const Tensor& u) {
    return LocalCorrelation(SampleAt(image, TransformPoints(grid + u, matrix, {6, 7, 5})), fixed,
                            3);
  };
  // A few voxels will come near a kink; over all of them that is a small part of the gradient.
  EXPECT_LT(GradientError(loss, torch::rand({1, 3, 6, 7, 5}, kDouble)), 1e-3);
}

TEST_F(Gradient, OfAConvolutionIsLibTorchs) {
  struct Shape {
    int64_t samples, in, out, depth, height, width;
  };
  for (const Shape& s :
       {Shape{2, 1, 8, 9, 10, 16}, Shape{1, 3, 5, 4, 17, 35}, Shape{2, 24, 8, 16, 16, 16},
        Shape{1, 2, 1, 1, 1, 19}, Shape{1, 80, 64, 3, 2, 4}, Shape{2, 80, 64, 3, 2, 4},
        Shape{2, 24, 8, 4, 4, 8}}) {
    const Tensor x = torch::randn({s.samples, s.in, s.depth, s.height, s.width});
    const Tensor upstream = torch::randn({s.samples, s.out, s.depth, s.height, s.width});
    TrainedConvolution ours(torch::nn::Conv3dOptions(s.in, s.out, 3).padding(1));
    const Tensor x_ours = x.clone().requires_grad_(), x_theirs = x.clone().requires_grad_();
    (ours->forward(x_ours) * upstream).sum().backward();
    const Tensor weight = ours->weight.detach().to(torch::kDouble).requires_grad_();
    const Tensor bias = ours->bias.detach().to(torch::kDouble).requires_grad_();
    (at::conv3d(x_theirs.to(torch::kDouble), weight, bias, {1, 1, 1}, {1, 1, 1}) *
     upstream.to(torch::kDouble))
        .sum()
        .backward();
    const auto error = [](const Tensor& value, const Tensor& exact) {
      return ((value - exact).abs().max() / exact.abs().max()).template item<double>();
    };
    EXPECT_LT(error(ours->weight.grad(), weight.grad()), 1e-5);
    EXPECT_LT(error(ours->bias.grad(), bias.grad()), 1e-5);
    EXPECT_LT(error(x_ours.grad(), x_theirs.grad()), 1e-5);
  }
}

TEST_F(Gradient, OfOneStepReachesEveryOneOfThe104Tensors) {
  ModelCard card;
  card.size = "tiny";
  card.widths = {8, 16, 32, 64, 128};
  card.geometry = Geometry::kCorrected;
  GvslNetwork network(card);
  ASSERT_TRUE(network->LoadState(InitialState(card.widths, 3)).ok());
  TrainingOptions options;
  options.crop = 32;
  const int64_t side = 32 + 2 * CropMargin(options);
  const PairBatch batch =
      WholeBatch(torch::rand({2, 1, side, side, side}), torch::rand({2, 1, side, side, side}));
  const TrainingImages images = Augment(batch, options, {1, 1, 1}, torch::kCPU);
  ComputeObjective(network, images, options, {1, 1, 1}).losses.total.backward();
  int64_t tensors = 0;
  for (const auto& parameter : network->named_parameters()) {
    ++tensors;
    const Tensor gradient = parameter.value().grad();
    ASSERT_TRUE(gradient.defined()) << parameter.key();
    EXPECT_TRUE(torch::isfinite(gradient).all().item<bool>()) << parameter.key();
    EXPECT_GT(gradient.abs().max().item<float>(), 0) << parameter.key();
  }
  EXPECT_EQ(tensors, 104);
}

}  // namespace
}  // namespace gvsl
