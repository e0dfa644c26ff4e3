#include "trainer/rank_group.h"

#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/torch.h>

#include <thread>

#include "model/extractor.h"
#include "model/test_files.h"

namespace gvsl {
namespace {

// What each rank's sum of 1, 2, 4, ... comes to, the ranks being threads that meet through a file.
std::vector<float> SumsOf(const std::vector<std::string>& devices) {
  const TestFolder folder("rank_group");
  const int size = static_cast<int>(devices.size());
  std::vector<float> sums(devices.size(), 0);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      auto group = JoinRanks(folder / "store", rank, size, devices[rank]);
      ASSERT_TRUE(group.ok()) << group.status();
      EXPECT_EQ((*group)->rank(), rank);
      EXPECT_EQ((*group)->size(), size);
      at::Tensor share = torch::full({1000}, static_cast<float>(1 << rank),
                                     at::TensorOptions(at::Device(devices[rank])));
      const absl::Status status = (*group)->Sum(share);
      ASSERT_TRUE(status.ok()) << status;
      sums[static_cast<size_t>(rank)] = share.mean().item<float>();
      at::Tensor left = torch::zeros({1}, share.options());
      ASSERT_TRUE((*group)->Sum(left).ok());  // none leaves before all have read theirs
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return sums;
}

TEST(RankGroup, SumsOverRanksOnTheCpu) {
#ifndef GVSL_GLOO
  GTEST_SKIP() << "built without Gloo";
#endif
  EXPECT_EQ(SumsOf({"cpu", "cpu", "cpu"}), (std::vector<float>{7, 7, 7}));
}

TEST(RankGroup, SumsOverAllDevicesOnCuda) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
#ifndef GVSL_NCCL
  GTEST_SKIP() << "built without NCCL";
#endif
  std::vector<std::string> devices;
  for (size_t i = 0; i < torch::cuda::device_count(); ++i) {
    devices.push_back("cuda:" + std::to_string(i));
  }
  const float expected = static_cast<float>((1 << devices.size()) - 1);
  EXPECT_EQ(SumsOf(devices), std::vector<float>(devices.size(), expected));
}

TEST(RankGroup, TellsThatABuildHasNoNccl) {
#ifdef GVSL_NCCL
  GTEST_SKIP() << "built with NCCL";
#endif
  const TestFolder folder("rank_group");
  const auto group = JoinRanks(folder / "store", 0, 1, "cuda:0");
  EXPECT_EQ(group.status().code(), absl::StatusCode::kInvalidArgument) << group.status();
}

}  // namespace
}  // namespace gvsl
