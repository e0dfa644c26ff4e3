#include "server/job_service.h"

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"
#include "server/chunks.h"
#include "server/job_capacity.h"
#include "server/job_estimate.h"
#include "server/job_feeds.h"
#include "server/job_folder.h"
#include "server/job_spec.h"
#include "server/names.h"
#include "server/streams.h"

namespace gvsl {
namespace {

constexpr size_t kMostListBytes = (1 << 20) - 4096;

JobInputs InputsOf(const ResolvedJob& resolved) {
  JobInputs inputs;
  for (const v1::Volume& volume : resolved.data.training) inputs.training.push_back(volume.name());
  for (const v1::Volume& volume : resolved.data.validation)
    inputs.validation.push_back(volume.name());
  inputs.initial_model = resolved.initial_model;
  return inputs;
}

absl::Status Create(ServerState& state, const v1::CreateJobRequest& request, v1::Job* response) {
  if (!request.request_id().empty()) {
    if (absl::Status status = CheckRequestId(request.request_id(), "request_id"); !status.ok())
      return status;
  }
  v1::Job asked;
  asked.set_display_name(request.job().display_name());
  *asked.mutable_spec() = request.job().spec();
  const Creation creation = {request.request_id(), Sha256Of(asked.SerializeAsString())};
  if (!creation.request_id.empty() && !request.validate_only()) {
    // What it was asked for then may be wrong by now: its volumes may be gone.
    auto made = state.metadata->FindCreation("jobs", creation);
    if (!made.ok()) return made.status();
    if (made->has_value()) {
      auto stored = state.jobs->Get(**made);
      if (stored.ok()) *response = std::move(stored->job);
      return stored.status();
    }
  }
  const JobCapacity capacity = CapacityOf(state);
  auto resolved = ResolveJob(asked, *state.metadata, capacity.cuda_devices);
  if (!resolved.ok()) return resolved.status();
  const v1::JobEstimate estimate = EstimateJob(*resolved, capacity);
  if (absl::Status status = CheckFits(*resolved, estimate, capacity); !status.ok()) return status;
  v1::Job job;
  job.set_display_name(asked.display_name());
  *job.mutable_spec() = resolved->spec;
  *job.mutable_estimate() = estimate;
  job.set_total_steps(resolved->spec.optimization().steps());
  job.set_training_volume_count(static_cast<int32_t>(resolved->data.training.size()));
  job.set_validation_volume_count(static_cast<int32_t>(resolved->data.validation.size()));
  job.set_data_sha256(resolved->data.sha256);
  if (request.validate_only()) {
    *response = std::move(job);
    return absl::OkStatus();
  }
  job.set_name("jobs/" + NewId());
  job.set_state(v1::Job::QUEUED);
  *job.mutable_create_time() = Now();
  auto added = state.jobs->Add(job, InputsOf(*resolved), creation);
  if (!added.ok()) return added.status();
  *response = *std::move(added);
  return absl::OkStatus();
}

absl::Status Cancel(ServerState& state, const std::string& name, v1::Job* response) {
  auto updated = state.jobs->Update(name, [&](StoredJob& stored) -> absl::Status {
    switch (stored.job.state()) {
      case v1::Job::QUEUED:
        // A process that had not taken its lock yet when an earlier server died was taken for dead;
        // the supervisor stops it.
        if (JobFolder(state.config.data_dir(), name).LockHolder().value_or(0) != 0) {
          stored.job.set_state(v1::Job::RUNNING);
          stored.stop_requested = true;
          return absl::OkStatus();
        }
        stored.job.set_state(v1::Job::CANCELLED);
        *stored.job.mutable_end_time() = Now();
        return absl::OkStatus();
      case v1::Job::RUNNING:
        stored.stop_requested = true;  // the supervisor does the rest
        return absl::OkStatus();
      case v1::Job::CANCELLED:
        return absl::OkStatus();
      default:
        return WithReason(absl::FailedPreconditionError(name + " has come to its end already"),
                          "JOB_FINISHED");
    }
  });
  if (updated.ok()) *response = std::move(updated->job);
  return updated.status();
}

absl::Status Resume(ServerState& state, const std::string& name, v1::Job* response) {
  const auto refuse = [&](const std::string& why) {
    return WithReason(absl::FailedPreconditionError(name + why), "JOB_NOT_RESUMABLE");
  };
  auto inputs = state.jobs->Inputs(name);
  if (!inputs.ok()) return inputs.status();
  inputs->training.insert(inputs->training.end(), inputs->validation.begin(),
                          inputs->validation.end());
  for (const std::string& volume : inputs->training) {
    if (absl::IsNotFound(state.metadata->GetVolume(volume).status()))
      return refuse(absl::StrCat(" needs ", volume, ", which was deleted"));
  }
  if (!inputs->initial_model.empty() &&
      absl::IsNotFound(state.metadata->GetModel(inputs->initial_model).status())) {
    return refuse(absl::StrCat(" needs ", inputs->initial_model, ", which was deleted"));
  }
  auto updated = state.jobs->Update(name, [&](StoredJob& stored) -> absl::Status {
    v1::Job& job = stored.job;
    const bool runs = job.state() == v1::Job::RUNNING && !stored.stop_requested;
    if (runs || job.state() == v1::Job::QUEUED) return absl::OkStatus();  // as asked before
    if (job.state() == v1::Job::RUNNING)
      return refuse(" is being cancelled; resume it once it is CANCELLED");
    if (job.state() != v1::Job::CANCELLED && job.state() != v1::Job::FAILED) {
      return refuse(absl::StrCat(" is ", v1::Job::State_Name(job.state()),
                                 "; only a cancelled or failed job can be resumed"));
    }
    job.set_state(v1::Job::QUEUED);
    job.clear_failure();
    job.clear_end_time();
    stored.crashes = 0;
    stored.stop_requested = false;
    const google::protobuf::Timestamp now = Now();
    stored.queue_us = now.seconds() * 1000000 + now.nanos() / 1000;
    return absl::OkStatus();
  });
  if (updated.ok()) *response = std::move(updated->job);
  return updated.status();
}

absl::Status ListArtifacts(ServerState& state, const std::string& name,
                           v1::ListJobArtifactsResponse* response) {
  auto stored = state.jobs->Get(name);
  if (!stored.ok()) return stored.status();
  size_t bytes = 0;
  for (v1::JobArtifact& artifact : JobFolder(state.config.data_dir(), name).Artifacts()) {
    bytes += artifact.ByteSizeLong() + 8;
    if (bytes > kMostListBytes) {
      return WithReason(absl::ResourceExhaustedError(
                            "the job has more files than one answer can name; they are in its "
                            "folder on the server"),
                        "TOO_MANY_ARTIFACTS");
    }
    *response->add_artifacts() = std::move(artifact);
  }
  return absl::OkStatus();
}

absl::Status Download(ServerState& state, const v1::DownloadJobArtifactRequest& request,
                      StreamWriter<v1::DownloadJobArtifactResponse>& stream) {
  if (auto id = IdOf("jobs", request.name(), "name"); !id.ok()) return id.status();
  if (request.path().empty()) return absl::InvalidArgumentError("path: empty");
  auto stored = state.jobs->Get(request.name());
  if (!stored.ok()) return stored.status();
  auto artifact = JobFolder(state.config.data_dir(), request.name()).Open(request.path());
  if (!artifact.ok()) return artifact.status();
  v1::DownloadJobArtifactResponse response;
  *response.mutable_artifact() = artifact->about();
  if (absl::Status status = stream.Write(response); !status.ok()) return status;
  absl::Status sent =
      SendOpenFile(artifact->file(), request.path(), 0, artifact->about().size_bytes(), stream);
  if (sent.ok() || absl::IsCancelled(sent)) return sent;
  return WithReason(absl::DataLossError(
                        absl::StrCat(request.name(), ": this file of it cannot be read any more")),
                    "STORED_DATA_LOST");
}

}  // namespace

grpc::ServerUnaryReactor* JobServiceImpl::CreateJob(grpc::CallbackServerContext* context,
                                                    const v1::CreateJobRequest* request,
                                                    v1::Job* response) {
  return HandleUnary(context, state_.calls,
                     [this, request, response] { return Create(state_, *request, response); });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(grpc::CallbackServerContext* context,
                                                 const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("jobs", request->name(), "name");
    if (!id.ok()) return id.status();
    auto stored = state_.jobs->Get(request->name());
    if (stored.ok()) *response = std::move(stored->job);
    return stored.status();
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(grpc::CallbackServerContext* context,
                                                   const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto page = state_.jobs->List(*request);
    if (!page.ok()) return page.status();
    for (v1::Job& job : page->jobs) *response->add_jobs() = std::move(job);
    response->set_next_page_token(page->next_page_token);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(grpc::CallbackServerContext* context,
                                                    const v1::CancelJobRequest* request,
                                                    v1::Job* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("jobs", request->name(), "name");
    return id.ok() ? Cancel(state_, request->name(), response) : id.status();
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::ResumeJob(grpc::CallbackServerContext* context,
                                                    const v1::ResumeJobRequest* request,
                                                    v1::Job* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("jobs", request->name(), "name");
    return id.ok() ? Resume(state_, request->name(), response) : id.status();
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(grpc::CallbackServerContext* context,
                                                    const v1::DeleteJobRequest* request,
                                                    google::protobuf::Empty*) {
  return HandleUnary(context, state_.calls, [this, request]() -> absl::Status {
    auto id = IdOf("jobs", request->name(), "name");
    if (!id.ok()) return id.status();
    // The record first: a folder without one is set aside when the server starts.
    if (absl::Status status = state_.jobs->Delete(request->name()); !status.ok()) return status;
    JobFolder(state_.config.data_dir(), request->name()).Remove(state_.ScratchPath());
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobServiceImpl::WatchJob(
    grpc::CallbackServerContext*, const v1::WatchJobRequest* request) {
  return FedStream<v1::WatchJobResponse>::Start(
      pump_, std::make_unique<JobWatchFeed>(*state_.jobs, state_.config.data_dir(), *request));
}

grpc::ServerWriteReactor<v1::StreamJobLogsResponse>* JobServiceImpl::StreamJobLogs(
    grpc::CallbackServerContext*, const v1::StreamJobLogsRequest* request) {
  return FedStream<v1::StreamJobLogsResponse>::Start(
      pump_, std::make_unique<JobLogFeed>(*state_.jobs, state_.config.data_dir(), *request));
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobArtifacts(
    grpc::CallbackServerContext* context, const v1::ListJobArtifactsRequest* request,
    v1::ListJobArtifactsResponse* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("jobs", request->name(), "name");
    return id.ok() ? ListArtifacts(state_, request->name(), response) : id.status();
  });
}

grpc::ServerWriteReactor<v1::DownloadJobArtifactResponse>* JobServiceImpl::DownloadJobArtifact(
    grpc::CallbackServerContext* context, const v1::DownloadJobArtifactRequest* request) {
  using Writer = StreamWriter<v1::DownloadJobArtifactResponse>;
  return Writer::Start(context, state_.calls, [this, request = *request](Writer& stream) {
    return Download(state_, request, stream);
  });
}

}  // namespace gvsl
