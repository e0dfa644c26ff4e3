#include "model/augmentation.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>

#include "model/objective.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

constexpr int64_t kCrop = 48;

AugmentationOptions Only(double AugmentationOptions::*field, double value) {
  AugmentationOptions options;
  options.rotation_deg = options.scale = options.translation = options.shear_deg = 0;
  options.elastic_voxels = 0;
  options.inpainting_probability = options.shuffling_probability = 0;
  options.intensity_probability = 0;
  options.*field = value;
  return options;
}

Tensor Displacement(const AugmentationOptions& options, uint64_t key) {
  RandomStream random({key});
  const Tensor points =
      SpatialPoints({DrawSpatialChange(options, kCrop, random)}, kCrop, 0, {1, 1, 1}, torch::kCPU);
  return points - VoxelGrid({kCrop, kCrop, kCrop}, torch::kFloat);
}

TEST(SpatialPoints, AreTheVoxelsThemselvesWithoutAChange) {
  const Tensor points = SpatialPoints({NoSpatialChange(kCrop)}, kCrop, 6, {1, 1, 1}, torch::kCPU);
  EXPECT_TRUE(torch::equal(points, VoxelGrid({kCrop, kCrop, kCrop}, torch::kFloat) + 6));
}

TEST(SpatialPoints, KeepDistancesUnderARotation) {
  for (uint64_t key = 0; key < 5; ++key) {
    const Tensor points = Displacement(Only(&AugmentationOptions::rotation_deg, 20), key) +
                          VoxelGrid({kCrop, kCrop, kCrop}, torch::kFloat);
    const Tensor edge = points.select(4, kCrop - 1) - points.select(4, 0);
    EXPECT_NEAR(edge.norm(2, {1}).max().item<double>(), kCrop - 1, 1e-3);
    EXPECT_NEAR(edge.norm(2, {1}).min().item<double>(), kCrop - 1, 1e-3);
  }
}

TEST(SpatialPoints, KeepDistancesInMillimetresUnderARotationOfUnequalVoxels) {
  RandomStream random({3});
  const Tensor points = SpatialPoints(
      {DrawSpatialChange(Only(&AugmentationOptions::rotation_deg, 20), kCrop, random)}, kCrop, 0,
      {3, 1, 0.5}, torch::kCPU);
  const Tensor in_mm = points * torch::tensor({3.0, 1.0, 0.5}).view({1, 3, 1, 1, 1});
  const auto edge = [&](int64_t axis) {
    return (in_mm.select(axis, kCrop - 1) - in_mm.select(axis, 0))
        .norm(2, {1})
        .max()
        .item<double>();
  };
  EXPECT_NEAR(edge(2), 3 * (kCrop - 1), 1e-2);
  EXPECT_NEAR(edge(3), kCrop - 1, 1e-2);
  EXPECT_NEAR(edge(4), 0.5 * (kCrop - 1), 1e-2);
}

TEST(SpatialPoints, MoveElasticallyByTheAskedRootMeanSquare) {
  double sum = 0;
  constexpr int kDraws = 40;
  for (uint64_t key = 0; key < kDraws; ++key) {
    const Tensor u = Displacement(Only(&AugmentationOptions::elastic_voxels, 3), key);
    sum += (u * u).sum(1).mean().item<double>();
  }
  // 40 draws of some 343 independent control values each: the mean is known to a few percent.
  EXPECT_NEAR(std::sqrt(sum / kDraws), 3, 0.3);
}

TEST(SpatialPoints, AreSmoothWhenElastic) {
  const Tensor u = Displacement(Only(&AugmentationOptions::elastic_voxels, 2), 1);
  EXPECT_LT(u.diff(1, 2).abs().max().item<double>(), 0.8);
}

TEST(DrawSpatialChange, StaysWithinItsLimits) {
  AugmentationOptions options = Only(&AugmentationOptions::translation, 0.1);
  for (uint64_t key = 0; key < 50; ++key) {
    const Tensor u = Displacement(options, key);
    EXPECT_LE(u.abs().max().item<double>(), 0.1 * kCrop + 1e-4);
  }
}

TEST(Distort, IsTheSameForTheSameKeyAndAnotherForAnother) {
  torch::manual_seed(1);
  const Tensor images = torch::rand({3, 1, 32, 32, 32});
  const AugmentationOptions options;
  const Tensor once = Distort(images, options, {7, 8, 9});
  torch::rand({100});  // draws in between change nothing
  EXPECT_TRUE(torch::equal(once, Distort(images, options, {7, 8, 9})));
  // Nor does the rest of the batch.
  EXPECT_TRUE(torch::equal(once.narrow(0, 1, 1), Distort(images.narrow(0, 1, 1), options, {8})));
  EXPECT_FALSE(torch::equal(once, Distort(images, options, {7, 8, 10})));
}

TEST(Distort, LeavesImagesAloneAtProbabilityZero) {
  const Tensor images = torch::rand({2, 1, 16, 16, 16});
  EXPECT_TRUE(torch::equal(
      images, Distort(images, Only(&AugmentationOptions::inpainting_probability, 0), {1, 2})));
}

TEST(Distort, RunsEachTaskAtItsRate) {
  const Tensor image = torch::rand({1, 1, 16, 16, 16});
  for (double AugmentationOptions::*field :
       {&AugmentationOptions::inpainting_probability, &AugmentationOptions::shuffling_probability,
        &AugmentationOptions::intensity_probability}) {
    const AugmentationOptions options = Only(field, 0.3);
    int changed = 0;
    for (uint64_t key = 0; key < 400; ++key) {
      if (!torch::equal(Distort(image, options, {key}), image)) ++changed;
    }
    EXPECT_NEAR(changed, 120, 40);  // four deviations of 9
  }
}

TEST(Distort, ShufflesWithinBlocksOfWhichEachHasItsOwnOrder) {
  const int64_t side = 32;
  const Tensor image =
      torch::arange(side * side * side, torch::kFloat).view({1, 1, side, side, side});
  const Tensor shuffled = Distort(image, Only(&AugmentationOptions::shuffling_probability, 1), {3});
  EXPECT_TRUE(torch::equal(std::get<0>(shuffled.flatten().sort()), image.flatten()))
      << "every voxel is still there";
  const Tensor moved = (shuffled != image);
  const double share = moved.to(torch::kDouble).mean().item<double>();
  EXPECT_GT(share, 0.2);
  EXPECT_LT(share, 0.7) << "half of the blocks";
  // Voxels stay within 8 of their place, and no single shift explains them.
  const Tensor value = shuffled.to(torch::kLong).flatten(),
               place = image.to(torch::kLong).flatten();
  EXPECT_LT(((value / (side * side)) - (place / (side * side))).abs().max().item<int64_t>(), 8);
  const Tensor shifts = (value - place).masked_select(moved.flatten());
  std::set<int64_t> different;
  for (int64_t i = 0; i < std::min<int64_t>(shifts.numel(), 500); ++i) {
    different.insert(shifts[i].item<int64_t>());
  }
  EXPECT_GT(different.size(), 20u);
}

TEST(Distort, BendsIntensitiesMonotonicallyUpAndDown) {
  const Tensor ramp = torch::linspace(0, 1, 4096).view({1, 1, 16, 16, 16});
  AugmentationOptions options = Only(&AugmentationOptions::intensity_probability, 1);
  for (const double inversion : {0.0, 1.0}) {
    options.inversion_probability = inversion;
    for (uint64_t key = 0; key < 10; ++key) {
      const Tensor bent = Distort(ramp, options, {key}).flatten();
      const Tensor steps = bent.diff() * (inversion > 0 ? -1 : 1);
      EXPECT_GE(steps.min().item<float>(), -1e-6f);
      EXPECT_NEAR(bent[0].item<float>(), inversion, 1e-3);
      EXPECT_NEAR(bent[4095].item<float>(), 1 - inversion, 1e-3);
    }
  }
}

TEST(Distort, PaintsOnlySomeOfAnImageOver) {
  const Tensor image = torch::full({1, 1, 32, 32, 32}, 2.0f);
  for (uint64_t key = 0; key < 20; ++key) {
    const Tensor painted =
        Distort(image, Only(&AugmentationOptions::inpainting_probability, 1), {key});
    const double share = (painted != 2).to(torch::kDouble).mean().item<double>();
    EXPECT_GT(share, 0.003);
    EXPECT_LT(share, 0.2);
  }
}

TEST(Distort, WorksOnImagesSmallerThanABlock) {
  const Tensor image = torch::rand({1, 1, 3, 2, 5});
  EXPECT_EQ(Distort(image, AugmentationOptions(), {1}).sizes(), image.sizes());
}

TEST(Augment, MovesAAndBEachInItsOwnWayUnlessTold) {
  TrainingOptions options;
  options.crop = 32;
  const int64_t side = 32 + 2 * CropMargin(options);
  const Tensor image = torch::rand({1, 1, side, side, side});
  const PairBatch batch = WholeBatch(image, image);
  TrainingImages images = Augment(batch, options, {1, 1, 1}, torch::kCPU);
  EXPECT_EQ(images.a.sizes(), (at::IntArrayRef{1, 1, 32, 32, 32}));
  EXPECT_FALSE(torch::equal(images.a, images.b));
  options.augmentation.same_for_both = true;
  images = Augment(batch, options, {1, 1, 1}, torch::kCPU);
  EXPECT_TRUE(torch::equal(images.a, images.b));
}

TEST(Augment, TellsContentFromPadding) {
  TrainingOptions options;
  options.crop = 32;
  const int64_t side = 32 + 2 * CropMargin(options);
  // Ones in the content, zeros around it.
  PairBatch batch =
      WholeBatch(torch::zeros({2, 1, side, side, side}), torch::zeros({2, 1, side, side, side}));
  const Content content = {{8, 12, 0}, {30, 24, side}};
  batch.a_content[1] = content;
  batch.a[0].fill_(1);
  batch.a[1][0].slice(0, 8, 30).slice(1, 12, 24).fill_(1);
  const TrainingImages images = Augment(batch, options, {1, 1, 1}, torch::kCPU);
  const Tensor whole = images.a > 0.9999;
  EXPECT_TRUE(whole.logical_or(images.a_inside == 0).all().item<bool>());
  EXPECT_LT((whole != (images.a_inside == 1)).to(torch::kFloat).mean().item<double>(), 0.001);
  const Tensor share = images.a_inside.mean({1, 2, 3, 4});
  EXPECT_GT(share[0].item<double>(), 0.7);
  EXPECT_LT(share[1].item<double>(), 0.5);
  EXPECT_GT(share[1].item<double>(), 0.05);
}

TEST(CommonInside, IsWhatBothVolumesShowAfterAlignment) {
  TrainingImages images;
  images.a_inside = torch::ones({1, 1, 8, 8, 8});
  images.b_inside = torch::ones({1, 1, 8, 8, 8});
  images.a_inside.slice(2, 0, 2).zero_();
  images.b_inside.slice(4, 6, 8).zero_();
  EXPECT_EQ(CommonInside(images, {}).sum().item<double>(), 6 * 8 * 6);
  // B is read 1.5 voxels further along x and y: half a voxel of padding is padding.
  Tensor points = VoxelGrid({8, 8, 8}, torch::kFloat);
  points.slice(1, 1, 3).add_(1.5);
  EXPECT_EQ(CommonInside(images, points).sum().item<double>(), 6 * 6 * 4);
}

TEST(Augment, GivesASampleTheSameImagesWhereverInABatchItIsComputed) {
  TrainingOptions options;
  options.crop = 32;
  const int64_t side = 32 + 2 * CropMargin(options);
  PairBatch both =
      WholeBatch(torch::rand({2, 1, side, side, side}), torch::rand({2, 1, side, side, side}));
  PairBatch second = WholeBatch(both.a.narrow(0, 1, 1), both.b.narrow(0, 1, 1));
  second.first_sample = 1;
  both.step = second.step = 12;
  const TrainingImages whole = Augment(both, options, {1, 1, 1}, torch::kCPU);
  const TrainingImages part = Augment(second, options, {1, 1, 1}, torch::kCPU);
  EXPECT_TRUE(torch::allclose(whole.distorted.narrow(0, 1, 1), part.distorted, 0, 1e-5));
  EXPECT_TRUE(torch::allclose(whole.b.narrow(0, 1, 1), part.b, 0, 1e-5));
}

}  // namespace
}  // namespace gvsl
