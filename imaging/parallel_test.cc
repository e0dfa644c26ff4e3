#include "imaging/parallel.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace gvsl {
namespace {

TEST(ParallelFor, RunsEveryIndexOnce) {
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{5}, int64_t{1000}}) {
    for (const int threads : {0, 1, 3, 2000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
      ParallelFor(count, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
      });
      for (const auto& run : runs) ASSERT_EQ(run.load(), 1);
    }
  }
}

TEST(ParallelFor, HandsTheCallerWhatAnyPartThrowsAfterTheOthersHaveEnded) {
  constexpr int kParts = 4;
  for (int64_t thrower = 0; thrower < kParts; ++thrower) {  // 0 is the caller's own part
    std::atomic<int> ended{0};
    try {
      ParallelFor(kParts, kParts, [&](int64_t begin, int64_t) {
        if (begin == thrower) throw std::runtime_error("part " + std::to_string(begin));
        ++ended;
      });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(error.what(), "part " + std::to_string(thrower));
    }
    EXPECT_EQ(ended.load(), kParts - 1);
  }
}

TEST(ParallelFor, ThrowsOneOfSeveralExceptions) {
  bool caught = false;
  try {
    ParallelFor(8, 8, [](int64_t, int64_t) { throw std::bad_alloc(); });
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  EXPECT_TRUE(caught);
}

TEST(ParallelFor, DoesAllItselfWhereNoThreadCanBeMade) {
  pthread_attr_t usual, huge;
  ASSERT_EQ(pthread_getattr_default_np(&usual), 0);
  ASSERT_EQ(pthread_getattr_default_np(&huge), 0);
  // Stacks as large as the address space.
  ASSERT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 47), 0);
  ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
  std::vector<int> runs(100);
  bool elsewhere = false;
  const std::thread::id caller = std::this_thread::get_id();
  ParallelFor(100, 5, [&](int64_t begin, int64_t end) {
    elsewhere = elsewhere || std::this_thread::get_id() != caller;
    for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
  });
  ASSERT_EQ(pthread_setattr_default_np(&usual), 0);
  EXPECT_FALSE(elsewhere);
  EXPECT_EQ(runs, std::vector<int>(100, 1));
}

TEST(SetParallelThreads, IsWhatZeroMeansUntilItIsSetBack) {
  const auto parts = [](int threads) {
    std::atomic<int> count{0};
    ParallelFor(100, threads, [&](int64_t, int64_t) { ++count; });
    return count.load();
  };
  SetParallelThreads(3);
  EXPECT_EQ(parts(0), 3);
  EXPECT_EQ(parts(5), 5) << "a number of one's own comes first";
  SetParallelThreads(0);
  EXPECT_EQ(parts(0), std::min<int>(100, std::max(1u, std::thread::hardware_concurrency())));
}

}  // namespace
}  // namespace gvsl
