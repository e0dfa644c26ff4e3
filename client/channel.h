// The client's calls, one way for all: deadline, cancellation, details of errors, retries.
#ifndef GVSL_CLIENT_CHANNEL_H_
#define GVSL_CLIENT_CHANNEL_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "client/client.h"
#include "client/retry.h"
#include "gvsl/v1/features.grpc.pb.h"
#include "gvsl/v1/models.grpc.pb.h"
#include "gvsl/v1/server.grpc.pb.h"
#include "gvsl/v1/volumes.grpc.pb.h"

namespace gvsl {

struct Client::Impl {
  explicit Impl(const ClientOptions& o);

  // One call: `body` makes it with the context. The status has the server's reason.
  absl::Status Once(const std::function<grpc::Status(grpc::ClientContext&)>& body);
  // The same, tried again by the policy. `body` must be repeatable.
  absl::Status Call(const std::function<grpc::Status(grpc::ClientContext&)>& body);
  // Waits as the policy says after a failure; false when the failure stands, which is CANCELLED
  // after CancelAll.
  bool WaitToRetry(RetryPolicy& policy, absl::Status& failure);

  template <typename Response, typename F>
  absl::StatusOr<Response> Unary(F&& body) {
    Response response;
    absl::Status status = Call([&](grpc::ClientContext& context) {
      response.Clear();
      return body(context, &response);
    });
    if (!status.ok()) return status;
    return response;
  }

  const ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::VolumeService::Stub> volumes;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<v1::FeatureService::Stub> features;
  std::unique_ptr<v1::ServerService::Stub> status;

  std::mutex mutex;
  std::condition_variable changed;
  std::set<grpc::ClientContext*> active;  // guarded by mutex
  bool cancelled = false;                 // guarded by mutex
  bool reached = false;                   // guarded by mutex
};

// A call's failure as a Status: the server's words and reason; for a server that is not there, what
// to do.
absl::Status FromGrpc(const grpc::Status& status, const ClientOptions& options);
// The delay that RetryInfo names.
std::optional<std::chrono::milliseconds> RetryDelayOf(const absl::Status& status);

}  // namespace gvsl

#endif  // GVSL_CLIENT_CHANNEL_H_
