#include "client/retry.h"

#include <gtest/gtest.h>

namespace gvsl {
namespace {

using std::chrono::milliseconds;

const absl::Status kUnavailable = absl::UnavailableError("the server restarts");
const absl::Status kFull = absl::ResourceExhaustedError("the queue is full");

TEST(RetryPolicy, LeavesAServerThatWasNeverReachedAlone) {
  EXPECT_FALSE(RetryPolicy(1).Next(kUnavailable, false, {}));
}

TEST(RetryPolicy, TriesAgainWhereAServerWasReachedBefore) {
  EXPECT_TRUE(RetryPolicy(1).Next(kUnavailable, true, {}));
}

TEST(RetryPolicy, TriesAFullQueueAgainOnlyWhenTheServerSaysAfterWhichTime) {
  EXPECT_TRUE(RetryPolicy(1).Next(kFull, true, milliseconds(500)));
  EXPECT_FALSE(RetryPolicy(1).Next(kFull, true, {}));  // a full disk, say
}

TEST(RetryPolicy, LetsEveryOtherFailureStand) {
  for (const absl::Status& status :
       {absl::InvalidArgumentError(""), absl::NotFoundError(""), absl::DataLossError(""),
        absl::DeadlineExceededError(""), absl::CancelledError(""), absl::InternalError("")}) {
    EXPECT_FALSE(RetryPolicy(1).Next(status, true, milliseconds(500))) << status;
  }
}

TEST(RetryPolicy, DoublesTheDelayUpToItsCapWithHalfOfItLeftToChance) {
  for (uint64_t seed : {0u, 1u, 7u, 12345u}) {
    RetryPolicy policy(seed);
    milliseconds longest = RetryPolicy::kFirst;
    for (int attempt = 1; attempt < RetryPolicy::kAttempts; ++attempt) {
      const auto delay = policy.Next(kUnavailable, true, {});
      ASSERT_TRUE(delay);
      EXPECT_GE(*delay, longest / 2);
      EXPECT_LE(*delay, longest);
      longest = std::min(longest * 2, RetryPolicy::kLongest);
    }
    EXPECT_FALSE(policy.Next(kUnavailable, true, {}));  // that was enough
  }
}

TEST(RetryPolicy, WaitsAtLeastHalfOfWhatTheServerAsksButNeverBeyondItsCap) {
  const auto delay = RetryPolicy(3).Next(kFull, true, milliseconds(2000));
  EXPECT_GE(*delay, milliseconds(1000));
  EXPECT_LE(*delay, milliseconds(2000));
  EXPECT_LE(*RetryPolicy(3).Next(kFull, true, std::chrono::hours(1)), RetryPolicy::kLongest);
}

TEST(RetryPolicy, CountsFromTheBeginningAfterProgress) {
  RetryPolicy policy(1);
  for (int attempt = 1; attempt < RetryPolicy::kAttempts; ++attempt)
    ASSERT_TRUE(policy.Next(kUnavailable, true, {}));
  policy.Progressed();
  EXPECT_LE(*policy.Next(kUnavailable, true, {}), RetryPolicy::kFirst);
}

TEST(RetryPolicy, ClientsOfDifferentSeedsDoNotComeBackTogether) {
  EXPECT_NE(*RetryPolicy(11).Next(kUnavailable, true, {}),
            *RetryPolicy(1234567).Next(kUnavailable, true, {}));
}

}  // namespace
}  // namespace gvsl
