#include "model/checkpoint.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "model/test_files.h"

namespace gvsl {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  Checkpoint At(int64_t step) {
    Checkpoint checkpoint;
    checkpoint.step = step;
    checkpoint.run_digest = "the run";
    checkpoint.state.emplace_back("weight", torch::full({3, 2}, static_cast<double>(step)));
    return checkpoint;
  }
  void Write(int64_t step, int64_t keep) {
    const absl::Status status = WriteCheckpoint(folder_.path(), At(step), keep);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Damage(int64_t step) {
    std::fstream file(Path(step), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('!');
  }
  absl::StatusOr<std::optional<Checkpoint>> Read() {
    warnings_.clear();
    return ReadLastCheckpoint(folder_.path(), "the run",
                              [&](const std::string& text) { warnings_.push_back(text); });
  }
  std::string Path(int64_t step) { return folder_ / CheckpointName(step); }
  bool Exists(int64_t step) { return std::filesystem::exists(Path(step)); }

  const TestFolder folder_{"checkpoints"};
  std::vector<std::string> warnings_;
};

TEST_F(CheckpointTest, KeepsTheLastOnesInTheOrderOfTheirSteps) {
  for (int64_t step : {99, 999999999, 1000000000}) Write(step, 2);
  EXPECT_FALSE(Exists(99));
  EXPECT_TRUE(Exists(999999999));
  const auto last = Read();
  ASSERT_TRUE(last.ok() && last->has_value()) << last.status();
  EXPECT_EQ((*last)->step, 1000000000);
  EXPECT_EQ((*last)->state[0].second.sum().item<double>(), 6e9);
  EXPECT_EQ(LastCheckpointStep(folder_.path()), 1000000000);
}

TEST_F(CheckpointTest, OneWrittenAfterDamagedOnesOfLaterStepsStaysAndTheseGo) {
  Write(1000, 1);
  Damage(1000);
  auto nothing = Read();
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_FALSE(nothing->has_value());
  ASSERT_EQ(warnings_.size(), 2u);
  EXPECT_NE(warnings_[0].find("step-000001000.safetensors is damaged"), std::string::npos);
  EXPECT_NE(warnings_[1].find("begins again at step 0"), std::string::npos) << warnings_[1];
  Write(2, 1);
  EXPECT_TRUE(Exists(2));
  EXPECT_FALSE(Exists(1000));
  EXPECT_EQ((*Read())->step, 2);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, OneThatCannotBeReadForAnotherReasonIsNotPassedOver) {
  Write(4, 2);
  std::filesystem::create_symlink(CheckpointName(6), Path(6));  // a link to itself: ELOOP
  const absl::Status status = Read().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_NE(Message(status).find(CheckpointName(6)), std::string::npos) << status;
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, AFolderThatCannotBeListedIsNotOneWithoutCheckpoints) {
  WriteBytes(folder_ / "file", "");
  const auto read = ReadLastCheckpoint(folder_ / "file", "the run", [](const std::string&) {});
  EXPECT_TRUE(absl::IsUnavailable(read.status())) << read.status();
  const auto absent = ReadLastCheckpoint(folder_ / "absent", "the run", [](const std::string&) {});
  ASSERT_TRUE(absent.ok()) << absent.status();
  EXPECT_FALSE(absent->has_value());
}

TEST_F(CheckpointTest, RemembersLossesAndValidationWhereTheyAreKnown) {
  Checkpoint checkpoint = At(8);
  ASSERT_TRUE(WriteCheckpoint(folder_.path(), checkpoint, 1).ok());
  auto read = Read();
  ASSERT_TRUE(read.ok() && read->has_value()) << read.status();
  EXPECT_FALSE((*read)->losses || (*read)->validation) << "as in the files of older programs";
  checkpoint.losses = LossValues{0.1, 0.2, 0.3, 0.4};
  checkpoint.validation = ValidationReport{6, {0.5, 0.6, 0.7, 0.8}, 0.9, 1.0 / 3, 2.5, true};
  ASSERT_TRUE(WriteCheckpoint(folder_.path(), checkpoint, 1).ok());
  read = Read();
  ASSERT_TRUE(read.ok() && read->has_value()) << read.status();
  ASSERT_TRUE((*read)->losses && (*read)->validation);
  EXPECT_EQ((*read)->losses->total, 0.1);
  EXPECT_EQ((*read)->losses->restoration, 0.4);
  EXPECT_EQ((*read)->validation->step, 6);
  EXPECT_EQ((*read)->validation->losses.smoothness, 0.7);
  EXPECT_EQ((*read)->validation->ncc_before, 0.9);
  EXPECT_EQ((*read)->validation->ncc_after, 1.0 / 3);
  EXPECT_EQ((*read)->validation->folding_percent, 2.5);
  EXPECT_TRUE((*read)->validation->best);
}

}  // namespace
}  // namespace gvsl
