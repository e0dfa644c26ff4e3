#include "client/points_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace gvsl {
namespace {

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(ParsePoints, ReadsOnePointALine) {
  const auto points = ParsePoints("1,2,3\n-4.5,0.25,1e2\n", "test");
  ASSERT_TRUE(points.ok()) << points.status();
  EXPECT_EQ(*points, (std::vector<Vec3>{{1, 2, 3}, {-4.5, 0.25, 100}}));
}

TEST(ParsePoints, SkipsHeadingCommentsAndEmptyLinesAndIgnoresFurtherColumns) {
  const auto points =
      ParsePoints("x,y,z,name\r\n# landmarks\r\n\r\n 1 , 2 ,3,apex, left\r\n", "test");
  ASSERT_TRUE(points.ok()) << points.status();
  EXPECT_EQ(*points, (std::vector<Vec3>{{1, 2, 3}}));
}

TEST(ParsePoints, TakesAWordForAHeadingInTheFirstLineAlone) {
  const auto points = ParsePoints("1,2,3\nx,y,z\n", "marks.csv");
  EXPECT_EQ(points.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(MessageOf(points.status()).find("marks.csv: line 2"), std::string::npos);
}

TEST(ParsePoints, NamesTheLineThatIsWrong) {
  for (const char* wrong :
       {"1,2", "1,2,", "1,2,three", "1;2;3", "1,2,nan", "inf,2,3", "1,2,3mm", "0x10,2,3"}) {
    const auto points = ParsePoints(std::string("1,2,3\n") + wrong + "\n", "marks.csv");
    EXPECT_EQ(points.status().code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_NE(MessageOf(points.status()).find("line 2"), std::string::npos) << points.status();
  }
}

TEST(ParsePoints, QuotesALongLineInPart) {
  const auto points = ParsePoints("9" + std::string(100000, '!'), "marks.csv");
  EXPECT_LT(points.status().message().size(), 200u);
}

TEST(ParsePoints, RefusesATextWithoutAPoint) {
  for (const char* text : {"", "\n\n", "x,y,z\n", "# nothing\n"}) {
    EXPECT_EQ(ParsePoints(text, "test").status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ReadPoints, ReadsAFileAndTellsWhenItCannot) {
  const std::string path =
      testing::TempDir() + "/points_file_test." + std::to_string(getpid()) + ".csv";
  std::ofstream(path) << "7,8,9";
  const auto points = ReadPoints(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(points.ok()) << points.status();
  EXPECT_EQ(*points, (std::vector<Vec3>{{7, 8, 9}}));
  EXPECT_EQ(ReadPoints(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadPoints(testing::TempDir()).status().code(), absl::StatusCode::kNotFound);
}

TEST(ParseRegion, ReadsThreeRangesWithExclusiveEnds) {
  const auto region = ParseRegion("0:10,20:21,5:4000000000");
  ASSERT_TRUE(region.ok()) << region.status();
  EXPECT_EQ(region->begin, (std::array<int64_t, 3>{0, 20, 5}));
  EXPECT_EQ(region->end, (std::array<int64_t, 3>{10, 21, 4000000000}));
}

TEST(ParseRegion, RefusesWhatIsNoRegion) {
  for (const char* text : {"", "0:1,0:1", "0:1,0:1,0:1,0:1", "0:1,0:1,0:1,", "1:1,0:1,0:1",
                           "2:1,0:1,0:1", "-1:1,0:1,0:1", "0:1,0:1,0-1", "0:1,0:1,0:1x",
                           "0:1,0:1,0:99999999999999999999", " 0:1,0:1,0:1"}) {
    EXPECT_EQ(ParseRegion(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace gvsl
