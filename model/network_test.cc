#include "model/network.h"

#include <gtest/gtest.h>

#include "model/affine.h"
#include "model/losses.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

ModelCard TinyCard(Geometry geometry) {
  ModelCard card;
  card.size = "tiny";
  card.widths = {8, 16, 32, 64, 128};
  card.geometry = geometry;
  return card;
}

TEST(Warp, ReturnsTheImageBitForBitAtZeroDisplacement) {
  const Tensor image = torch::rand({2, 3, 5, 7, 6});
  EXPECT_TRUE(torch::equal(
      SampleAt(image, VoxelGrid({5, 7, 6}, torch::kFloat).expand({2, 3, 5, 7, 6})), image));
}

TEST(Warp, ReturnsTheImageBitForBitUnderTheIdentityMatrix) {
  const Tensor image = torch::rand({1, 1, 9, 6, 7});
  const Tensor grid = VoxelGrid({9, 6, 7}, torch::kFloat);
  const Tensor points = TransformPoints(grid, torch::eye(3, 4).unsqueeze(0), {9, 6, 7});
  EXPECT_TRUE(torch::equal(points, grid));
  EXPECT_TRUE(torch::equal(SampleAt(image, points), image));
}

TEST(Warp, ReadsTheVoxelTheDisplacementPointsAt) {
  const Tensor image = torch::rand({1, 1, 6, 6, 6});
  const Tensor shift = torch::tensor({1.0f, 2.0f, -1.0f}).view({1, 3, 1, 1, 1});  // z, y, x
  const Tensor moved = SampleAt(image, VoxelGrid({6, 6, 6}, torch::kFloat) + shift);
  EXPECT_EQ(moved[0][0][2][1][3].item<float>(), image[0][0][3][3][2].item<float>());
  EXPECT_EQ(moved[0][0][5][0][3].item<float>(), 0.0f) << "outside is zero";
}

TEST(Warp, InterpolatesLinearlyBetweenVoxels) {
  const Tensor ramp = VoxelGrid({6, 5, 4}, torch::kFloat);  // channels z, y, x
  const Tensor points = VoxelGrid({5, 4, 3}, torch::kFloat) + 0.25;
  EXPECT_TRUE(
      torch::allclose(SampleAt(ramp, points), points, 0, 1e-6));  // rounding of a ramp below 6
}

TEST(Affine, RotatesAboutTheCentreInVoxelsOnACuboid) {
  // A quarter turn about z sends +x to +y. The head clamps at 20 degrees, so the matrix is written
  // out.
  const Tensor matrix =
      torch::tensor({0.f, -1.f, 0.f, 0.f, 1.f, 0.f, 0.f, 0.f, 0.f, 0.f, 1.f, 0.f}).view({1, 3, 4});
  const Tensor point = torch::tensor({3.f, 2.f, 6.f}).view({1, 3, 1, 1, 1});  // z, y, x
  const Tensor moved = TransformPoints(point, matrix, {9, 5, 9}).flatten();   // centre (4, 2, 4)
  EXPECT_TRUE(torch::allclose(moved, torch::tensor({3.f, 4.f, 4.f})));
}

TEST(Affine, ClampsTheHeadsOutputs) {
  const Tensor large = torch::full({1, 3}, 50.0), zero = torch::zeros({1, 3});
  const Tensor matrix = AffineMatrix(zero, large, zero, torch::zeros({1, 6}));
  EXPECT_TRUE(torch::allclose(matrix[0].narrow(1, 0, 3), 1.25 * torch::eye(3)));
}

TEST(OfficialWarp, KeepsTheReleasedSamplersHalvedBorder) {
  const Tensor ones = torch::ones({1, 1, 4, 4, 4});
  const Tensor warped = OfficialFlowWarp(ones, torch::zeros({1, 3, 4, 4, 4}));
  EXPECT_NEAR(warped[0][0][0][0][0].item<float>(), 0.125f, 1e-6);  // half on each of three axes
  EXPECT_NEAR(warped[0][0][1][1][1].item<float>(), 1.0f, 1e-6);
}

TEST(Losses, LocalCorrelationIsNearZeroForALinearlyRelatedPair) {
  const Tensor image = torch::rand({1, 1, 12, 12, 12});
  // Less than a thousandth is left by the epsilon in the denominator; windows over the border count
  // zeros for both images, so the second has no offset.
  EXPECT_LT(OfficialCorrelationLoss(image, image * 3).item<double>(), 1e-3);
  EXPECT_GT(OfficialCorrelationLoss(image, torch::rand_like(image)).item<double>(), 0.1);
}

TEST(Losses, SmoothnessOfALinearFieldIsItsSquaredSlope) {
  const Tensor grid = VoxelGrid({5, 5, 5}, torch::kFloat) * 2;
  // Of nine mean squared differences three are 2^2, the others 0; each axis averages over three
  // channels.
  EXPECT_NEAR(OfficialSmoothnessLoss(grid).item<double>(), 4.0 / 3, 1e-6);
}

TEST(Network, TakesAnySizeAndABatch) {
  for (const Geometry geometry : {Geometry::kOfficial, Geometry::kCorrected}) {
    GvslNetwork network(TinyCard(geometry));
    const torch::NoGradGuard no_grad;
    const Tensor a = torch::rand({2, 1, 20, 33, 17}), b = torch::rand({2, 1, 20, 33, 17});
    const GvslOutput both = network->forward(a, b);
    EXPECT_EQ(both.fixed.dense.sizes(), (at::IntArrayRef{2, 8, 20, 33, 17}));
    EXPECT_EQ(both.fixed.global.sizes(), (at::IntArrayRef{2, 128, 2, 3, 2}));
    EXPECT_EQ(both.affine.sizes(), (at::IntArrayRef{2, 3, 4}));
    const GvslOutput second = network->forward(a.narrow(0, 1, 1), b.narrow(0, 1, 1));
    // The same arithmetic; convolutions of another batch may sum in another order.
    EXPECT_TRUE(torch::allclose(both.warped.narrow(0, 1, 1), second.warped, 0, 1e-4));
  }
}

TEST(Network, LetsTheGradientReachTheAffineHead) {
  for (const Geometry geometry : {Geometry::kOfficial, Geometry::kCorrected}) {
    GvslNetwork network(TinyCard(geometry));
    const Tensor a = torch::rand({1, 1, 16, 16, 16}), b = torch::rand({1, 1, 16, 16, 16});
    OfficialCorrelationLoss(network->forward(a, b).warped, a).backward();
    for (const auto& parameter : network->named_parameters()) {
      if (parameter.key().rfind("fc_", 0) == 0) {
        EXPECT_TRUE(parameter.value().grad().defined()) << parameter.key();
      }
    }
  }
}

TEST(Network, GivesTheMovingImageWhereItsHeadsAreAtIdentity) {
  GvslNetwork network(TinyCard(Geometry::kCorrected));
  const torch::NoGradGuard no_grad;
  for (auto& parameter : network->named_parameters()) {
    if (parameter.key().rfind("fc_", 0) == 0 || parameter.key().rfind("out_flow", 0) == 0) {
      parameter.value().zero_();
    }
  }
  const Tensor a = torch::rand({1, 1, 16, 24, 16}), b = torch::rand({1, 1, 16, 24, 16});
  EXPECT_TRUE(torch::equal(network->forward(a, b).warped, b));
}

TEST(Network, TheCorrectedAffineOfAPairTurnedRoundIsTheOtherWay) {
  GvslNetwork network(TinyCard(Geometry::kCorrected));
  const torch::NoGradGuard no_grad;
  for (auto& parameter : network->named_parameters()) {
    if (parameter.key().rfind("fc_", 0) == 0 && parameter.value().dim() == 1)
      parameter.value().zero_();
  }
  const Tensor a = torch::rand({1, 1, 32, 32, 32}), b = torch::rand({1, 1, 32, 32, 32});
  const GvslOutput there = network->forward(a, b), back = network->forward(b, a);
  EXPECT_GT(there.rotation.abs().max().item<double>(), 1e-3);
  EXPECT_TRUE(torch::allclose(there.rotation, -back.rotation, 1e-3, 1e-5));
  EXPECT_TRUE(torch::allclose(there.translation, -back.translation, 1e-3, 1e-5));
  const Tensor identity = torch::eye(3, 4).unsqueeze(0);
  EXPECT_TRUE(torch::allclose(network->forward(a, a).affine, identity, 0, 1e-5));
}

TEST(Network, RestoresItsStateAndNamesATensorThatDoesNotFit) {
  GvslNetwork source(TinyCard(Geometry::kCorrected)), target(TinyCard(Geometry::kCorrected));
  ASSERT_TRUE(target->LoadState(source->State()).ok());
  const StateDict restored = target->State();
  EXPECT_EQ(restored.size(), 104u);
  EXPECT_TRUE(torch::equal(restored.back().second, source->State().back().second));

  StateDict wrong = source->State();
  wrong[3].second = torch::zeros({9});
  const absl::Status status = target->LoadState(wrong);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("unet.inc.double_conv.1.bias"), std::string::npos);
}

}  // namespace
}  // namespace gvsl
