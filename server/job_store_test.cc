#include "server/job_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/metadata_store.h"

namespace gvsl {
namespace {

v1::Job JobNamed(const std::string& id, int64_t seconds) {
  v1::Job job;
  job.set_name("jobs/" + id);
  job.set_display_name("name of " + id);
  job.set_state(v1::Job::QUEUED);
  job.mutable_spec()->mutable_data()->set_crop(64);
  job.mutable_create_time()->set_seconds(seconds);
  return job;
}

class JobStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(folder_);
    Reopen();
    for (const char* id : {"a", "b", "c"}) {
      StoredVolume volume;
      volume.volume.set_name(absl::StrCat("volumes/", id));
      ASSERT_TRUE(metadata_->AddVolume(volume, {}).ok());
    }
    StoredModel model;
    model.model.set_name("models/m");
    ASSERT_TRUE(metadata_->AddModel(model, {}).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Reopen() {
    database_.reset();
    database_ = *Database::Open(folder_ + "/metadata.sqlite");
    metadata_ = std::make_unique<MetadataStore>(*database_);
    store_ = std::make_unique<JobStore>(*database_);
  }
  void Add(const v1::Job& job, const JobInputs& inputs = {{"volumes/a", "volumes/b"}, {}, ""}) {
    const auto added = store_->Add(job, inputs, {});
    ASSERT_TRUE(added.ok()) << added.status();
  }
  void SetState(const std::string& name, v1::Job::State state) {
    const auto updated = store_->Update(name, [&](StoredJob& stored) {
      stored.job.set_state(state);
      return absl::OkStatus();
    });
    ASSERT_TRUE(updated.ok()) << updated.status();
  }
  std::vector<std::string> Matching(const std::string& filter, const std::string& order = "") {
    v1::ListJobsRequest request;
    request.set_filter(filter);
    request.set_order_by(order);
    const auto page = store_->List(request);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> ids;
    for (const v1::Job& job : page->jobs) ids.push_back(job.name().substr(5));
    return ids;
  }

  using Ids = std::vector<std::string>;
  const std::string folder_ = testing::TempDir() + "/job_store_test." + std::to_string(getpid());
  std::unique_ptr<Database> database_;
  std::unique_ptr<MetadataStore> metadata_;
  std::unique_ptr<JobStore> store_;
};

TEST_F(JobStoreTest, KeepsAJobAndWhatTheServerRemembersOfItOverAReopen) {
  v1::Job job = JobNamed("x", 1000);
  job.mutable_last_step()->mutable_losses()->set_total(0.1);
  Add(job, {{"volumes/b", "volumes/a"}, {"volumes/c"}, "models/m"});
  ASSERT_TRUE(store_
                  ->Update("jobs/x",
                           [](StoredJob& stored) {
                             stored.job.set_state(v1::Job::RUNNING);
                             stored.event_sequence = 7;
                             stored.event_offset = int64_t{1} << 40;
                             stored.checkpoint_step = 30;
                             stored.crashes = 2;
                             stored.stop_requested = true;
                             return absl::OkStatus();
                           })
                  .ok());
  Reopen();
  job.set_state(v1::Job::RUNNING);
  const auto back = store_->Get("jobs/x");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->job.SerializeAsString(), job.SerializeAsString());
  EXPECT_EQ(back->queue_us, 1000000000);
  EXPECT_EQ(back->event_sequence, 7);
  EXPECT_EQ(back->event_offset, int64_t{1} << 40);
  EXPECT_EQ(back->checkpoint_step, 30);
  EXPECT_EQ(back->crashes, 2);
  EXPECT_TRUE(back->stop_requested);
  const auto inputs = store_->Inputs("jobs/x");
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  EXPECT_EQ(inputs->training, (Ids{"volumes/b", "volumes/a"}));
  EXPECT_EQ(inputs->validation, Ids{"volumes/c"});
  EXPECT_EQ(inputs->initial_model, "models/m");
}

TEST_F(JobStoreTest, ARefusedChangeLeavesTheJobAsItWas) {
  Add(JobNamed("x", 1));
  const auto refused = store_->Update("jobs/x", [](StoredJob& stored) {
    stored.job.set_state(v1::Job::FAILED);
    return absl::AbortedError("no");
  });
  EXPECT_TRUE(absl::IsAborted(refused.status()));
  EXPECT_EQ(store_->Get("jobs/x")->job.state(), v1::Job::QUEUED);
}

TEST_F(JobStoreTest, TheSameCreationMakesOneJob) {
  const JobInputs inputs = {{"volumes/a", "volumes/b"}, {}, ""};
  ASSERT_TRUE(store_->Add(JobNamed("x", 1), inputs, {"request", "digest"}).ok());
  EXPECT_EQ(store_->Add(JobNamed("y", 2), inputs, {"request", "digest"})->name(), "jobs/x");
  EXPECT_EQ(ReasonOf(store_->Add(JobNamed("z", 3), inputs, {"request", "other"}).status()),
            "REQUEST_ID_REUSED");
  EXPECT_EQ(store_->Totals()->queued, 1);
}

TEST_F(JobStoreTest, AnInputThatIsGoneIsALostRace) {
  const auto added = store_->Add(JobNamed("x", 1), {{"volumes/a", "volumes/gone"}, {}, ""}, {});
  EXPECT_TRUE(absl::IsAborted(added.status())) << added.status();
  EXPECT_EQ(ReasonOf(added.status()), "INPUT_DELETED");
  EXPECT_EQ(store_->Totals()->queued, 0);
}

TEST_F(JobStoreTest, WhatAJobNeedsStaysUntilTheJobHasEnded) {
  Add(JobNamed("x", 1), {{"volumes/a"}, {"volumes/b"}, "models/m"});
  for (const auto state : {v1::Job::QUEUED, v1::Job::RUNNING}) {
    SetState("jobs/x", state);
    EXPECT_EQ(ReasonOf(metadata_->DeleteVolume("volumes/a").status()), "VOLUME_IN_USE");
    EXPECT_EQ(ReasonOf(metadata_->DeleteVolume("volumes/b").status()), "VOLUME_IN_USE");
    EXPECT_EQ(ReasonOf(metadata_->DeleteModel("models/m").status()), "MODEL_IN_USE");
  }
  EXPECT_TRUE(metadata_->DeleteVolume("volumes/c").ok());
  SetState("jobs/x", v1::Job::CANCELLED);
  EXPECT_TRUE(metadata_->DeleteVolume("volumes/a").ok());
  EXPECT_TRUE(metadata_->DeleteModel("models/m").ok());
}

TEST_F(JobStoreTest, OnlyAJobThatHasEndedIsDeleted) {
  const JobInputs inputs = {{"volumes/a", "volumes/b"}, {}, ""};
  ASSERT_TRUE(store_->Add(JobNamed("x", 1), inputs, {"request", "digest"}).ok());
  EXPECT_EQ(ReasonOf(store_->Delete("jobs/x")), "JOB_RUNNING");
  SetState("jobs/x", v1::Job::FAILED);
  EXPECT_TRUE(store_->Delete("jobs/x").ok());
  EXPECT_EQ(ReasonOf(store_->Delete("jobs/x")), "JOB_NOT_FOUND");
  EXPECT_EQ(ReasonOf(store_->Get("jobs/x").status()), "JOB_NOT_FOUND");
  EXPECT_TRUE(store_->Ids()->empty());
  EXPECT_TRUE(store_->Inputs("jobs/x")->training.empty());
  EXPECT_TRUE(store_->Add(JobNamed("y", 2), inputs, {"request", "other"}).ok());
}

TEST_F(JobStoreTest, ListsByStateNameAndTime) {
  for (const char* id : {"c", "a", "b"}) Add(JobNamed(id, id[0]));
  SetState("jobs/a", v1::Job::RUNNING);
  EXPECT_EQ(Matching(""), (Ids{"c", "b", "a"}));
  EXPECT_EQ(Matching("", "create_time"), (Ids{"a", "b", "c"}));
  EXPECT_EQ(Matching("state = RUNNING"), Ids{"a"});
  EXPECT_EQ(Matching("state != RUNNING AND display_name = \"name of b\""), Ids{"b"});
  EXPECT_EQ(Matching("create_time > \"1970-01-01T00:01:38Z\""), Ids{"c"});
  v1::ListJobsRequest request;
  for (const char* wrong : {"state = SLEEPING", "tags:x", "state > QUEUED"}) {
    request.set_filter(wrong);
    EXPECT_TRUE(absl::IsInvalidArgument(store_->List(request).status())) << wrong;
  }
  request.clear_filter();
  request.set_order_by("display_name");
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List(request).status()));
}

TEST_F(JobStoreTest, ListsInPagesOfAtMostAMebibyte) {
  v1::Job large = JobNamed("", 1);
  for (int i = 0; i < 5000; ++i)
    large.mutable_spec()->mutable_data()->add_volumes(
        absl::StrCat("volumes/", std::string(28, 'x'), i));
  for (int i = 0; i < 8; ++i) {
    large.set_name(absl::StrCat("jobs/j", i));
    Add(large);
  }
  v1::ListJobsRequest request;
  std::set<std::string> seen;
  do {
    const auto page = store_->List(request);
    ASSERT_TRUE(page.ok()) << page.status();
    v1::ListJobsResponse message;
    for (const v1::Job& job : page->jobs) {
      *message.add_jobs() = job;
      EXPECT_TRUE(seen.insert(job.name()).second);
    }
    EXPECT_LE(message.ByteSizeLong(), size_t{1} << 20);
    request.set_page_token(page->next_page_token);
  } while (!request.page_token().empty());
  EXPECT_EQ(seen.size(), 8u);
}

TEST_F(JobStoreTest, WhoWaitsLongestIsNext) {
  for (const char* id : {"c", "a", "b"}) Add(JobNamed(id, id[0]));
  ASSERT_TRUE(store_
                  ->Update("jobs/a",
                           [](StoredJob& stored) {
                             stored.queue_us = int64_t{1} << 50;  // resumed later
                             return absl::OkStatus();
                           })
                  .ok());
  EXPECT_EQ(*store_->InState(v1::Job::QUEUED, 2), (Ids{"jobs/b", "jobs/c"}));
  EXPECT_EQ(*store_->InState(v1::Job::QUEUED, 9), (Ids{"jobs/b", "jobs/c", "jobs/a"}));
  EXPECT_TRUE(store_->InState(v1::Job::RUNNING, 9)->empty());
}

TEST_F(JobStoreTest, ItsGenerationTellsWhetherAnythingChanged) {
  const int64_t before = store_->generation();
  Add(JobNamed("x", 1));
  const int64_t added = store_->generation();
  EXPECT_GT(added, before);
  EXPECT_TRUE(store_->Get("jobs/x").ok());
  EXPECT_EQ(store_->generation(), added);
  SetState("jobs/x", v1::Job::CANCELLED);
  EXPECT_GT(store_->generation(), added);
}

}  // namespace
}  // namespace gvsl
