#include "server/stream_pump.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <vector>

#include "imaging/status_reason.h"

namespace gvsl {
namespace {

// A stream without gRPC: says so many things, and takes its time with each if it is told to. The
// pump goes first: its thread may still be in End when the end is known.
class FakeStream : public StreamPump::Stream {
 public:
  FakeStream(StreamPump& pump, int messages) : pump_(pump), left_(messages) {}

  bool Turn() override {
    ++turns_;
    if (stalled_) return false;
    if (left_ > 0) --left_;
    return left_ > 0;
  }
  std::optional<grpc::Status> Ending(bool draining) override {
    if (stalled_) return std::nullopt;
    if (left_ == 0) return grpc::Status::OK;
    if (draining) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "");
    return std::nullopt;
  }
  void End(const grpc::Status& status) override {
    ended_.set_value(status.error_code());
    pump_.Gone();
  }

  void Stall(bool stalled) { stalled_ = stalled; }
  int turns() const { return turns_; }
  grpc::StatusCode AwaitEnd() { return ended_.get_future().get(); }

 private:
  StreamPump& pump_;
  std::atomic<int> left_, turns_{0};
  std::atomic<bool> stalled_{false};
  std::promise<grpc::StatusCode> ended_;
};

constexpr int kForever = 1 << 30;

TEST(StreamPump, FeedsManyStreamsToTheirEnd) {
  auto pump = std::make_unique<StreamPump>();
  std::vector<std::unique_ptr<FakeStream>> streams;
  for (int i = 0; i < 1000; ++i) {
    streams.push_back(std::make_unique<FakeStream>(*pump, 1 + i % 50));
    ASSERT_TRUE(pump->Add(streams.back().get()).ok());
  }
  for (auto& stream : streams) EXPECT_EQ(stream->AwaitEnd(), grpc::StatusCode::OK);
  EXPECT_EQ(pump->size(), 0u);
  pump.reset();
}

TEST(StreamPump, OneThatStallsKeepsNobodyWaiting) {
  auto pump = std::make_unique<StreamPump>();
  FakeStream stalled(*pump, 1), other(*pump, 1000);
  stalled.Stall(true);
  ASSERT_TRUE(pump->Add(&stalled).ok());
  ASSERT_TRUE(pump->Add(&other).ok());
  EXPECT_EQ(other.AwaitEnd(), grpc::StatusCode::OK);
  stalled.Stall(false);
  pump->Wake(&stalled);
  EXPECT_EQ(stalled.AwaitEnd(), grpc::StatusCode::OK);
  pump.reset();
}

TEST(StreamPump, AsksAgainWithoutBeingWoken) {
  auto pump = std::make_unique<StreamPump>();
  FakeStream stream(*pump, 1);
  stream.Stall(true);
  ASSERT_TRUE(pump->Add(&stream).ok());
  while (stream.turns() < 3) std::this_thread::yield();
  stream.Stall(false);
  EXPECT_EQ(stream.AwaitEnd(), grpc::StatusCode::OK);
  pump.reset();
}

TEST(StreamPump, RefusesMoreThanItMayFeed) {
  auto pump = std::make_unique<StreamPump>(1);
  FakeStream first(*pump, kForever), second(*pump, 1);
  ASSERT_TRUE(pump->Add(&first).ok());
  const absl::Status refused = pump->Add(&second);
  EXPECT_EQ(ReasonOf(refused), "TOO_MANY_CALLS");
  pump->Gone();  // as a refused stream does when it has ended itself
  pump->Drain();
  EXPECT_EQ(first.AwaitEnd(), grpc::StatusCode::UNAVAILABLE);
  pump.reset();
}

TEST(StreamPump, ADrainEndsAllOnceTheyCanEndAndTakesNoOthers) {
  auto pump = std::make_unique<StreamPump>();
  FakeStream running(*pump, kForever), stalled(*pump, kForever), late(*pump, 1);
  stalled.Stall(true);
  ASSERT_TRUE(pump->Add(&running).ok());
  ASSERT_TRUE(pump->Add(&stalled).ok());
  pump->Drain();
  EXPECT_EQ(running.AwaitEnd(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(pump->Add(&late)), "DRAINING");
  pump->Gone();
  stalled.Stall(false);
  pump->Wake(&stalled);
  EXPECT_EQ(stalled.AwaitEnd(), grpc::StatusCode::UNAVAILABLE);
  pump.reset();
}

TEST(StreamPump, AWakeOfOneThatHasEndedIsNothing) {
  auto pump = std::make_unique<StreamPump>();
  FakeStream stream(*pump, 1);
  ASSERT_TRUE(pump->Add(&stream).ok());
  EXPECT_EQ(stream.AwaitEnd(), grpc::StatusCode::OK);
  pump->Wake(&stream);
  EXPECT_EQ(pump->size(), 0u);
  pump.reset();
}

}  // namespace
}  // namespace gvsl
