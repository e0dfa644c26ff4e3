#include "server/stall_budget.h"

#include <gtest/gtest.h>

namespace gvsl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kMessage = 1 << 20;

TEST(StallBudget, AllowsOneStallOfTheLimit) { EXPECT_EQ(StallBudget().left(), kStallLimit); }

TEST(StallBudget, EndsWithAReaderThatTakesAMessageNowAndThen) {
  StallBudget budget;
  for (int i = 0; i < 4; ++i) {
    budget.Taken(kMessage, seconds(30));
  }
  // A tenth of a second for each MiB; cut to whole milliseconds.
  EXPECT_NEAR(static_cast<double>(budget.left().count()), 400, 1);
  budget.Taken(kMessage, seconds(30));
  EXPECT_EQ(budget.left(), milliseconds(0));
}

TEST(StallBudget, NeverEndsAtTheRateThatItAsksFor) {
  StallBudget budget;
  for (int i = 0; i < 100000; ++i) budget.Taken(kMessage, milliseconds(100));  // 100 GB, 3 hours
  // Nothing is lost but the rounding of a hundred thousand sums.
  EXPECT_NEAR(static_cast<double>(budget.left().count()), static_cast<double>(kStallLimit.count()),
              1);
}

TEST(StallBudget, SavesNoMoreThanTheLimit) {
  StallBudget budget;
  for (int i = 0; i < 1000; ++i) budget.Taken(kMessage, milliseconds(0));
  EXPECT_EQ(budget.left(), kStallLimit);
}

}  // namespace
}  // namespace gvsl
