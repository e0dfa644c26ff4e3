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
#include "gvsl/v1/jobs.grpc.pb.h"
#include "gvsl/v1/models.grpc.pb.h"
#include "gvsl/v1/server.grpc.pb.h"
#include "gvsl/v1/similarity.grpc.pb.h"
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

  // Reads a stream that may last for days to its end. `open(context)` asks for it from where it
  // is; `take(message)` has each message and says whether more is wanted. A stream that was cut,
  // also by a server that stops, is opened again by the policy. `complete()` says whether an end
  // without a failure is the true one.
  template <typename Message, typename Open, typename Take, typename Complete>
  absl::Status Follow(Open&& open, Take&& take, Complete&& complete) {
    using Clock = std::chrono::steady_clock;
    RetryPolicy policy(std::random_device{}(), RetryPolicy::kPatientAttempts);
    while (true) {
      const auto begin = Clock::now();
      bool wanted = true;
      absl::Status result = Once([&](grpc::ClientContext& context) {
        auto reader = open(context);
        Message message;
        for (int count = 0; wanted && reader->Read(&message); ++count) {
          if (count == 0) {
            const std::lock_guard<std::mutex> lock(mutex);
            reached = true;
          } else {
            policy.Progressed();  // the first one may be what was known before the cut
          }
          wanted = take(message);
        }
        if (!wanted) context.TryCancel();
        return reader->Finish();
      });
      if (!wanted) return absl::OkStatus();
      if (result.ok() && complete()) return result;
      if (result.ok()) result = absl::UnavailableError("the stream ended early; try again");
      if (Clock::now() - begin > RetryPolicy::kLongest) policy.Progressed();
      if (result.code() == absl::StatusCode::kCancelled) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (cancelled) return result;
        // A server that stops cancels its calls.
        result = absl::UnavailableError(std::string(result.message()));
      }
      if (!WaitToRetry(policy, result)) return result;
    }
  }

  const ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::VolumeService::Stub> volumes;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<v1::FeatureService::Stub> features;
  std::unique_ptr<v1::SimilarityService::Stub> similarity;
  std::unique_ptr<v1::JobService::Stub> jobs;
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
// A creation is named, so that trying it again after a cut connection makes nothing twice.
std::string NewRequestId();
// The delay that RetryInfo names.
std::optional<std::chrono::milliseconds> RetryDelayOf(const absl::Status& status);

}  // namespace gvsl

#endif  // GVSL_CLIENT_CHANNEL_H_
