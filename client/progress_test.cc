#include "client/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace gvsl {
namespace {

TEST(ProgressLine, ShowsShareRateAndTimeLeft) {
  // 30 MB of 60 in 4 s: 7.5 MB/s, and 4 s are left.
  EXPECT_EQ(ProgressLine("uploading", 30000000, 60000000, 4),
            "uploading  [###############               ]  50%  7.5 MB/s  0:04");
}

TEST(ProgressLine, ShowsMinutesThatAreLeft) {
  // 1 MB/s with 125 MB to go.
  EXPECT_NE(ProgressLine("", 1000000, 126000000, 1).find("2:05"), std::string::npos);
}

TEST(ProgressLine, CountsWhatIsNoBytes) {
  // One volume in 10 s: three are left.
  EXPECT_EQ(ProgressLine("extracting", 1, 4, 10, "volumes"),
            "extracting  [#######                       ]  25%  1 of 4 volumes  0:30");
}

TEST(ProgressLine, IsFullOnlyAtTheEnd) {
  EXPECT_NE(ProgressLine("", 999, 1000, 1).find(" 99%"), std::string::npos);
  EXPECT_NE(ProgressLine("", 1000, 1000, 1).find("100%"), std::string::npos);
}

TEST(ProgressLine, StaysInItsBoundsWhateverTheNumbers) {
  EXPECT_NE(ProgressLine("", 0, 0, 0).find("100%"), std::string::npos);
  EXPECT_NE(ProgressLine("", 5, 3, 1).find("100%"), std::string::npos);
  EXPECT_NE(ProgressLine("", 0, 1000, 0).find("  0%"), std::string::npos);
  // A byte in a day of a petabyte: the time is cut at 99:59:59.
  EXPECT_NE(ProgressLine("", 1, int64_t{1} << 50, 86400).find("5999:59"), std::string::npos);
}

TEST(ProgressLine, ShowsWordsOfOnesOwnBehindTheShare) {
  EXPECT_EQ(ProgressLine("training", 0.5, "step 5 of 10"),
            "training  [###############               ]  50%  step 5 of 10");
  EXPECT_NE(ProgressLine("", 7, "").find("100%"), std::string::npos);
  EXPECT_NE(ProgressLine("", -1, "").find("  0%"), std::string::npos);
  EXPECT_NE(ProgressLine("", std::nan(""), "").find("  0%"), std::string::npos);
}

TEST(ProgressBar, WritesNothingToAPipe) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  const int real = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  {
    ProgressBar bar("uploading");
    bar.Update(1, 2);
    bar.Update(2, 2);
    bar.Show(0.5, "half");
    bar.Clear();
  }
  std::fflush(stderr);
  dup2(real, STDERR_FILENO);
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), -1);  // nothing there
  for (int file : {real, ends[0], ends[1]}) close(file);
}

}  // namespace
}  // namespace gvsl
