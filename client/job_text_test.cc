#include "client/job_text.h"

#include <gtest/gtest.h>

#include <cmath>

namespace gvsl {
namespace {

v1::JobLosses Losses() {
  v1::JobLosses losses;
  losses.set_total(0.851234);
  losses.set_similarity(0.7);
  losses.set_smoothness(0.05);
  losses.set_restoration(1e-5);
  return losses;
}

TEST(JobText, AStepSaysLossesSpeedAndTimeLeft) {
  v1::JobEvent event;
  event.mutable_step()->set_step(20);
  *event.mutable_step()->mutable_losses() = Losses();
  event.mutable_step()->set_steps_per_second(2);
  EXPECT_EQ(EventText(event, 200),
            "step 20 of 200  loss 0.8512 (similarity 0.7, smoothness 0.05, restoration 1e-05)  "
            "2 steps/s  1:30 left");
}

TEST(JobText, AStepWithoutASpeedNamesNoTimeNorDoesTheLastOne) {
  v1::JobEvent::Step step;
  step.set_step(200);
  EXPECT_EQ(StepText(step, 200),
            "step 200 of 200  loss 0 (similarity 0, smoothness 0, restoration 0)");
  step.set_steps_per_second(0.5);
  EXPECT_EQ(StepText(step, 200).find("left"), std::string::npos);
}

TEST(JobText, AValidationSaysWhatAlignmentGained) {
  v1::JobEvent event;
  auto& validation = *event.mutable_validation();
  validation.set_step(10);
  *validation.mutable_losses() = Losses();
  validation.set_ncc_before(0.5);
  validation.set_ncc_after(0.75);
  validation.set_folding_percent(0.02);
  validation.set_best(true);
  EXPECT_EQ(EventText(event, 200),
            "validation at step 10  loss 0.8512 (similarity 0.7, smoothness 0.05, restoration "
            "1e-05)  correlation 0.5 to 0.75  folding 0.02 %  best");
}

TEST(JobText, EveryOtherEventIsALineToo) {
  v1::JobEvent event;
  event.mutable_started()->set_device("cpu");
  event.mutable_started()->set_parameter_count(7);
  EXPECT_EQ(EventText(event, 200), "begins on cpu  7 values");
  event.mutable_started()->set_step(40);
  event.mutable_started()->set_checkpoint("checkpoints/x");
  EXPECT_EQ(EventText(event, 200), "goes on from step 40 on cpu  checkpoints/x");
  event.mutable_checkpoint()->set_step(50);
  event.mutable_checkpoint()->set_path("checkpoints/y");
  EXPECT_EQ(EventText(event, 200), "checkpoint at step 50  checkpoints/y");
  event.mutable_warning()->set_message("first\nsecond\n");
  EXPECT_EQ(EventText(event, 200), "warning: first / second");
  event.mutable_ended()->set_outcome(v1::JobEvent::Ended::FAILED);
  event.mutable_ended()->set_message("the disk is full");
  EXPECT_EQ(EventText(event, 200), "failed at step 0  the disk is full");
  event.mutable_ended()->set_outcome(v1::JobEvent::Ended::STOPPED);
  event.mutable_ended()->clear_message();
  EXPECT_EQ(EventText(event, 200), "stopped at step 0");
  EXPECT_NE(EventText({}, 200), "");  // of a newer server
}

TEST(JobText, AStateSaysWhatItLeadsTo) {
  v1::Job job;
  job.set_name("jobs/a");
  job.set_state(v1::Job::QUEUED);
  EXPECT_EQ(JobText(job), "jobs/a is queued");
  job.set_state(v1::Job::RUNNING);
  job.set_restarts(2);
  EXPECT_EQ(JobText(job), "jobs/a is running, restart 2");
  job.set_state(v1::Job::SUCCEEDED);
  job.set_model("models/b");
  EXPECT_EQ(JobText(job), "jobs/a has succeeded: models/b");
  job.set_state(v1::Job::FAILED);
  job.set_failure("it hurt;\ndo this");
  EXPECT_EQ(JobText(job), "jobs/a has failed: it hurt; / do this");
  job.set_state(v1::Job::CANCELLED);
  job.set_step(3);
  job.set_total_steps(9);
  EXPECT_EQ(JobText(job), "jobs/a is cancelled at step 3 of 9; gvsl jobs resume jobs/a goes on");
}

TEST(JobText, OnlyThreeStatesAreEnds) {
  EXPECT_FALSE(HasEnded(v1::Job::STATE_UNSPECIFIED));
  EXPECT_FALSE(HasEnded(v1::Job::QUEUED));
  EXPECT_FALSE(HasEnded(v1::Job::RUNNING));
  EXPECT_TRUE(HasEnded(v1::Job::SUCCEEDED));
  EXPECT_TRUE(HasEnded(v1::Job::FAILED));
  EXPECT_TRUE(HasEnded(v1::Job::CANCELLED));
}

TEST(JobText, ADurationIsReadableFromSecondsToYears) {
  EXPECT_EQ(DurationText(0), "0:00");
  EXPECT_EQ(DurationText(7.4), "0:07");
  EXPECT_EQ(DurationText(125), "2:05");
  EXPECT_EQ(DurationText(3725), "1:02:05");
  EXPECT_EQ(DurationText(86400 * 3 + 3600 * 4), "3 d 4 h");
  EXPECT_EQ(DurationText(-5), "0:00");
  EXPECT_EQ(DurationText(std::nan("")), "0:00");
  EXPECT_NE(DurationText(1e300), "");
}

}  // namespace
}  // namespace gvsl
