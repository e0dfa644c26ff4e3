#include "server/job_service.h"

#include <future>
#include <set>

#include "server/job_service_test_fixture.h"

namespace gvsl {
namespace {

TEST_F(JobServiceTest, ACreatedJobHasItsSpecWholeAndItsEstimate) {
  Start();
  v1::Job job;
  ASSERT_OK(Create(Request(20), &job));
  EXPECT_EQ(job.state(), v1::Job::QUEUED);
  EXPECT_EQ(job.display_name(), "hearts");
  EXPECT_EQ(job.spec().optimization().learning_rate(), 1e-4);
  EXPECT_EQ(job.total_steps(), 20);
  EXPECT_EQ(job.training_volume_count(), 2);
  EXPECT_EQ(job.data_sha256().size(), 64u);
  EXPECT_GT(job.estimate().memory_bytes(), 0);
  EXPECT_GT(job.estimate().disk_bytes(), 0);
  const v1::Job done = Await(job.name(), v1::Job::SUCCEEDED);
  v1::GetModelRequest get;
  get.set_name(done.model());
  ClientContext context;
  v1::Model model;
  EXPECT_OK(service_->models->GetModel(&context, get, &model));
  EXPECT_EQ(model.display_name(), "hearts");
}

TEST_F(JobServiceTest, EveryWrongFieldIsTold) {
  Start();
  v1::CreateJobRequest request = Request(20);
  request.mutable_job()->mutable_spec()->mutable_data()->set_crop(33);
  request.mutable_job()->mutable_spec()->mutable_data()->set_volumes(1, "volumes/none");
  v1::Job job;
  const grpc::Status status = Create(request, &job);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  std::set<std::string> fields;
  const auto bad = DetailOf<google::rpc::BadRequest>(status);
  for (const auto& violation : bad.field_violations()) fields.insert(violation.field());
  EXPECT_EQ(fields, (std::set<std::string>{"job.spec.data.crop", "job.spec.data.volumes[1]",
                                           "job.spec.data.volumes"}));
  EXPECT_EQ(FieldOf(Create(Request(20, "not an id"), &job)), "request_id");
}

TEST_F(JobServiceTest, WhatTheServerHasNotTheMemoryForIsRefused) {
  Start();
  v1::CreateJobRequest request = Request(20);
  request.mutable_job()->mutable_spec()->mutable_data()->set_crop(256);
  request.mutable_job()->mutable_spec()->mutable_optimization()->set_batch_size(4096);
  v1::Job job;
  const grpc::Status status = Create(request, &job);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "JOB_TOO_LARGE");
  const auto bad = DetailOf<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(0).field(), "job.spec.data.crop");
  EXPECT_EQ(bad.field_violations(1).field(), "job.spec.optimization.batch_size");
}

TEST_F(JobServiceTest, ValidatingAloneQueuesNothing) {
  Start();
  v1::CreateJobRequest request = Request(20, "request");
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_OK(Create(request, &job));
  EXPECT_EQ(job.name(), "");
  EXPECT_GT(job.estimate().memory_bytes(), 0);
  EXPECT_EQ(service_->Status().queued_jobs() + service_->Status().running_jobs(), 0);
}

TEST_F(JobServiceTest, OneRequestSentManyTimesMakesOneJob) {
  Start();
  std::vector<std::future<std::string>> names;
  for (int i = 0; i < 4; ++i) {
    names.push_back(std::async(std::launch::async, [&] {
      v1::Job job;
      EXPECT_OK(Create(Request(20, "request"), &job));
      return job.name();
    }));
  }
  const std::string name = names[0].get();
  for (size_t i = 1; i < names.size(); ++i) EXPECT_EQ(names[i].get(), name);
  v1::Job job;
  const grpc::Status reused = Create(Request(30, "request"), &job);
  EXPECT_EQ(reused.error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(ReasonOf(reused), "REQUEST_ID_REUSED");
}

TEST_F(JobServiceTest, JobsAreListedAndCounted) {
  Start();
  const std::string running = Created(100000), waiting = Created(100000);
  Await(running, v1::Job::RUNNING);
  EXPECT_EQ(service_->Status().running_jobs(), 1);
  EXPECT_EQ(service_->Status().queued_jobs(), 1);
  v1::ListJobsRequest request;
  request.set_filter("state = QUEUED");
  ClientContext one, two;
  v1::ListJobsResponse page;
  ASSERT_OK(jobs().ListJobs(&one, request, &page));
  ASSERT_EQ(page.jobs_size(), 1);
  EXPECT_EQ(page.jobs(0).name(), waiting);
  request.set_filter("state = ASLEEP");
  EXPECT_EQ(FieldOf(jobs().ListJobs(&two, request, &page)), "filter");
}

TEST_F(JobServiceTest, ACancelledJobGoesOnWhenItIsResumed) {
  Start("--step_ms=10");
  v1::Job job;
  const std::string name = Created(60), waiting = Created(60);
  AwaitStep(name, 12);
  ASSERT_OK(Cancel(waiting, &job));
  EXPECT_EQ(job.state(), v1::Job::CANCELLED);
  ASSERT_OK(Cancel(name, &job));
  Await(name, v1::Job::CANCELLED);
  EXPECT_OK(Cancel(name, &job));  // cancelling a cancelled job does nothing
  ASSERT_OK(Resume(name, &job));
  EXPECT_EQ(job.state(), v1::Job::QUEUED);
  EXPECT_OK(Resume(name, &job));  // as a client whose first answer was lost does
  Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(BeginningsOf(data_dir_, name).size(), 2u);
  EXPECT_GE(BeginningsOf(data_dir_, name)[1], 12);
  const grpc::Status finished = Cancel(name, &job);
  EXPECT_EQ(finished.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(finished), "JOB_FINISHED");
  EXPECT_EQ(ReasonOf(Resume(name, &job)), "JOB_NOT_RESUMABLE");
}

TEST_F(JobServiceTest, ACancelledJobThatIsQueuedIsStoppedWhereAProcessIsAtWorkAllTheSame) {
  Start();
  const std::string running = Created(100000), queued = Created(100000);
  AwaitStep(running, 1);
  fs::create_directories(data_dir_ + "/" + queued);
  // As of a server that died before its process had taken the lock.
  const Holder process(data_dir_ + "/" + queued);
  v1::Job job;
  ASSERT_OK(Cancel(queued, &job));
  EXPECT_EQ(job.state(), v1::Job::RUNNING) << "until its process has left";
  EXPECT_EQ(ReasonOf(Resume(queued, &job)), "JOB_NOT_RESUMABLE");
  Await(queued, v1::Job::CANCELLED);
  EXPECT_EQ(ProcessOf(data_dir_, queued), 0);
}

TEST_F(JobServiceTest, WhatAJobNeedsCannotBeDeletedBeforeItHasEnded) {
  Start("--step_ms=10");
  const std::string name = Created(100000);
  AwaitStep(name, 1);
  v1::DeleteVolumeRequest drop;
  drop.set_name(volumes_[0]);
  ClientContext one, two;
  google::protobuf::Empty empty;
  const grpc::Status in_use = service_->volumes->DeleteVolume(&one, drop, &empty);
  EXPECT_EQ(in_use.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(in_use), "VOLUME_IN_USE");
  EXPECT_NE(in_use.error_message().find(name), std::string::npos);
  const grpc::Status running = Delete(name);
  EXPECT_EQ(running.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(running), "JOB_RUNNING");
  v1::Job job;
  ASSERT_OK(Cancel(name, &job));
  Await(name, v1::Job::CANCELLED);
  EXPECT_OK(service_->volumes->DeleteVolume(&two, drop, &empty));
  const grpc::Status resumed = Resume(name, &job);
  EXPECT_EQ(ReasonOf(resumed), "JOB_NOT_RESUMABLE");
  EXPECT_NE(resumed.error_message().find(volumes_[0]), std::string::npos);
  EXPECT_TRUE(fs::exists(data_dir_ + "/" + name));
  EXPECT_OK(Delete(name));
  EXPECT_FALSE(fs::exists(data_dir_ + "/" + name));
  EXPECT_EQ(ReasonOf(Get(name, &job)), "JOB_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Delete(name)), "JOB_NOT_FOUND");
}

}  // namespace
}  // namespace gvsl
