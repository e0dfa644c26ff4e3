#include "trainer/task.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace gvsl {
namespace {

v1::TrainingTask Task() {
  v1::TrainingTask task;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(job: "jobs/a"
         spec {
           data { crop: 32 }
           network { size: "tiny" card { orientation: "LPS" spacing_mm: [1, 1, 1]
             other { method: MIN_MAX } ct { method: WINDOW high: 2048 } } }
           optimization { steps: 10 }
         }
         training { name: "volumes/a" path: "a" voxels_sha256: "a" voxel_type: INT16 modality: "MR"
           grid { size: [32, 32, 32] spacing_mm: [1, 1, 1] origin_mm: [0, 0, 0]
                  direction: [1, 0, 0, 0, 1, 0, 0, 0, 1] } }
         data_sha256: "abc")",
      &task));
  return task;
}

std::string DigestOf(const v1::TrainingTask& task) {
  const auto setup = SetupOf(task, "folder");
  EXPECT_TRUE(setup.ok()) << setup.status();
  return setup.ok() ? setup->run_digest : "";
}

TEST(RunDigest, IsTheSameWhateverTheVolumesAreCalledAndHoweverManyComputeIt) {
  v1::TrainingTask task = Task();
  const std::string digest = DigestOf(task);
  EXPECT_EQ(digest.size(), 64u);
  task.mutable_training(0)->set_name("volumes/b");
  task.mutable_training(0)->set_path("elsewhere");
  task.mutable_training(0)->set_modality("PT");  // scaled as MR is
  task.mutable_spec()->mutable_optimization()->set_world_size(2);
  task.mutable_spec()->mutable_upkeep()->set_checkpoint_every(3);
  EXPECT_EQ(DigestOf(task), digest);
}

TEST(RunDigest, IsAnotherWhenAVolumeIsSeenInAnotherWay) {
  const std::string digest = DigestOf(Task());
  v1::TrainingTask modality = Task(), spacing = Task(), role = Task(), steps = Task();
  modality.mutable_training(0)->set_modality("CT");
  spacing.mutable_training(0)->mutable_grid()->set_spacing_mm(2, 3);
  role.mutable_validation()->Swap(role.mutable_training());
  steps.mutable_spec()->mutable_optimization()->set_steps(11);
  for (const v1::TrainingTask& other : {modality, spacing, role, steps})
    EXPECT_NE(DigestOf(other), digest) << other.ShortDebugString();
}

TEST(ThreadsOfRank, RanksShareWhatIsAskedForOrTheMachine) {
  v1::TrainingTask task;
  EXPECT_EQ(ThreadsOfRank(task, 8), 8);
  task.mutable_spec()->mutable_optimization()->set_world_size(4);
  EXPECT_EQ(ThreadsOfRank(task, 8), 2);
  task.set_threads(4);
  EXPECT_EQ(ThreadsOfRank(task, 8), 1);
  task.set_threads(2);
  EXPECT_EQ(ThreadsOfRank(task, 8), 1);
}

}  // namespace
}  // namespace gvsl
