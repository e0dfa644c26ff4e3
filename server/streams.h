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
#include <utility>

#include "absl/status/status.h"
#include "server/call_runner.h"
#include "server/status.h"

namespace gvsl {

// A client that takes nothing for this long is given up: it would hold the device (dense streams).
constexpr std::chrono::seconds kStallLimit{120};

// Answers a unary call from a thread of `runner`. `handler` fills the response and returns its
// status.
inline grpc::ServerUnaryReactor* HandleUnary(grpc::CallbackServerContext* context,
                                             CallRunner& runner,
                                             std::function<absl::Status()> handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status started =
      runner.Start([reactor, handler = std::move(handler)] { reactor->Finish(ToGrpc(handler())); });
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
    const absl::Status started = runner.Start(
        [reader, handler = std::move(handler)] { reader->Finish(ToGrpc(handler(*reader))); });
    if (!started.ok()) reader->Finish(ToGrpc(started));
    return reader;
  }

  // The next message; false at the end, or when the client has gone. The next one is received
  // meanwhile.
  bool Read(Request& request) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return arrived_ || ended_; });
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
  static grpc::ServerWriteReactor<Response>* Start(CallRunner& runner, Handler handler) {
    auto* writer = new StreamWriter;
    const absl::Status started = runner.Start([writer, handler = std::move(handler)] {
      absl::Status status = handler(*writer);
      writer->Settle();
      writer->Finish(ToGrpc(status));
    });
    if (!started.ok()) writer->Finish(ToGrpc(started));
    return writer;
  }

  // Sends a message (its content is taken); returns when the one before it was handed to the
  // transport, so at most one waits. CANCELLED when the client has gone or takes nothing.
  absl::Status Write(Response& response) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_for(lock, kStallLimit, [this] { return !writing_; })) {
      return absl::CancelledError("the client takes no data");
    }
    if (broken_) return absl::CancelledError("the client has gone");
    std::swap(outgoing_, response);
    writing_ = true;
    lock.unlock();
    this->StartWrite(&outgoing_);
    return absl::OkStatus();
  }

 private:
  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    broken_ = broken_ || !ok;
    changed_.notify_all();
  }
  void OnDone() override { delete this; }
  void Settle() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kStallLimit, [this] { return !writing_; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool writing_ = false, broken_ = false;
  Response outgoing_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_STREAMS_H_
