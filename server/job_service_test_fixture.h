// What the tests of JobService share: a real server over the test's trainer, and its client's
// calls.
#ifndef GVSL_SERVER_JOB_SERVICE_TEST_FIXTURE_H_
#define GVSL_SERVER_JOB_SERVICE_TEST_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "server/job_test_fixture.h"

namespace gvsl {

using Messages = std::vector<v1::WatchJobResponse>;

// A server whose trainer takes about two milliseconds a step, and four volumes.
class JobServiceTest : public testing::Test {
 protected:
  void Start(const std::string& faults = "", int drain_timeout_s = 30) {
    service_.reset();
    service_ = std::make_unique<Service>(data_dir_, 64, drain_timeout_s, trainers_.With(faults));
    ASSERT_NE(service_->server, nullptr);
    for (int i = static_cast<int>(volumes_.size()); i < 4; ++i) {
      const Cube cube(16, 1, static_cast<uint32_t>(i + 1));
      v1::Volume made;
      EXPECT_OK(Upload(*service_->volumes, cube.Header(absl::StrCat("v", i)), cube.voxels, &made));
      volumes_.push_back(made.name());
    }
  }
  void TearDown() override {
    service_.reset();
    KillProcesses(data_dir_);
  }
  v1::JobService::Stub& jobs() { return *service_->jobs; }

  v1::CreateJobRequest Request(int64_t steps, const std::string& request_id = "") {
    v1::CreateJobRequest request;
    request.set_request_id(request_id);
    request.mutable_job()->set_display_name("hearts");
    *request.mutable_job()->mutable_spec() = SmallSpec(steps);
    request.mutable_job()->mutable_spec()->mutable_data()->add_volumes(volumes_[0]);
    request.mutable_job()->mutable_spec()->mutable_data()->add_volumes(volumes_[1]);
    return request;
  }
  grpc::Status Create(const v1::CreateJobRequest& request, v1::Job* job) {
    ClientContext context;
    return jobs().CreateJob(&context, request, job);
  }
  std::string Created(int64_t steps) {
    v1::Job job;
    EXPECT_OK(Create(Request(steps), &job));
    return job.name();
  }
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::JobService::Stub::*method)(ClientContext*, const Request&,
                                                                 Response*),
                    const std::string& name, Response* response) {
    Request request;
    request.set_name(name);
    ClientContext context;
    return (jobs().*method)(&context, request, response);
  }
  grpc::Status Get(const std::string& name, v1::Job* job) {
    return Call(&v1::JobService::Stub::GetJob, name, job);
  }
  grpc::Status Cancel(const std::string& name, v1::Job* job) {
    return Call(&v1::JobService::Stub::CancelJob, name, job);
  }
  grpc::Status Resume(const std::string& name, v1::Job* job) {
    return Call(&v1::JobService::Stub::ResumeJob, name, job);
  }
  grpc::Status Delete(const std::string& name) {
    google::protobuf::Empty empty;
    return Call(&v1::JobService::Stub::DeleteJob, name, &empty);
  }
  v1::Job Await(const std::string& name, v1::Job::State state) {
    v1::Job job;
    EXPECT_TRUE(Eventually([&] {
      EXPECT_OK(Get(name, &job));
      return job.state() == state;
    })) << job.ShortDebugString();
    return job;
  }
  void AwaitStep(const std::string& name, int64_t step) {
    v1::Job job;
    EXPECT_TRUE(Eventually([&] {
      EXPECT_OK(Get(name, &job));
      return job.step() >= step;
    })) << job.ShortDebugString();
  }
  grpc::Status Watch(const std::string& name, int64_t after_sequence, Messages* messages) {
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_after_sequence(after_sequence);
    ClientContext context;
    auto reader = jobs().WatchJob(&context, request);
    v1::WatchJobResponse message;
    while (reader->Read(&message)) messages->push_back(message);
    return reader->Finish();
  }
  grpc::Status Log(const std::string& name, int64_t offset, bool follow, std::string* text) {
    v1::StreamJobLogsRequest request;
    request.set_name(name);
    request.set_offset(offset);
    request.set_follow(follow);
    ClientContext context;
    auto reader = jobs().StreamJobLogs(&context, request);
    v1::StreamJobLogsResponse message;
    while (reader->Read(&message)) {
      EXPECT_EQ(message.offset(), offset + static_cast<int64_t>(text->size()));
      *text += message.data();
    }
    return reader->Finish();
  }
  grpc::Status Download(const std::string& name, const std::string& path, std::string* bytes) {
    v1::DownloadJobArtifactRequest request;
    request.set_name(name);
    request.set_path(path);
    ClientContext context;
    auto reader = jobs().DownloadJobArtifact(&context, request);
    v1::DownloadJobArtifactResponse message;
    while (reader->Read(&message)) {
      EXPECT_LE(message.ByteSizeLong(), kMebibyte);
      EXPECT_EQ(ChecksumOf(message.chunk().data()), message.chunk().crc32());
      *bytes += message.chunk().data();
    }
    return reader->Finish();
  }

  const Folder folder_;
  const std::string data_dir_ = folder_.path() + "/data";
  Trainers trainers_{folder_.path()};
  std::unique_ptr<Service> service_;
  std::vector<std::string> volumes_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_SERVICE_TEST_FIXTURE_H_
