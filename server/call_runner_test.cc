#include "server/call_runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>

#include "imaging/status_reason.h"

namespace gvsl {
namespace {

TEST(CallRunner, RunsEachCallOnAThreadOfItsOwn) {
  CallRunner runner(2);
  std::promise<void> first, second;
  // Each waits for the other: one thread could not do both.
  ASSERT_TRUE(runner
                  .Start([&] {
                    first.set_value();
                    second.get_future().wait();
                  })
                  .ok());
  ASSERT_TRUE(runner
                  .Start([&] {
                    first.get_future().wait();
                    second.set_value();
                  })
                  .ok());
  EXPECT_TRUE(runner.Drain(std::chrono::seconds(60)));
}

TEST(CallRunner, RefusesOneMoreThanItsMost) {
  CallRunner runner(1);
  std::promise<void> go;
  ASSERT_TRUE(runner.Start([&] { go.get_future().wait(); }).ok());
  EXPECT_EQ(ReasonOf(runner.Start([] {})), "TOO_MANY_CALLS");
  go.set_value();
}

TEST(CallRunner, StartsNothingOnceItDrains) {
  CallRunner runner(1);
  EXPECT_FALSE(runner.draining());
  EXPECT_TRUE(runner.Drain(std::chrono::seconds(0)));
  EXPECT_TRUE(runner.draining());
  const absl::Status refused = runner.Start([] {});
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(refused), "DRAINING");
}

TEST(CallRunner, TellsThatCallsStillRunWhenItsPatienceEnds) {
  CallRunner runner(1);
  std::promise<void> go;
  ASSERT_TRUE(runner.Start([&] { go.get_future().wait(); }).ok());
  EXPECT_FALSE(runner.Drain(std::chrono::seconds(0)));
  go.set_value();
  EXPECT_TRUE(runner.Drain(std::chrono::seconds(60)));
}

TEST(CallRunner, LetsGoOfWhatACallHeldBeforeItCountsAsDone) {
  CallRunner runner(1);
  auto held = std::make_shared<int>(1);
  ASSERT_TRUE(runner.Start([held] {}).ok());
  ASSERT_TRUE(runner.Drain(std::chrono::seconds(60)));
  EXPECT_EQ(held.use_count(), 1);
}

TEST(CallRunner, WaitsAtItsEndForEveryCall) {
  std::atomic<int> done{0};
  {
    CallRunner runner(8);
    for (int i = 0; i < 8; ++i) {
      ASSERT_TRUE(runner
                      .Start([&] {
                        while (!runner.draining()) std::this_thread::yield();  // its end has begun
                        ++done;
                      })
                      .ok());
    }
  }
  EXPECT_EQ(done, 8);
}

}  // namespace
}  // namespace gvsl
