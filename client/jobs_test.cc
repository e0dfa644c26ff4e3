// The job calls of the client library against a JobService in this process.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "client/client.h"
#include "client/fake_job_service.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

const grpc::Status kDown(grpc::StatusCode::UNAVAILABLE, "the server restarts");
const grpc::Status kStopping(grpc::StatusCode::CANCELLED, "");

class JobsTest : public ::testing::Test {
 protected:
  // The sequence numbers that a watch tells, and how often the record.
  absl::Status Watch(int64_t after = 0, int most = 1000) {
    return client_.WatchJob("jobs/a", after, [&](const v1::WatchJobResponse& part) {
      if (part.has_job()) ++records_;
      if (part.has_event()) told_.push_back(part.event().sequence());
      return static_cast<int>(told_.size()) < most;
    });
  }
  absl::StatusOr<std::string> Log(int64_t offset) {
    v1::StreamJobLogsRequest request;
    request.set_name("jobs/a");
    request.set_offset(offset);
    std::string text;
    absl::Status status =
        client_.StreamJobLogs(request, [&](const v1::StreamJobLogsResponse& part) {
          EXPECT_EQ(part.offset(), offset + static_cast<int64_t>(text.size()));
          text += part.data();
          return true;
        });
    if (!status.ok()) return status;
    return text;
  }
  absl::Status Download(const std::string& path) {
    v1::DownloadJobArtifactRequest request;
    request.set_name("jobs/a");
    request.set_path(path);
    return client_.DownloadJobArtifact(request, folder_ / "file", nullptr).status();
  }

  FakeJobService service_;
  Client client_{{service_.address}};
  TemporaryFolder folder_;
  std::vector<int64_t> told_;
  int records_ = 0;
};

TEST_F(JobsTest, ACreationIsNamedSoThatTryingAgainMakesOneJob) {
  ASSERT_TRUE(client_.GetJob("jobs/a").ok());  // the server is there
  service_.failures = {kDown};
  ASSERT_TRUE(client_.CreateJob({}).ok());
  ASSERT_EQ(service_.created.size(), 2u);
  EXPECT_NE(service_.created[0].request_id(), "");
  EXPECT_EQ(service_.created[1].request_id(), service_.created[0].request_id());
}

TEST_F(JobsTest, ACreationKeepsTheNameThatItsCallerGave) {
  v1::CreateJobRequest request;
  request.set_request_id("mine");
  ASSERT_TRUE(client_.CreateJob(request).ok());
  EXPECT_EQ(service_.created[0].request_id(), "mine");
}

TEST_F(JobsTest, AListIsReadPageByPageUpToItsLimit) {
  service_.jobs_listed = 8;
  EXPECT_EQ(client_.ListJobs({}, 0)->size(), 8u);
  EXPECT_EQ(client_.ListJobs({}, 4)->size(), 4u);
}

TEST_F(JobsTest, CancelResumeAndDeleteNameTheJob) {
  ASSERT_TRUE(client_.CancelJob("jobs/a").ok());
  ASSERT_TRUE(client_.ResumeJob("jobs/a").ok());
  ASSERT_TRUE(client_.DeleteJob("jobs/a").ok());
  EXPECT_EQ(service_.names,
            (std::vector<std::string>{"cancel jobs/a", "resume jobs/a", "delete jobs/a"}));
}

TEST_F(JobsTest, AWatchTellsTheRecordAndEveryEventInOrder) {
  for (int step : {10, 20, 30}) service_.AddStep(step);
  ASSERT_TRUE(Watch().ok());
  EXPECT_EQ(records_, 1);
  EXPECT_EQ(told_, (std::vector<int64_t>{1, 2, 3}));
}

TEST_F(JobsTest, AWatchBeginsAfterTheSequenceThatIsKnown) {
  for (int step : {10, 20, 30}) service_.AddStep(step);
  ASSERT_TRUE(Watch(2).ok());
  EXPECT_EQ(told_, (std::vector<int64_t>{3}));
}

TEST_F(JobsTest, AWatchThatIsCutGoesOnAfterTheLastEventAlsoAsTheFirstCallOfAClient) {
  for (int step = 1; step <= 6; ++step) service_.AddStep(step);
  service_.cuts = {{3, kDown}, {0, kDown}, {2, kStopping}};
  const absl::Status status = Watch();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(told_, (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
  ASSERT_EQ(service_.watched.size(), 4u);
  EXPECT_EQ(service_.watched[1].after_sequence(), 2);
  EXPECT_EQ(service_.watched[3].after_sequence(), 3);
}

TEST_F(JobsTest, AWatchThatEndsBeforeItsJobIsOpenedAgain) {
  service_.AddStep(1);
  service_.job.set_state(v1::Job::RUNNING);
  int records = 0;
  const absl::Status status = client_.WatchJob("jobs/a", 0, [&](const v1::WatchJobResponse& part) {
    if (part.has_job() && ++records == 2) service_.job.set_state(v1::Job::SUCCEEDED);
    return true;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(records, 3);  // running, running, succeeded
}

TEST_F(JobsTest, AWatchEndsWhenItsReceiverHasEnough) {
  for (int step = 1; step <= 6; ++step) service_.AddStep(step);
  service_.job.set_state(v1::Job::RUNNING);
  service_.wait_for_more = true;
  ASSERT_TRUE(Watch(0, 4).ok());
  EXPECT_EQ(told_.size(), 4u);
}

TEST_F(JobsTest, AnUnknownJobIsNotAskedForAgain) {
  const absl::Status status =
      client_.WatchJob("jobs/b", 0, [](const v1::WatchJobResponse&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(service_.watched.size(), 1u);
}

TEST_F(JobsTest, AServerThatIsNotThereIsToldAtOnce) {
  Client nowhere({"127.0.0.1:1"});
  const absl::Status status =
      nowhere.WatchJob("jobs/a", 0, [](const v1::WatchJobResponse&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Contains(status, "is it running?"));
}

TEST_F(JobsTest, AWatchEndsWhenItsClientIsInterrupted) {
  service_.AddStep(1);
  service_.job.set_state(v1::Job::RUNNING);
  service_.wait_for_more = true;
  const absl::Status status = client_.WatchJob("jobs/a", 0, [&](const v1::WatchJobResponse& part) {
    if (part.has_event()) client_.CancelAll();
    return true;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Contains(status, "interrupted"));
}

TEST_F(JobsTest, EventsOfARunningJobAreThoseToldUntilNow) {
  service_.AddEvent().mutable_started()->set_device("cpu");
  for (int step : {10, 20, 30}) service_.AddStep(step);
  v1::JobEvent& validation = service_.AddEvent();
  validation.mutable_validation()->set_step(30);
  *service_.job.mutable_last_validation() = validation.validation();
  service_.job.set_state(v1::Job::RUNNING);
  service_.wait_for_more = true;
  const auto events = client_.ListJobEvents("jobs/a");
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_EQ(events->size(), 5u);
}

TEST_F(JobsTest, EventsOfAJobThatWaitsAreNone) {
  service_.job.set_state(v1::Job::QUEUED);
  service_.wait_for_more = true;
  const auto events = client_.ListJobEvents("jobs/a");
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_TRUE(events->empty());
}

TEST_F(JobsTest, ALogThatIsCutGoesOnAtTheByteItHad) {
  service_.log = "the first line\nand the second\n";
  service_.cuts = {{2, kDown}, {1, kStopping}};
  const auto text = Log(0);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, service_.log);
  ASSERT_EQ(service_.logs_read.size(), 3u);
  EXPECT_EQ(service_.logs_read[1].offset(), 8);
  EXPECT_EQ(service_.logs_read[2].offset(), 12);
}

TEST_F(JobsTest, ALogBeginsAtTheByteAskedFor) {
  service_.log = "the first line\nand the second\n";
  EXPECT_EQ(*Log(15), "and the second\n");
}

TEST_F(JobsTest, AnArtifactIsWrittenWhole) {
  service_.artifacts["pictures/a.png"] = std::string(12345, 'x') + "end";
  ASSERT_EQ(client_.ListJobArtifacts("jobs/a")->at(0).size_bytes(), 12348);
  service_.cuts = {{5, kDown}};  // tried again from its beginning
  ASSERT_TRUE(Download("pictures/a.png").ok());
  std::stringstream content;
  content << std::ifstream(folder_ / "file", std::ios::binary).rdbuf();
  EXPECT_EQ(content.str(), service_.artifacts["pictures/a.png"]);
}

TEST_F(JobsTest, ADamagedOrCutArtifactLeavesTheOlderFileAlone) {
  service_.artifacts["a"] = std::string(5000, 'x');
  std::ofstream(folder_ / "file") << "older";
  service_.damage_chunks = true;
  EXPECT_EQ(Download("a").code(), absl::StatusCode::kDataLoss);
  service_.damage_chunks = false;
  service_.cuts = {{3, grpc::Status::OK}};  // an end that looks like one
  EXPECT_EQ(Download("a").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Download("b").code(), absl::StatusCode::kNotFound);
  std::string content;
  std::ifstream(folder_ / "file") >> content;
  EXPECT_EQ(content, "older");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
}

}  // namespace
}  // namespace gvsl
