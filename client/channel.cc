#include "client/channel.h"

#include <cstdlib>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

constexpr char kRetryUrl[] = "gvsl/retry_ms";

}  // namespace

absl::Status FromGrpc(const grpc::Status& status, const ClientOptions& options) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  google::rpc::Status details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    absl::Status result(code, status.error_message());
    for (const auto& any : details.details()) {
      google::rpc::ErrorInfo info;
      google::rpc::RetryInfo retry;
      if (any.UnpackTo(&info)) result = WithReason(std::move(result), info.reason().c_str());
      if (any.UnpackTo(&retry)) {
        result.SetPayload(kRetryUrl,
                          absl::Cord(absl::StrCat(retry.retry_delay().seconds() * 1000 +
                                                  retry.retry_delay().nanos() / 1000000)));
      }
    }
    return result;
  }
  // Not the server's own words: the transport's.
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return absl::UnavailableError(absl::StrCat("cannot reach gvsld at ", options.server,
                                                 ": is it running? Start it with `gvsld --data_dir "
                                                 "DIR`, or name another one with --server "
                                                 "HOST:PORT or GVSL_SERVER (",
                                                 status.error_message(), ")"));
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return absl::DeadlineExceededError(absl::StrCat("deadline exceeded: no answer within ",
                                                      options.timeout_s,
                                                      " s; allow more with --timeout"));
    case grpc::StatusCode::CANCELLED:
      return absl::CancelledError(
          absl::StrCat("gvsld at ", options.server, " ended the call: it is stopping, try again"));
    default:
      return absl::Status(code, status.error_message());
  }
}

std::string NewRequestId() {
  std::random_device device;
  std::string id;
  for (int i = 0; i < 4; ++i) absl::StrAppend(&id, absl::Hex(device(), absl::kZeroPad8));
  return id;
}

std::optional<std::chrono::milliseconds> RetryDelayOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryUrl);
  if (!payload) return std::nullopt;
  return std::chrono::milliseconds(std::atoll(std::string(*payload).c_str()));
}

Client::Impl::Impl(const ClientOptions& o) : options(o) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(2 << 20);
  // A dead server is noticed within a minute even while nothing is sent.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  // A restarted server is found again soon.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  channel =
      grpc::CreateCustomChannel(options.server, grpc::InsecureChannelCredentials(), arguments);
  volumes = v1::VolumeService::NewStub(channel);
  models = v1::ModelService::NewStub(channel);
  features = v1::FeatureService::NewStub(channel);
  similarity = v1::SimilarityService::NewStub(channel);
  jobs = v1::JobService::NewStub(channel);
  status = v1::ServerService::NewStub(channel);
}

absl::Status Client::Impl::Once(const std::function<grpc::Status(grpc::ClientContext&)>& body) {
  grpc::ClientContext context;
  if (options.timeout_s > 0) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::microseconds(static_cast<int64_t>(options.timeout_s * 1e6)));
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (cancelled) return absl::CancelledError("interrupted");
    active.insert(&context);
  }
  const grpc::Status result = body(context);
  const std::lock_guard<std::mutex> lock(mutex);
  active.erase(&context);
  if (cancelled && !result.ok()) return absl::CancelledError("interrupted");
  const absl::Status status_of_call = FromGrpc(result, options);
  if (status_of_call.code() != absl::StatusCode::kUnavailable) reached = true;
  return status_of_call;
}

bool Client::Impl::WaitToRetry(RetryPolicy& policy, absl::Status& failure) {
  std::unique_lock<std::mutex> lock(mutex);
  const auto delay = policy.Next(failure, reached, RetryDelayOf(failure));
  if (!delay) return false;
  if (!changed.wait_for(lock, *delay, [this] { return cancelled; })) return true;
  failure = absl::CancelledError("interrupted");
  return false;
}

absl::Status Client::Impl::Call(const std::function<grpc::Status(grpc::ClientContext&)>& body) {
  RetryPolicy policy(std::random_device{}());
  while (true) {
    absl::Status result = Once(body);
    if (result.ok() || !WaitToRetry(policy, result)) return result;
  }
}

Client::Client(const ClientOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Client::~Client() = default;

bool Client::cancelled() const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->cancelled;
}

void Client::CancelAll() {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->cancelled = true;
  for (grpc::ClientContext* context : impl_->active) context->TryCancel();
  impl_->changed.notify_all();
}

}  // namespace gvsl
