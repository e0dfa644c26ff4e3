#include "server/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "server/embedder.h"
#include "server/feature_service.h"
#include "server/job_service.h"
#include "server/job_supervisor.h"
#include "server/log.h"
#include "server/model_service.h"
#include "server/server_service.h"
#include "server/server_state.h"
#include "server/similarity_service.h"
#include "server/volume_service.h"

namespace gvsl {
namespace {

constexpr int kMaxMessageBytes = 2 << 20;  // a message is at most 1 MiB; its envelope counts, too
constexpr int kKeepaliveMs = 30000;
constexpr const char* kServices[] = {"gvsl.v1.VolumeService",  "gvsl.v1.ModelService",
                                     "gvsl.v1.FeatureService", "gvsl.v1.SimilarityService",
                                     "gvsl.v1.JobService",     "gvsl.v1.ServerService"};

JobSupervisor::Options SupervisionOf(const v1::ServerConfig& config) {
  JobSupervisor::Options options;
  options.trainer = config.trainer();
  options.concurrent = config.concurrent_jobs();
  options.restarts = config.job_restarts();
  return options;
}

}  // namespace

struct Server::Impl {
  explicit Impl(std::unique_ptr<ServerState> s)
      : state(std::move(s)),
        volumes(*state),
        models(*state),
        features(*state),
        similarity(*state),
        jobs(*state, pump),
        status(*state) {}

  void SetServing(bool serving) {
    auto* health = server->GetHealthCheckService();
    health->SetServingStatus(serving);
    for (const char* service : kServices) health->SetServingStatus(service, serving);
  }

  std::unique_ptr<ServerState> state;
  VolumeServiceImpl volumes;
  ModelServiceImpl models;
  FeatureServiceImpl features;
  SimilarityServiceImpl similarity;
  StreamPump pump;
  JobServiceImpl jobs;
  ServerServiceImpl status;
  std::unique_ptr<JobSupervisor> supervisor;
  std::unique_ptr<AutoEmbedder> embedder;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

Server::Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const v1::ServerConfig& config) {
  auto state = ServerState::Open(config);
  if (!state.ok()) return state.status();
  std::unique_ptr<Server> server(new Server);
  server->impl_ = std::make_unique<Impl>(*std::move(state));
  Impl& impl = *server->impl_;

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.AddListeningPort(config.listen(), grpc::InsecureServerCredentials(), &impl.port);
  // Without this a second server could share the port, and each would get half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kKeepaliveMs / 3);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.RegisterService(&impl.volumes);
  builder.RegisterService(&impl.models);
  builder.RegisterService(&impl.features);
  builder.RegisterService(&impl.similarity);
  builder.RegisterService(&impl.jobs);
  builder.RegisterService(&impl.status);
  if (config.auto_embed()) {  // before the first call can tell it of a volume
    impl.embedder = std::make_unique<AutoEmbedder>(*impl.state);
    impl.state->volume_added = [&impl](const std::string& volume) { impl.embedder->Added(volume); };
  }
  // A port that is taken is told below, in words; gRPC's own dump of it is not for people.
  gpr_set_log_function([](gpr_log_func_args*) {});
  impl.server = builder.BuildAndStart();
  gpr_set_log_function(nullptr);  // its default again
  if (impl.server == nullptr || impl.port == 0) {
    return absl::UnavailableError(
        absl::StrCat("listen: cannot listen on ", config.listen(),
                     "; is the port in use, or the address not this machine's?"));
  }
  impl.supervisor = std::make_unique<JobSupervisor>(*impl.state, SupervisionOf(config));
  impl.SetServing(true);
  LogInfo(absl::StrCat("gvsld ", GVSL_VERSION, " listens on port ", impl.port, ", device ",
                       impl.state->device, ", ", impl.state->threads, " threads, data in ",
                       config.data_dir()));
  return server;
}

Server::~Server() {
  if (impl_ == nullptr || impl_->server == nullptr) return;
  impl_->server->Shutdown(std::chrono::system_clock::now());
  impl_->server->Wait();
  // gRPC has cancelled the calls; their threads notice at the next window or chunk.
  impl_->state->calls.Drain(std::chrono::hours(24));
  impl_->state->status_calls.Drain(std::chrono::hours(24));
}

int Server::port() const { return impl_->port; }

void Server::Drain() {
  impl_->SetServing(false);
  const int patience = impl_->state->config.drain_timeout_s();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(patience);
  LogInfo(absl::StrCat("draining: running calls and jobs get ", patience, " s"));
  impl_->supervisor->BeginDrain();
  if (impl_->embedder != nullptr) impl_->embedder->Stop();
  impl_->pump.Drain();
  const bool done = impl_->state->calls.Drain(std::chrono::seconds(patience));
  LogInfo(done ? "drained" : "cancelling the calls that still run");
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  if (!impl_->supervisor->FinishDrain(std::max(left, std::chrono::milliseconds(0))))
    LogInfo("jobs are still stopping; the next start finds them");
}

}  // namespace gvsl
