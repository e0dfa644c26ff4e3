#include "model/losses.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

double Correlation(const Tensor& a, const Tensor& b, int64_t window = 9) {
  return LocalCorrelation(a, b, window).item<double>();
}

TEST(LocalCorrelation, IsThatOfEveryWindowByItself) {
  torch::manual_seed(1);
  const Tensor a = torch::rand({1, 1, 6, 5, 7}, torch::kDouble);
  const Tensor b = torch::rand({1, 1, 6, 5, 7}, torch::kDouble);
  constexpr double kFloor = 1e-5;
  double sum = 0;
  for (int64_t z = 0; z < 6; ++z) {
    for (int64_t y = 0; y < 5; ++y) {
      for (int64_t x = 0; x < 7; ++x) {
        const auto window = [&](const Tensor& image) {
          return image[0][0]
              .slice(0, std::max<int64_t>(z - 1, 0), z + 2)
              .slice(1, std::max<int64_t>(y - 1, 0), y + 2)
              .slice(2, std::max<int64_t>(x - 1, 0), x + 2)
              .flatten();
        };
        const Tensor p = window(a) - window(a).mean(), q = window(b) - window(b).mean();
        const double cross = (p * q).mean().item<double>();
        sum +=
            cross * cross /
            (((p * p).mean().item<double>() + kFloor) * ((q * q).mean().item<double>() + kFloor));
      }
    }
  }
  EXPECT_NEAR(Correlation(a, b, 3), sum / 210, 1e-12);
}

TEST(LocalCorrelation, IsOneForLinearlyRelatedImagesAndLowForUnrelatedOnes) {
  torch::manual_seed(2);
  const Tensor a = torch::rand({2, 1, 16, 16, 16});
  EXPECT_GT(Correlation(a, 0.3 + 0.5 * a), 0.999);  // less the variance floor's share
  EXPECT_GT(Correlation(a, 1 - a), 0.999);
  EXPECT_LT(Correlation(a, torch::rand_like(a)), 0.02);
}

TEST(LocalCorrelation, SignedTellsAReversedContrastAndKeepsTheSquaresSize) {
  const Tensor a = torch::rand({1, 1, 9, 9, 9}, torch::kDouble);
  const auto measured = [&](const Tensor& b) {
    return LocalCorrelation(a, b, 5, {}, Correlation::kSigned).item<double>();
  };
  EXPECT_NEAR(measured(0.5 * a + 0.2), 1, 1e-2);
  EXPECT_NEAR(measured(1 - a), -1, 1e-2);
  // Where all windows see the same voxels, it is the root of the squared kind.
  const Tensor b = torch::rand({1, 1, 5, 5, 5}, torch::kDouble);
  const Tensor c = torch::rand({1, 1, 5, 5, 5}, torch::kDouble);
  const Tensor middle = torch::constant_pad_nd(torch::ones({1, 1, 3, 3, 3}), {1, 1, 1, 1, 1, 1});
  const double root = LocalCorrelation(b, c, 5, middle, Correlation::kSigned).item<double>();
  EXPECT_NEAR(root * root, LocalCorrelation(b, c, 5, middle).item<double>(), 1e-12);
}

TEST(LocalCorrelation, OfWhatIsInsideIsThatOfTheBoxByItself) {
  torch::manual_seed(5);
  Tensor a = torch::rand({1, 1, 12, 14, 13}, torch::kDouble), b = torch::rand_like(a);
  Tensor inside = torch::zeros_like(a);
  const auto box = [](const Tensor& image) {
    return image.slice(2, 2, 11).slice(3, 0, 9).slice(4, 5, 12);
  };
  box(inside).fill_(1);
  const double alone = Correlation(box(a), box(b), 5);
  EXPECT_NEAR(LocalCorrelation(a, b, 5, inside).item<double>(), alone, 1e-12);
  // Not even bright padding at one place of both counts.
  a = a * inside + 100 * (1 - inside);
  b = b * inside + 100 * (1 - inside);
  EXPECT_NEAR(LocalCorrelation(a, b, 5, inside).item<double>(), alone, 1e-12);
  EXPECT_EQ(LocalCorrelation(a, b, 5, torch::zeros_like(a)).item<double>(), 0);
}

TEST(LocalCorrelation, IsFiniteWithItsGradientOnConstantAndNearlyConstantImages) {
  torch::manual_seed(3);
  const Tensor noise = torch::rand({1, 1, 16, 16, 16});
  for (const Tensor& flat : {torch::zeros({1, 1, 16, 16, 16}), torch::ones({1, 1, 16, 16, 16}),
                             torch::full({1, 1, 16, 16, 16}, 0.7f), 0.7 + 1e-6 * noise}) {
    for (const Tensor& other : {flat, noise}) {
      for (const auto type : {torch::kFloat, torch::kBFloat16}) {
        Tensor variable = flat.to(type).clone().requires_grad_();
        const Tensor value = LocalCorrelation(variable, other.to(type));
        EXPECT_TRUE(std::isfinite(value.item<double>()));
        EXPECT_LT(value.item<double>(), 0.01) << "flat images correlate with nothing";
        value.backward();
        EXPECT_TRUE(torch::isfinite(variable.grad().to(torch::kFloat)).all().item<bool>());
      }
    }
  }
}

TEST(LocalCorrelation, AgreesInFloatWithDouble) {
  torch::manual_seed(4);
  // An image with flat regions and a bright offset, where E[x^2] - E[x]^2 would cancel.
  Tensor a = torch::rand({1, 1, 24, 24, 24}, torch::kDouble) * 0.05 + 0.9;
  a.slice(2, 0, 12).fill_(0.9);
  const Tensor b = a * 0.8 + 0.02 * torch::rand_like(a);
  EXPECT_NEAR(Correlation(a.to(torch::kFloat), b.to(torch::kFloat)), Correlation(a, b), 1e-4);
}

TEST(FieldSmoothness, IsTheMeanSquaredSlopeInMillimetres) {
  // Each component rises by 2 voxels a voxel along its own axis: 3 of 9 slopes are 2, whatever the
  // spacing.
  const Tensor field = 2 * VoxelGrid({5, 6, 4}, torch::kFloat);
  EXPECT_NEAR(FieldSmoothness(field).item<double>(), 4.0 / 3, 1e-6);
  EXPECT_NEAR(FieldSmoothness(field, {3, 1, 2}).item<double>(), 4.0 / 3, 1e-6);
  // The displacement along z rises along x: 3 mm voxels along z, 0.5 mm along x.
  Tensor skew = torch::zeros({1, 3, 4, 4, 4});
  skew.select(1, 0).copy_(VoxelGrid({4, 4, 4}, torch::kFloat).select(1, 2));
  EXPECT_NEAR(FieldSmoothness(skew, {3, 1, 0.5}).item<double>(), 36.0 / 9, 1e-5);
}

TEST(FoldingPercent, CountsWhereTheMapTurnsOver) {
  EXPECT_EQ(FoldingPercent(torch::zeros({1, 3, 6, 6, 6})), 0);
  // x - 1.5 x turns one axis over everywhere; two turned axes turn nothing over.
  Tensor field = torch::zeros({1, 3, 6, 6, 6});
  field.select(1, 2).copy_(-1.5 * VoxelGrid({6, 6, 6}, torch::kFloat).select(1, 2));
  EXPECT_EQ(FoldingPercent(field), 100);
  field.select(1, 1).copy_(-1.5 * VoxelGrid({6, 6, 6}, torch::kFloat).select(1, 1));
  EXPECT_EQ(FoldingPercent(field), 0);
}

}  // namespace
}  // namespace gvsl
