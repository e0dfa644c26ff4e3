#include "server/inference_engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include "imaging/status_reason.h"
#include "model/model_file.h"

namespace gvsl {
namespace {

const CancelFunction kNever;

// One small model for all tests.
class InferenceEngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = testing::TempDir() + "/inference_engine_test." + std::to_string(getpid());
    std::filesystem::create_directory(folder_);
    ModelCard card;
    card.size = "tiny";
    card.widths = *WidthsOf("tiny");
    for (const char* name : {"/a", "/b"}) {
      const auto info = CreateModelFile(card, 1, folder_ + name);
      ASSERT_TRUE(info.ok()) << info.status();
    }
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static std::unique_ptr<InferenceEngine> Engine(int capacity, int64_t cache_bytes = 1 << 30) {
    InferenceEngine::Options options;
    options.device = {"cpu", 2};
    options.queue_capacity = capacity;
    options.model_cache_bytes = cache_bytes;
    return std::make_unique<InferenceEngine>(options);
  }
  static std::string Model() { return folder_ + "/a"; }

  static std::string folder_;
};
std::string InferenceEngineTest::folder_;

// Work that holds the device until it is let go.
class Blocker {
 public:
  explicit Blocker(InferenceEngine& engine, const std::string& model)
      : result_(std::async(std::launch::async, [this, &engine, model] {
          return engine.Run(model, kNever, [this](Extractor&) {
            began_.set_value();
            go_.get_future().wait();
            return absl::OkStatus();
          });
        })) {
    began_.get_future().wait();
  }
  void LetGo() { go_.set_value(); }
  absl::Status Result() { return result_.get(); }

 private:
  std::promise<void> began_, go_;
  std::future<absl::Status> result_;
};

std::future<absl::Status> Start(InferenceEngine& engine, const std::string& model,
                                std::function<absl::Status(Extractor&)> work,
                                CancelFunction cancelled = kNever) {
  auto result = std::async(std::launch::async, [&engine, model, work, cancelled] {
    return engine.Run(model, cancelled, work);
  });
  return result;
}

void WaitForQueue(const InferenceEngine& engine, int length) {
  while (engine.queue_length() != length) std::this_thread::yield();
}

TEST_F(InferenceEngineTest, DoesTheWorkWithItsModelAndReturnsItsStatus) {
  auto engine = Engine(4);
  int64_t channels = 0;
  const absl::Status status = engine->Run(Model(), kNever, [&](Extractor& extractor) {
    channels = extractor.info().card.global_channels();
    return absl::DataLossError("the work's own words");
  });
  EXPECT_EQ(channels, 128);
  EXPECT_EQ(status, absl::DataLossError("the work's own words"));
}

TEST_F(InferenceEngineTest, TellsAModelThatCannotBeLoadedAndGoesOn) {
  auto engine = Engine(4);
  const auto work = [](Extractor&) { return absl::OkStatus(); };
  EXPECT_EQ(ReasonOf(engine->Run(folder_ + "/absent", kNever, work)), "MODEL_NOT_LOADED");
  EXPECT_TRUE(engine->Run(Model(), kNever, work).ok());
}

TEST_F(InferenceEngineTest, SurvivesWorkThatThrows) {
  auto engine = Engine(4);
  const absl::Status status = engine->Run(
      Model(), kNever, [](Extractor&) -> absl::Status { throw std::runtime_error("a fault"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(engine->Run(Model(), kNever, [](Extractor&) { return absl::OkStatus(); }).ok());
}

TEST_F(InferenceEngineTest, DoesOneAfterTheOtherInTheOrderTheyCame) {
  auto engine = Engine(8);
  Blocker blocker(*engine, Model());
  std::vector<int> order;  // written on the device's thread alone
  std::vector<std::future<absl::Status>> results;
  for (int i = 0; i < 4; ++i) {
    results.push_back(Start(*engine, Model(), [&order, i](Extractor&) {
      order.push_back(i);
      return absl::OkStatus();
    }));
    WaitForQueue(*engine, i + 1);
  }
  blocker.LetGo();
  for (auto& result : results) EXPECT_TRUE(result.get().ok());
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TEST_F(InferenceEngineTest, RefusesAtOnceWhatItsQueueCannotHold) {
  auto engine = Engine(1);
  Blocker blocker(*engine, Model());
  const auto work = [](Extractor&) { return absl::OkStatus(); };
  auto waiting = Start(*engine, Model(), work);
  WaitForQueue(*engine, 1);
  const absl::Status refused = engine->Run(Model(), kNever, work);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), "QUEUE_FULL");  // with RetryInfo on the wire: status_test.cc
  blocker.LetGo();
  EXPECT_TRUE(waiting.get().ok());
  EXPECT_TRUE(engine->Run(Model(), kNever, work).ok());
}

TEST_F(InferenceEngineTest, LetsALaterTurnOfAnAdmittedRequestWait) {
  auto engine = Engine(1);
  Blocker blocker(*engine, Model());
  const std::function<absl::Status(Extractor&)> work = [](Extractor&) { return absl::OkStatus(); };
  auto waiting = Start(*engine, Model(), work);
  WaitForQueue(*engine, 1);
  auto admitted =
      std::async(std::launch::async, [&] { return engine->Run(Model(), kNever, work, true); });
  WaitForQueue(*engine, 2);
  blocker.LetGo();
  EXPECT_TRUE(waiting.get().ok());
  EXPECT_TRUE(admitted.get().ok());
}

TEST_F(InferenceEngineTest, DropsQueuedWorkThatIsCancelledAndFreesItsPlace) {
  auto engine = Engine(1);
  Blocker blocker(*engine, Model());
  std::atomic<bool> cancelled{false}, ran{false};
  auto waiting = Start(
      *engine, Model(),
      [&](Extractor&) {
        ran = true;
        return absl::OkStatus();
      },
      [&] { return cancelled.load(); });
  WaitForQueue(*engine, 1);
  cancelled = true;
  EXPECT_EQ(waiting.get().code(), absl::StatusCode::kCancelled);  // the device is still held
  EXPECT_EQ(engine->queue_length(), 0);
  blocker.LetGo();
  EXPECT_TRUE(blocker.Result().ok());
  EXPECT_FALSE(ran);
}

TEST_F(InferenceEngineTest, RunningWorkLooksForItsCancellationItself) {
  auto engine = Engine(1);
  std::atomic<bool> cancelled{false};
  const CancelFunction look = [&] { return cancelled.load(); };
  std::promise<void> began;
  auto running = Start(
      *engine, Model(),
      [&](Extractor&) -> absl::Status {
        began.set_value();
        while (!look()) std::this_thread::yield();
        return absl::CancelledError("between two windows");
      },
      look);
  began.get_future().wait();
  cancelled = true;
  EXPECT_EQ(running.get(), absl::CancelledError("between two windows"));
}

TEST_F(InferenceEngineTest, WaitsAtItsEndForWhatRunsAndDropsWhatWaits) {
  auto engine = Engine(4);
  Blocker blocker(*engine, Model());
  auto waiting = Start(*engine, Model(), [](Extractor&) { return absl::OkStatus(); });
  WaitForQueue(*engine, 1);
  InferenceEngine& ending = *engine;
  auto ended = std::async(std::launch::async, [&] { engine.reset(); });
  // Refuses once its end has begun; what runs holds it from then on.
  const CancelFunction at_once = [] { return true; };
  while (ending.Run(Model(), at_once, [](Extractor&) { return absl::OkStatus(); }).code() !=
         absl::StatusCode::kUnavailable) {
  }
  EXPECT_EQ(ended.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  blocker.LetGo();
  ended.get();
  EXPECT_TRUE(blocker.Result().ok());
  EXPECT_EQ(waiting.get().code(), absl::StatusCode::kUnavailable);
}

TEST_F(InferenceEngineTest, KeepsTheModelsThatFitAndAlwaysTheLastOne) {
  int64_t bytes = 0;  // of one
  ASSERT_TRUE(Engine(4)
                  ->Run(Model(), kNever,
                        [&](Extractor& extractor) {
                          bytes = extractor.memory_bytes();
                          EXPECT_GE(bytes, 4 * extractor.info().parameter_count);
                          return absl::OkStatus();
                        })
                  .ok());
  // A model whose file is gone can be used exactly while it is held.
  const auto held_beside_another = [](int64_t cache_bytes) {
    auto engine = Engine(4, cache_bytes);
    const std::string lent = folder_ + "/lent";
    std::filesystem::copy_file(folder_ + "/a", lent);
    const auto use = [&](const std::string& path) {
      return engine->Run(path, kNever, [](Extractor&) { return absl::OkStatus(); }).ok();
    };
    EXPECT_TRUE(use(lent));
    std::filesystem::remove(lent);
    EXPECT_TRUE(use(lent)) << "the last one is always held";
    EXPECT_TRUE(use(folder_ + "/b"));
    return use(lent);
  };
  EXPECT_TRUE(held_beside_another(2 * bytes));
  EXPECT_FALSE(held_beside_another(2 * bytes - 1));
  EXPECT_FALSE(held_beside_another(1));
}

}  // namespace
}  // namespace gvsl
