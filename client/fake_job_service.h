// A JobService in this process for tests: tells what a test has given it, and fails where a test
// says so. The real one is tested beside its code and in tests/.
#ifndef GVSL_CLIENT_FAKE_JOB_SERVICE_H_
#define GVSL_CLIENT_FAKE_JOB_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "gvsl/v1/jobs.grpc.pb.h"

namespace gvsl {

// One job, `jobs/a`. Fields are set before its server is asked.
class FakeJobService final : public v1::JobService::Service {
 public:
  FakeJobService() {
    job.set_name("jobs/a");
    job.set_state(v1::Job::SUCCEEDED);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address = absl::StrCat("127.0.0.1:", port);
  }
  ~FakeJobService() override { server_->Shutdown(); }

  // A step event of this number; its losses are all told apart.
  v1::JobEvent& AddStep(int64_t step) {
    v1::JobEvent& event = AddEvent();
    event.mutable_step()->set_step(step);
    event.mutable_step()->mutable_losses()->set_total(1.0 / static_cast<double>(step + 1));
    event.mutable_step()->mutable_losses()->set_similarity(0.5);
    event.mutable_step()->set_steps_per_second(2);
    *job.mutable_last_step() = event.step();
    job.set_step(step);
    return event;
  }
  v1::JobEvent& AddEvent() {
    events.emplace_back().set_sequence(static_cast<int64_t>(events.size()));
    return events.back();
  }

  std::string address;
  v1::Job job;
  int jobs_listed = 1;  // copies of it in ListJobs
  std::vector<v1::JobEvent> events;
  std::string log;
  std::map<std::string, std::string> artifacts;

  // What the next calls answer in place of their work.
  std::deque<grpc::Status> failures;
  // After how many messages each of the next streams is cut, and how.
  struct Cut {
    int after;
    grpc::Status status;
  };
  std::deque<Cut> cuts;
  bool damage_chunks = false;
  bool wait_for_more = false;  // a watch stays open after the last event

  // What was asked.
  std::vector<v1::CreateJobRequest> created;
  std::vector<v1::WatchJobRequest> watched;
  std::vector<v1::StreamJobLogsRequest> logs_read;
  std::vector<std::string> names;  // of cancel, resume and delete

  grpc::Status CreateJob(grpc::ServerContext*, const v1::CreateJobRequest* request,
                         v1::Job* response) override {
    created.push_back(*request);
    *response = request->job();
    if (!request->validate_only()) response->set_name(job.name());
    return Next();
  }
  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest* request,
                      v1::Job* response) override {
    *response = job;
    return request->name() == job.name() ? Next() : NotFound();
  }
  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override {
    int first = 0;
    (void)absl::SimpleAtoi(request->page_token(), &first);
    const int end = std::min(first + std::min(request->page_size(), 3), jobs_listed);
    for (int i = first; i < end; ++i) *response->add_jobs() = job;
    if (end < jobs_listed) response->set_next_page_token(absl::StrCat(end));
    return Next();
  }
  grpc::Status CancelJob(grpc::ServerContext*, const v1::CancelJobRequest* request,
                         v1::Job* response) override {
    names.push_back("cancel " + request->name());
    *response = job;
    return Next();
  }
  grpc::Status ResumeJob(grpc::ServerContext*, const v1::ResumeJobRequest* request,
                         v1::Job* response) override {
    names.push_back("resume " + request->name());
    *response = job;
    return Next();
  }
  grpc::Status DeleteJob(grpc::ServerContext*, const v1::DeleteJobRequest* request,
                         google::protobuf::Empty*) override {
    names.push_back("delete " + request->name());
    return Next();
  }

  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override {
    watched.push_back(*request);
    if (request->name() != job.name()) return NotFound();
    std::vector<v1::WatchJobResponse> parts(1);
    *parts[0].mutable_job() = job;
    for (const v1::JobEvent& event : events) {
      if (event.sequence() > request->after_sequence())
        *parts.emplace_back().mutable_event() = event;
    }
    grpc::Status status = Send(parts, writer);
    while (status.ok() && wait_for_more && !context->IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return status;
  }
  grpc::Status StreamJobLogs(grpc::ServerContext*, const v1::StreamJobLogsRequest* request,
                             grpc::ServerWriter<v1::StreamJobLogsResponse>* writer) override {
    logs_read.push_back(*request);
    std::vector<v1::StreamJobLogsResponse> parts;
    // In blocks of four, as they lie in the file: a resumed one may begin before its offset.
    for (size_t at = static_cast<size_t>(request->offset()) / 4 * 4; at < log.size(); at += 4) {
      parts.emplace_back().set_offset(static_cast<int64_t>(at));
      parts.back().set_data(log.substr(at, 4));
    }
    return Send(parts, writer);
  }
  grpc::Status ListJobArtifacts(grpc::ServerContext*, const v1::ListJobArtifactsRequest*,
                                v1::ListJobArtifactsResponse* response) override {
    for (const auto& [path, content] : artifacts) {
      response->add_artifacts()->set_path(path);
      response->mutable_artifacts()->rbegin()->set_size_bytes(static_cast<int64_t>(content.size()));
    }
    return Next();
  }
  grpc::Status DownloadJobArtifact(
      grpc::ServerContext*, const v1::DownloadJobArtifactRequest* request,
      grpc::ServerWriter<v1::DownloadJobArtifactResponse>* writer) override {
    const auto found = artifacts.find(request->path());
    if (found == artifacts.end()) return NotFound();
    const std::string& content = found->second;
    std::vector<v1::DownloadJobArtifactResponse> parts(1);
    parts[0].mutable_artifact()->set_path(request->path());
    parts[0].mutable_artifact()->set_size_bytes(static_cast<int64_t>(content.size()));
    for (size_t at = 0; at < content.size(); at += 1000) {
      v1::Chunk& chunk = *parts.emplace_back().mutable_chunk();
      chunk.set_data(content.substr(at, 1000));
      chunk.set_crc32(ChecksumOf(chunk.data()) ^ (damage_chunks ? 1u : 0u));
    }
    return Send(parts, writer);
  }

 private:
  static grpc::Status NotFound() { return {grpc::StatusCode::NOT_FOUND, "there is no such job"}; }

  grpc::Status Next() {
    if (failures.empty()) return grpc::Status::OK;
    grpc::Status status = failures.front();
    failures.pop_front();
    return status;
  }

  template <typename Part>
  grpc::Status Send(const std::vector<Part>& parts, grpc::ServerWriter<Part>* writer) {
    Cut cut{static_cast<int>(parts.size()), grpc::Status::OK};
    if (!cuts.empty()) {
      cut = cuts.front();
      cuts.pop_front();
    }
    for (int i = 0; i < std::min(cut.after, static_cast<int>(parts.size())); ++i) {
      if (!writer->Write(parts[static_cast<size_t>(i)])) break;
    }
    return cut.status;
  }

  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gvsl

#endif  // GVSL_CLIENT_FAKE_JOB_SERVICE_H_
