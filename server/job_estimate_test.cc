#include "server/job_estimate.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

constexpr double kGibibyte = 1 << 30;

// A complete job of `base` on two volumes of 200^3 voxels of 1 mm.
ResolvedJob Base(int crop) {
  ResolvedJob job;
  job.spec.mutable_data()->set_crop(crop);
  Violations violations("");
  CompleteSpec(job.card, /*cuda_devices=*/0, job.spec, violations);
  EXPECT_TRUE(violations.status().ok()) << violations.status();
  v1::Volume volume;
  for (int axis = 0; axis < 3; ++axis) {
    volume.mutable_grid()->add_size(200);
    volume.mutable_grid()->add_spacing_mm(1);
  }
  job.data.training = {volume, volume};
  return job;
}

// The fields that a status tells, without what is wrong with them.
std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const auto& line : absl::StrSplit(status.message(), '\n'))
    fields.emplace_back(line.substr(0, line.find(": ")));
  return fields;
}

double GibibytesOf(const ResolvedJob& job) {
  return static_cast<double>(EstimateJob(job, {}).memory_bytes()) / kGibibyte;
}

TEST(EstimateJob, MemoryIsWhatRunsOfBaseTook) {
  // Measured peaks of training on the CPU, two pairs a pass (gvsl_training_bench --run).
  EXPECT_NEAR(GibibytesOf(Base(64)), 4.2, 0.4);
  EXPECT_NEAR(GibibytesOf(Base(96)), 12.2, 1);
  ResolvedJob job = Base(64);
  job.card.widths = *WidthsOf("small");
  EXPECT_NEAR(GibibytesOf(job), 2.2, 0.4);
  job.card.widths = *WidthsOf("tiny");
  EXPECT_NEAR(GibibytesOf(job), 1.7, 0.3);
}

TEST(EstimateJob, DurationsAreWhatStepsTookOnTwoCores) {
  JobCapacity capacity;
  capacity.threads = 2;
  const auto seconds_a_step = [&](const char* size, int crop) {
    ResolvedJob job = Base(crop);
    job.card.widths = *WidthsOf(size);
    job.spec.mutable_optimization()->set_steps(1000);
    return static_cast<double>(EstimateJob(job, capacity).duration().seconds()) / 1000;
  };
  // bench/training (docs/performance.md).
  EXPECT_NEAR(seconds_a_step("base", 64), 9.1, 2);
  EXPECT_NEAR(seconds_a_step("base", 96), 29.6, 6);
  EXPECT_NEAR(seconds_a_step("tiny", 64), 2.0, 0.5);
}

TEST(EstimateJob, OnCudaMemoryAndTimeAreWhatARunOfBaseTookOnAnH100) {
  ResolvedJob job = Base(128);
  job.spec.mutable_optimization()->set_precision(v1::PretrainingSpec::Optimization::BFLOAT16);
  job.spec.mutable_optimization()->set_steps(4110);
  JobCapacity capacity;
  capacity.cuda_devices = 1;
  const v1::JobEstimate estimate = EstimateJob(job, capacity);
  EXPECT_NEAR(static_cast<double>(estimate.memory_bytes()) / kGibibyte, 14.5, 1);
  EXPECT_NEAR(static_cast<double>(estimate.duration().seconds()), 1000, 100);
}

TEST(CheckFits, EachRankOnCudaHasTheMemoryOfItsOwnDevice) {
  ResolvedJob job = Base(128);
  job.spec.mutable_optimization()->set_world_size(2);
  JobCapacity capacity;
  const v1::JobEstimate estimate = EstimateJob(job, capacity);
  capacity.memory_bytes = estimate.memory_bytes() + 1;
  EXPECT_FALSE(CheckFits(job, estimate, capacity).ok());
  capacity.cuda_devices = 2;
  EXPECT_TRUE(CheckFits(job, estimate, capacity).ok());
}

TEST(EstimateJob, MemoryFollowsThePairsOfAPassAndNotTheWholeBatch) {
  ResolvedJob job = Base(128);
  const double two = GibibytesOf(job);
  job.spec.mutable_optimization()->set_batch_size(8);
  EXPECT_GT(GibibytesOf(job), 3 * two);
  job.spec.mutable_optimization()->set_accumulation(2);
  job.spec.mutable_optimization()->set_world_size(2);
  EXPECT_DOUBLE_EQ(GibibytesOf(job), two);
}

TEST(EstimateJob, ASmallerNetworkTakesLessOfEverything) {
  const ResolvedJob base = Base(128);
  ResolvedJob tiny = base;
  tiny.card.widths = *WidthsOf("tiny");
  const v1::JobEstimate large = EstimateJob(base, {}), small = EstimateJob(tiny, {});
  // At 64^3 the two were measured: 4.2 and 1.7 GiB, 9.1 and 2.0 s.
  EXPECT_NEAR(static_cast<double>(large.memory_bytes()) / static_cast<double>(small.memory_bytes()),
              2.7, 0.4);
  EXPECT_LT(small.disk_bytes(), large.disk_bytes());
  EXPECT_NEAR(static_cast<double>(large.duration().seconds()) /
                  static_cast<double>(small.duration().seconds()),
              4.6, 0.4);
}

TEST(EstimateJob, DiskIsTheCacheOnTheModelsGridAndTheCheckpoints) {
  ResolvedJob job = Base(64);
  const int64_t one_mm = EstimateJob(job, {}).disk_bytes();
  job.card.spacing_mm = {2, 2, 2};
  const int64_t two_mm = EstimateJob(job, {}).disk_bytes();
  EXPECT_EQ(one_mm - two_mm, 2 * (2 * 8000000 - 2 * 1000000));
  job.spec.mutable_upkeep()->set_keep_checkpoints(4);
  const auto checkpoint = static_cast<double>(EstimateJob(job, {}).disk_bytes() - two_mm);
  EXPECT_NEAR(checkpoint, 3 * 4 * 24.5e6, 3 * 4 * 2e6);  // weights and two moments of 24.5 million
  JobCapacity capacity;
  capacity.cache_bytes = 1000000;
  EXPECT_LT(EstimateJob(job, capacity).disk_bytes(), EstimateJob(job, {}).disk_bytes());
}

TEST(EstimateJob, AHundredTimesTheStepsTakeAHundredTimesAsLong) {
  ResolvedJob job = Base(64);
  job.spec.mutable_optimization()->set_steps(1000);
  const int64_t seconds = EstimateJob(job, {}).duration().seconds();
  EXPECT_GT(seconds, 100);
  job.spec.mutable_optimization()->set_steps(100000);
  EXPECT_NEAR(static_cast<double>(EstimateJob(job, {}).duration().seconds()),
              100.0 * static_cast<double>(seconds), 100);
}

TEST(CheckFits, RefusesWhatTheServerHasNotAndSaysWhatToChange) {
  ResolvedJob job = Base(128);
  JobCapacity capacity;
  const v1::JobEstimate estimate = EstimateJob(job, capacity);
  EXPECT_TRUE(CheckFits(job, estimate, capacity).ok());  // nothing is known of the server

  capacity.memory_bytes = estimate.memory_bytes();
  EXPECT_TRUE(CheckFits(job, estimate, capacity).ok());
  capacity.memory_bytes -= 1;
  EXPECT_EQ(ReasonOf(CheckFits(job, estimate, capacity)), "JOB_TOO_LARGE");
  EXPECT_TRUE(absl::IsResourceExhausted(CheckFits(job, estimate, capacity)));
  EXPECT_EQ(FieldsOf(CheckFits(job, estimate, capacity)),
            (std::vector<std::string>{"job.spec.data.crop", "job.spec.optimization.batch_size"}));

  capacity = {};
  capacity.disk_bytes = estimate.disk_bytes() - 1;
  EXPECT_EQ(ReasonOf(CheckFits(job, estimate, capacity)), "DISK_FULL");
  EXPECT_EQ(FieldsOf(CheckFits(job, estimate, capacity)),
            std::vector<std::string>{"job.spec.upkeep.keep_checkpoints"});
}

TEST(CheckFits, RanksShareTheMemoryOfTheCpu) {
  ResolvedJob job = Base(64);
  job.spec.mutable_optimization()->set_world_size(2);
  JobCapacity capacity;
  const v1::JobEstimate estimate = EstimateJob(job, capacity);
  capacity.memory_bytes = estimate.memory_bytes() * 3 / 2;
  const absl::Status status = CheckFits(job, estimate, capacity);
  EXPECT_EQ(ReasonOf(status), "JOB_TOO_LARGE");
  EXPECT_EQ(FieldsOf(status),
            (std::vector<std::string>{"job.spec.data.crop", "job.spec.optimization.batch_size",
                                      "job.spec.optimization.world_size"}));
  capacity.memory_bytes = 2 * estimate.memory_bytes();
  EXPECT_TRUE(CheckFits(job, estimate, capacity).ok());
}

}  // namespace
}  // namespace gvsl
