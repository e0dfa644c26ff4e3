// StreamPump: one thread for all streams that wait for things to happen, however many there are.
//
// StreamWriter gives a stream a thread, which is right for one that sends all the time. Who follows
// a job waits for hours; here a stream is a Feed that is asked for its next message when its client
// has taken the one before, and again four times a second.
#ifndef GVSL_SERVER_STREAM_PUMP_H_
#define GVSL_SERVER_STREAM_PUMP_H_

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "server/streams.h"

namespace gvsl {

// What a stream has to say. Asked by one thread at a time; never waits.
template <typename Response>
class Feed {
 public:
  enum class Step {
    kMessage,  // the response is filled
    kLater,    // nothing for now
    kAgain,    // nothing yet, and there is more to look at
    kEnd,      // all is told
  };
  virtual ~Feed() = default;
  // A status ends the stream.
  virtual absl::StatusOr<Step> Next(Response& response) = 0;
};

// Safe for concurrent use; outlives the gRPC server whose streams it feeds.
class StreamPump {
 public:
  // A stream in the pump's care. All but its constructor is on the pump's thread.
  class Stream {
   public:
    virtual ~Stream() = default;
    // Does what it can without waiting; true to be asked again at once.
    virtual bool Turn() = 0;
    // The status to end with, once it can end. `draining`: it should.
    virtual std::optional<grpc::Status> Ending(bool draining) = 0;
    // Ends. The pump has forgotten the stream, which may be gone when this returns.
    virtual void End(const grpc::Status& status) = 0;
  };

  explicit StreamPump(size_t most = 4096);
  // Waits until gRPC is done with every stream.
  ~StreamPump();

  // RESOURCE_EXHAUSTED (TOO_MANY_CALLS), or UNAVAILABLE (DRAINING): the stream must end itself, and
  // then call Gone all the same.
  absl::Status Add(Stream* stream);
  // Something happened to the stream: it gets a turn soon, if it is in the pump's care.
  void Wake(Stream* stream);
  // gRPC is done with a stream.
  void Gone();
  // From now on streams end (UNAVAILABLE) and none is added.
  void Drain();
  size_t size() const;

 private:
  void Run();
  bool Ready(Stream* stream);

  const size_t most_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Stream*> streams_, queued_;  // guarded by mutex_, as all below
  std::deque<Stream*> ready_;
  size_t not_gone_ = 0;
  bool draining_ = false, stopping_ = false;
  std::thread thread_;
};

// A stream to a client that a pump serves. Deletes itself when gRPC is done with it.
template <typename Response>
class FedStream final : public grpc::ServerWriteReactor<Response>, public StreamPump::Stream {
 public:
  static grpc::ServerWriteReactor<Response>* Start(StreamPump& pump,
                                                   std::unique_ptr<Feed<Response>> feed) {
    auto* stream = new FedStream(pump, std::move(feed));
    const absl::Status added = pump.Add(stream);
    if (!added.ok()) stream->Finish(ToGrpc(added));
    return stream;
  }

 private:
  using Step = typename Feed<Response>::Step;

  FedStream(StreamPump& pump, std::unique_ptr<Feed<Response>> feed)
      : pump_(pump), feed_(std::move(feed)) {}

  bool Turn() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (writing_ || gone_ || ending_) return false;
    }
    Step step = Step::kLater;
    const absl::Status status = Guarded([&]() -> absl::Status {
      auto next = feed_->Next(outgoing_);
      if (next.ok()) step = *next;
      return next.status();
    });
    if (!status.ok() || step == Step::kEnd) {
      ending_ = Answer(status);
      return false;
    }
    if (step == Step::kMessage) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        writing_ = true;
      }
      this->StartWrite(&outgoing_);
    }
    return step == Step::kAgain;
  }
  std::optional<grpc::Status> Ending(bool draining) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (writing_) return std::nullopt;
    if (ending_) return ending_;
    if (gone_) return grpc::Status(grpc::StatusCode::CANCELLED, "the client has gone");
    if (!draining) return std::nullopt;
    return ToGrpc(WithReason(
        absl::UnavailableError("the server is stopping; go on when it is back"), "DRAINING"));
  }
  void End(const grpc::Status& status) override { this->Finish(status); }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      writing_ = false;
      gone_ = gone_ || !ok;
    }
    pump_.Wake(this);
  }
  void OnCancel() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      gone_ = true;
    }
    pump_.Wake(this);
  }
  void OnDone() override {
    StreamPump& pump = pump_;
    delete this;
    pump.Gone();
  }

  StreamPump& pump_;
  const std::unique_ptr<Feed<Response>> feed_;
  std::mutex mutex_;
  bool writing_ = false, gone_ = false;  // guarded by mutex_
  std::optional<grpc::Status> ending_;   // the pump's alone, as what follows
  Response outgoing_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_STREAM_PUMP_H_
