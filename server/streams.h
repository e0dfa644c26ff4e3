// gRPC's callback reactors as plain calls: the handler runs on a thread of CallRunner and reads or
// writes as from a file; the reactions only wake it.
#ifndef GVSL_SERVER_STREAMS_H_
#define GVSL_SERVER_STREAMS_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/call_runner.h"
#include "server/log.h"
#include "server/status.h"

namespace gvsl {

// A client that takes or sends nothing for this long is given up: it would hold a thread, and with
// a dense stream the device.
constexpr std::chrono::seconds kStallLimit{120};

// Runs a handler. What throws (memory is short, say) costs one call and not the server.
template <typename Handler>
absl::Status Guarded(Handler&& handler) {
  try {
    return handler();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("the server has too little memory for this call");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

// A call's status for its client. What only the operator can mend is told in the log, too.
inline grpc::Status Answer(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (status.code() == absl::StatusCode::kInternal || reason == "DISK_FULL" ||
      reason == "STORED_DATA_LOST")
    LogError(std::string(status.message()));
  return ToGrpc(status);
}

// Answers a unary call from a thread of `runner`. `handler` fills the response and returns its
// status.
inline grpc::ServerUnaryReactor* HandleUnary(grpc::CallbackServerContext* context,
                                             CallRunner& runner,
                                             std::function<absl::Status()> handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status started = runner.Start(
      [reactor, handler = std::move(handler)] { reactor->Finish(Answer(Guarded(handler))); });
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
      reader->Finish(Answer(Guarded([&] { return handler(*reader); })));
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
      const absl::Status status = Guarded([&] { return handler(*writer); });
      writer->Settle();
      writer->Finish(Answer(status));
    });
    if (!started.ok()) writer->Finish(ToGrpc(started));
    return writer;
  }

  // Sends a message (its content is taken); returns when the one before it was handed to the
  // transport, so at most one waits. CANCELLED when the client has gone or takes nothing.
  absl::Status Write(Response& response) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!Written(lock)) return absl::CancelledError("the client takes no data");
    if (broken_) return absl::CancelledError("the client has gone");
    std::swap(outgoing_, response);
    writing_ = true;
    lock.unlock();
    this->StartWrite(&outgoing_);
    return absl::OkStatus();
  }

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
    if (changed_.wait_for(lock, kStallLimit, free)) return true;
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
  Response outgoing_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_STREAMS_H_
