#include "server/server_service.h"

#include <filesystem>

#include "server/streams.h"

namespace gvsl {
namespace {

absl::Status Fill(ServerState& state, v1::ServerStatus* response) {
  auto totals = state.metadata->Totals();
  if (!totals.ok()) return totals.status();
  response->set_version(GVSL_VERSION);
  response->set_libtorch_version(LibTorchVersion());
  response->set_device(state.device);
  response->set_threads(state.threads);
  const auto uptime = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::steady_clock::now() - state.start);
  response->mutable_uptime()->set_seconds(uptime.count());
  response->set_volume_count(totals->volumes);
  response->set_model_count(totals->models);
  response->set_stored_bytes(state.blobs->bytes());
  std::error_code error;
  response->set_free_bytes(
      static_cast<int64_t>(std::filesystem::space(state.config.data_dir(), error).available));
  response->set_queue_length(state.engine->queue_length());
  response->set_queue_capacity(state.engine->queue_capacity());
  auto jobs = state.jobs->Totals();
  if (!jobs.ok()) return jobs.status();
  response->set_running_jobs(static_cast<int32_t>(jobs->running));
  response->set_queued_jobs(static_cast<int32_t>(jobs->queued));
  response->set_draining(state.calls.draining());
  auto model = state.metadata->GetModel("models/default");
  if (model.ok()) response->set_default_model(model->model.name());
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* ServerServiceImpl::GetServerStatus(grpc::CallbackServerContext* context,
                                                             const v1::GetServerStatusRequest*,
                                                             v1::ServerStatus* response) {
  return HandleUnary(context, state_.status_calls,
                     [this, response] { return Fill(state_, response); });
}

}  // namespace gvsl
