// Pre-training jobs of the client library; declared in client/client.h.
#include <google/protobuf/util/message_differencer.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/job_text.h"
#include "client/wire.h"
#include "imaging/output_file.h"

namespace gvsl {

absl::StatusOr<v1::Job> Client::CreateJob(v1::CreateJobRequest request) {
  if (request.request_id().empty() && !request.validate_only())
    request.set_request_id(NewRequestId());
  return impl_->Unary<v1::Job>([&](grpc::ClientContext& context, v1::Job* response) {
    return impl_->jobs->CreateJob(&context, request, response);
  });
}

absl::StatusOr<v1::Job> Client::GetJob(const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Job>([&](grpc::ClientContext& context, v1::Job* response) {
    return impl_->jobs->GetJob(&context, request, response);
  });
}

absl::StatusOr<std::vector<v1::Job>> Client::ListJobs(v1::ListJobsRequest request, int64_t limit) {
  std::vector<v1::Job> jobs;
  do {
    request.set_page_size(static_cast<int32_t>(
        limit > 0 ? std::min<int64_t>(limit - static_cast<int64_t>(jobs.size()), 1000) : 1000));
    auto page = impl_->Unary<v1::ListJobsResponse>(
        [&](grpc::ClientContext& context, v1::ListJobsResponse* response) {
          return impl_->jobs->ListJobs(&context, request, response);
        });
    if (!page.ok()) return page.status();
    for (v1::Job& job : *page->mutable_jobs()) jobs.push_back(std::move(job));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() &&
           (limit <= 0 || static_cast<int64_t>(jobs.size()) < limit));
  return jobs;
}

absl::StatusOr<v1::Job> Client::CancelJob(const std::string& name) {
  v1::CancelJobRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Job>([&](grpc::ClientContext& context, v1::Job* response) {
    return impl_->jobs->CancelJob(&context, request, response);
  });
}

absl::StatusOr<v1::Job> Client::ResumeJob(const std::string& name) {
  v1::ResumeJobRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Job>([&](grpc::ClientContext& context, v1::Job* response) {
    return impl_->jobs->ResumeJob(&context, request, response);
  });
}

absl::Status Client::DeleteJob(const std::string& name) {
  v1::DeleteJobRequest request;
  request.set_name(name);
  return impl_
      ->Unary<google::protobuf::Empty>(
          [&](grpc::ClientContext& context, google::protobuf::Empty* response) {
            return impl_->jobs->DeleteJob(&context, request, response);
          })
      .status();
}

absl::Status Client::WatchJob(const std::string& name, int64_t after_sequence,
                              const WatchFunction& receive) {
  v1::WatchJobRequest request;
  request.set_name(name);
  request.set_after_sequence(after_sequence);
  v1::Job::State state = v1::Job::STATE_UNSPECIFIED;
  return impl_->Follow<v1::WatchJobResponse>(
      [&](grpc::ClientContext& context) { return impl_->jobs->WatchJob(&context, request); },
      [&](const v1::WatchJobResponse& part) {
        if (part.has_job()) state = part.job().state();
        if (part.has_event()) {
          if (part.event().sequence() <= request.after_sequence()) return true;
          request.set_after_sequence(part.event().sequence());
        }
        return receive(part);
      },
      [&] { return HasEnded(state); });
}

absl::StatusOr<std::vector<v1::JobEvent>> Client::ListJobEvents(const std::string& name) {
  using google::protobuf::util::MessageDifferencer;
  std::vector<v1::JobEvent> events;
  // A watch tells the record first, then every event. Of a job that goes on, those up to the last
  // step and the last validation of that record are what is there now.
  v1::Job now;
  bool step_told = false, validation_told = false;
  absl::Status status = WatchJob(name, 0, [&](const v1::WatchJobResponse& part) {
    if (part.has_job()) {
      if (now.name().empty()) {
        now = part.job();
        step_told = !now.has_last_step();
        validation_told = !now.has_last_validation();
      }
    } else if (part.has_event()) {
      const v1::JobEvent& event = part.event();
      events.push_back(event);
      step_told |= event.has_step() && event.step().step() == now.last_step().step() &&
                   MessageDifferencer::Equals(event.step().losses(), now.last_step().losses());
      validation_told |=
          event.has_validation() && event.validation().step() == now.last_validation().step() &&
          MessageDifferencer::Equals(event.validation().losses(), now.last_validation().losses());
    }
    return HasEnded(now.state()) || !step_told || !validation_told;
  });
  if (!status.ok()) return status;
  return events;
}

absl::Status Client::StreamJobLogs(v1::StreamJobLogsRequest request, const LogFunction& receive) {
  return impl_->Follow<v1::StreamJobLogsResponse>(
      [&](grpc::ClientContext& context) { return impl_->jobs->StreamJobLogs(&context, request); },
      [&](v1::StreamJobLogsResponse& part) {
        // What came before the cut is not told again.
        const int64_t told = std::clamp<int64_t>(request.offset() - part.offset(), 0,
                                                 static_cast<int64_t>(part.data().size()));
        part.mutable_data()->erase(0, static_cast<size_t>(told));
        part.set_offset(part.offset() + told);
        if (part.data().empty()) return true;
        request.set_offset(part.offset() + static_cast<int64_t>(part.data().size()));
        return receive(part);
      },
      [] { return true; });
}

absl::StatusOr<std::vector<v1::JobArtifact>> Client::ListJobArtifacts(const std::string& name) {
  v1::ListJobArtifactsRequest request;
  request.set_name(name);
  auto answer = impl_->Unary<v1::ListJobArtifactsResponse>(
      [&](grpc::ClientContext& context, v1::ListJobArtifactsResponse* response) {
        return impl_->jobs->ListJobArtifacts(&context, request, response);
      });
  if (!answer.ok()) return answer.status();
  return std::vector<v1::JobArtifact>(answer->artifacts().begin(), answer->artifacts().end());
}

absl::StatusOr<v1::JobArtifact> Client::DownloadJobArtifact(
    const v1::DownloadJobArtifactRequest& request, const std::string& path,
    const ProgressFunction& progress) {
  v1::JobArtifact artifact;
  absl::Status local;
  absl::Status status = impl_->Call([&](grpc::ClientContext& context) {
    OutputFile file(path);
    local = file.status();
    artifact.Clear();
    auto reader = impl_->jobs->DownloadJobArtifact(&context, request);
    v1::DownloadJobArtifactResponse message;
    int64_t received = 0;
    while (local.ok() && reader->Read(&message)) {
      if (message.has_artifact()) {
        artifact = message.artifact();
        continue;
      }
      const std::string& data = message.chunk().data();
      local = ChecksumOf(data) == message.chunk().crc32()
                  ? file.Write(data.data(), data.size(), received)
                  : absl::DataLossError("a chunk was damaged on its way; try again");
      received += static_cast<int64_t>(data.size());
      if (progress) progress(received, artifact.size_bytes());
    }
    if (!local.ok()) context.TryCancel();
    grpc::Status result = reader->Finish();
    if (local.ok() && result.ok()) {
      local = received >= artifact.size_bytes()
                  ? file.Commit()
                  : absl::DataLossError("the stream ended early; try again");
    }
    return result;
  });
  if (!local.ok()) return local;
  if (!status.ok()) return status;
  return artifact;
}

}  // namespace gvsl
