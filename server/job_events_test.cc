#include "server/job_events.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

namespace gvsl {
namespace {

// A file of events for the time of one test.
class EventFile {
 public:
  ~EventFile() { std::filesystem::remove(path); }
  void Append(const std::string& text) { std::ofstream(path, std::ios::app) << text; }
  const std::string path =
      testing::TempDir() + "/job_events_test." + std::to_string(getpid()) + ".jsonl";
};

v1::JobEvent StepEvent(int64_t sequence, int64_t step) {
  v1::JobEvent event;
  event.set_sequence(sequence);
  event.mutable_step()->set_step(step);
  event.mutable_step()->set_steps_per_second(2);
  return event;
}
std::string Line(const v1::JobEvent& event) {
  std::string text;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(event, &text).ok());
  return text + "\n";
}

TEST(JobEventReader, GivesNothingWhileThereIsNoFile) {
  JobEventReader reader("/absent/events.jsonl");
  EXPECT_FALSE(reader.Next());
}

TEST(JobEventReader, FollowsAFileThatGrows) {
  EventFile file;
  JobEventReader reader(file.path);
  file.Append(Line(StepEvent(1, 10)));
  EXPECT_EQ(reader.Next()->sequence(), 1);
  EXPECT_FALSE(reader.Next());
  file.Append(Line(StepEvent(2, 20)) + Line(StepEvent(3, 30)));
  EXPECT_EQ(reader.Next()->sequence(), 2);
  const int64_t behind_second = reader.offset();
  EXPECT_EQ(reader.Next()->sequence(), 3);
  EXPECT_EQ(JobEventReader(file.path, behind_second).Next()->sequence(), 3);
}

TEST(JobEventReader, HalfALineIsNoEventAndMayBecomeAnother) {
  EventFile file;
  JobEventReader reader(file.path);
  file.Append(Line(StepEvent(1, 10)));
  const auto whole = std::filesystem::file_size(file.path);
  file.Append("{\"sequence\": \"2\", \"warn");
  EXPECT_EQ(reader.Next()->sequence(), 1);
  EXPECT_FALSE(reader.Next());
  EXPECT_EQ(reader.offset(), static_cast<int64_t>(whole));
  std::filesystem::resize_file(file.path, whole);  // as the next process does
  file.Append(Line(StepEvent(2, 20)));
  EXPECT_EQ(reader.Next()->step().step(), 20);
}

TEST(JobEventReader, LeavesOutLinesThatAreNoEvents) {
  EventFile file;
  file.Append("noise\n\n{\"sequence\": [] }\n" + Line(StepEvent(1, 10)));
  JobEventReader reader(file.path);
  EXPECT_EQ(reader.Next()->sequence(), 1);
  EXPECT_FALSE(reader.Next());
}

TEST(JobEventReader, UnderstandsEventsOfANewerTrainer) {
  EventFile file;
  file.Append("{\"sequence\": \"1\", \"mood\": \"good\", \"step\": {\"step\": \"5\", \"x\": 1}}\n");
  EXPECT_EQ(JobEventReader(file.path).Next()->step().step(), 5);
}

TEST(JobEventReader, ReadsLinesLongerThanABlockAndLossesThatAreNotFinite) {
  EventFile file;
  v1::JobEvent warning, step = StepEvent(2, 10);
  warning.set_sequence(1);
  warning.mutable_warning()->set_message(std::string(1 << 20, 'x'));
  step.mutable_step()->mutable_losses()->set_total(std::numeric_limits<double>::quiet_NaN());
  file.Append(Line(warning) + Line(step));
  JobEventReader reader(file.path);
  EXPECT_EQ(reader.Next()->warning().message().size(), size_t{1} << 20);
  EXPECT_TRUE(std::isnan(reader.Next()->step().losses().total()));
}

TEST(Apply, TellsTheLastStepAndTheTimeThatRemains) {
  StoredJob stored;
  stored.job.set_total_steps(100);
  Apply(StepEvent(4, 40), stored);
  EXPECT_EQ(stored.job.step(), 40);
  EXPECT_EQ(stored.job.remaining().seconds(), 30);
  EXPECT_EQ(stored.event_sequence, 4);
  Apply(StepEvent(4, 99), stored);  // told already
  EXPECT_EQ(stored.job.step(), 40);
}

TEST(Apply, KeepsTheBestValidationBesideTheLast) {
  StoredJob stored;
  for (int64_t i = 1; i <= 3; ++i) {
    v1::JobEvent event;
    event.set_sequence(i);
    event.mutable_validation()->set_step(i);
    event.mutable_validation()->set_best(i == 2);
    Apply(event, stored);
  }
  EXPECT_EQ(stored.job.last_validation().step(), 3);
  EXPECT_EQ(stored.job.best_validation().step(), 2);
}

TEST(Apply, OnlyACheckpointFurtherThanAnyForgivesCrashes) {
  StoredJob stored;
  stored.crashes = 3;
  stored.checkpoint_step = 20;
  v1::JobEvent event;
  event.set_sequence(1);
  event.mutable_checkpoint()->set_step(20);
  Apply(event, stored);
  EXPECT_EQ(stored.crashes, 3);
  event.set_sequence(2);
  event.mutable_checkpoint()->set_step(30);
  Apply(event, stored);
  EXPECT_EQ(stored.crashes, 0);
  EXPECT_EQ(stored.checkpoint_step, 30);
}

TEST(Apply, ANewProcessGoesBackToItsCheckpoint) {
  StoredJob stored;
  stored.job.set_total_steps(100);
  Apply(StepEvent(1, 55), stored);
  v1::JobEvent event;
  event.set_sequence(2);
  event.mutable_started()->set_step(50);
  Apply(event, stored);
  EXPECT_EQ(stored.job.step(), 50);
  EXPECT_FALSE(stored.job.has_remaining());
}

}  // namespace
}  // namespace gvsl
