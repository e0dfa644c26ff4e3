// gRPC's callback reactors as plain calls: the handler runs on a thread of CallRunner and reads or
// writes as from a file; the reactions only wake it.
#ifndef GVSL_SERVER_STREAMS_H_
#define GVSL_SERVER_STREAMS_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/call_runner.h"
#include "server/guarded.h"
#include "server/log.h"
#include "server/stall_budget.h"
#include "server/status.h"

namespace gvsl {

// A call's status for its client. What only the operator can mend is told in the log, too.
inline grpc::Status Answer(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (status.code() == absl::StatusCode::kInternal || reason == "DISK_FULL" ||
      reason == "STORED_DATA_LOST")
    LogError(std::string(status.message()));
  return ToGrpc(status);
}

// Runs a handler on a thread of its own; nothing that it throws leaves.
template <typename Handler>
grpc::Status Answered(Handler&& handler) {
  try {
    return Answer(Guarded(handler));
  } catch (...) {  // not even memory for the words
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "");
  }
}

// True once the client has gone or its deadline has passed.
inline std::function<bool()> CancelledBy(grpc::CallbackServerContext* context) {
  return [context] { return context->IsCancelled(); };
}

// Answers a unary call from a thread of `runner`. `handler` fills the response and returns its
// status.
inline grpc::ServerUnaryReactor* HandleUnary(grpc::CallbackServerContext* context,
                                             CallRunner& runner,
                                             std::function<absl::Status()> handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status started =
      runner.Start([reactor, handler = std::move(handler)] { reactor->Finish(Answered(handler)); });
  if (!started.ok()) reactor->Finish(ToGrpc(started));
  return reactor;
}

// A client's stream. Deletes itself when gRPC is done with it.
template <typename Request>
class StreamReader final : public grpc::ServerReadReactor<Request> {
 public:
  using Handler = std::function<absl::Status(StreamReader&)>;
  static grpc::ServerReadReactor<Request>* Start(CallRunner& runner, Handler handler) {
    auto* reader = new StreamReader;
    reader->StartRead(&reader->incoming_);
    const absl::Status started = runner.Start([reader, handler = std::move(handler)] {
      reader->Finish(Answered([&] { return handler(*reader); }));
    });
    if (!started.ok()) reader->Finish(ToGrpc(started));
    return reader;
  }

  // The next message; false at the end, or when the client has gone or sends nothing. The next one
  // is received meanwhile.
  bool Read(Request& request) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kStallLimit, [this] { return arrived_ || ended_; });
    if (!arrived_) return false;
    std::swap(request, incoming_);
    arrived_ = false;
    lock.unlock();
    this->StartRead(&incoming_);
    return true;
  }

 private:
  void OnReadDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    (ok ? arrived_ : ended_) = true;
    changed_.notify_all();
  }
  void OnDone() override { delete this; }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool arrived_ = false, ended_ = false;
  Request incoming_;
};

// A stream to a client. Deletes itself when gRPC is done with it.
template <typename Response>
class StreamWriter final : public grpc::ServerWriteReactor<Response> {
 public:
  using Handler = std::function<absl::Status(StreamWriter&)>;
  static grpc::ServerWriteReactor<Response>* Start(grpc::CallbackServerContext* context,
                                                   CallRunner& runner, Handler handler) {
    auto* writer = new StreamWriter(context);
    const absl::Status started = runner.Start([writer, handler = std::move(handler)] {
      const grpc::Status status = Answered([&] { return handler(*writer); });
      writer->Settle();
      writer->Finish(status);
    });
    if (!started.ok()) writer->Finish(ToGrpc(started));
    return writer;
  }

  // Sends a message (its content is taken); returns when the one before it was handed to the
  // transport, so at most one waits. CANCELLED when the client has gone or takes nothing, or, while
  // the stream holds the device, takes it too slowly.
  absl::Status Write(Response& response) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!Written(lock)) return absl::CancelledError("the client takes no data, or too slowly");
    if (broken_) return absl::CancelledError("the client has gone");
    std::swap(outgoing_, response);
    writing_ = true;
    lock.unlock();
    this->StartWrite(&outgoing_);
    return absl::OkStatus();
  }
  // The stream holds the device: the client's stalls count together (StallBudget). Between writes.
  void HoldDevice() { budget_.emplace(); }
  void ReleaseDevice() { budget_.reset(); }

 private:
  explicit StreamWriter(grpc::CallbackServerContext* context) : context_(context) {}
  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    broken_ = broken_ || !ok;
    changed_.notify_all();
  }
  void OnDone() override { delete this; }
  // Waits until the transport has the last message; false (and the call is cancelled) if it does
  // not take it.
  bool Written(std::unique_lock<std::mutex>& lock) {
    const auto free = [this] { return !writing_; };
    const auto begin = std::chrono::steady_clock::now();
    if (changed_.wait_for(lock, budget_ ? budget_->left() : kStallLimit, free)) {
      if (budget_)
        budget_->Taken(outgoing_.ByteSizeLong(), std::chrono::steady_clock::now() - begin);
      return true;
    }
    context_->TryCancel();  // the reaction to the write comes now, without the client
    changed_.wait(lock, free);
    return false;
  }
  void Settle() {
    std::unique_lock<std::mutex> lock(mutex_);
    Written(lock);
  }

  grpc::CallbackServerContext* const context_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool writing_ = false, broken_ = false;
  std::optional<StallBudget> budget_;
  Response outgoing_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_STREAMS_H_
