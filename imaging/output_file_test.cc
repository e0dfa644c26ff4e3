#include "imaging/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "imaging/status_reason.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directory(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string Content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  int FilesInFolder() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_), {}));
  }

  const std::string folder_ = testing::TempDir() + "/output_file_test." + std::to_string(getpid());
  const std::string path_ = folder_ + "/result.npy";
};

TEST_F(OutputFileTest, GivesTheNameOnlyAtCommit) {
  OutputFile file(path_);
  ASSERT_TRUE(file.status().ok()) << file.status();
  ASSERT_TRUE(file.Write("half", 4, 0).ok());
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_TRUE(file.Commit().ok());
  EXPECT_EQ(Content(path_), "half");
  EXPECT_EQ(FilesInFolder(), 1);
}

TEST_F(OutputFileTest, WritesAtPositionsInAnyOrderWithZerosBetween) {
  OutputFile file(path_);
  ASSERT_TRUE(file.Write("cd", 2, 4).ok());
  ASSERT_TRUE(file.Write("ab", 2, 0).ok());
  ASSERT_TRUE(file.Commit().ok());
  EXPECT_EQ(Content(path_), std::string("ab\0\0cd", 6));
}

TEST_F(OutputFileTest, LeavesNothingAndTheOlderFileWhenItIsGivenUp) {
  std::ofstream(path_) << "older";
  {
    OutputFile file(path_);
    ASSERT_TRUE(file.Write("new", 3, 0).ok());
  }
  EXPECT_EQ(Content(path_), "older");
  EXPECT_EQ(FilesInFolder(), 1);
}

TEST_F(OutputFileTest, ReplacesTheOlderFile) {
  std::ofstream(path_) << "older and longer";
  ASSERT_TRUE(WriteWholeFile(path_, "new").ok());
  EXPECT_EQ(Content(path_), "new");
}

TEST_F(OutputFileTest, HasTheModeOfAnyNewFile) {
  const mode_t before = umask(027);
  const absl::Status status = WriteWholeFile(path_, "x");
  umask(before);
  ASSERT_TRUE(status.ok()) << status;
  struct stat about = {};
  ASSERT_EQ(stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0640u);
}

TEST_F(OutputFileTest, WritesThroughALinkThatStaysALink) {
  std::ofstream(folder_ + "/target.npy") << "older";
  fs::create_symlink("target.npy", path_);
  ASSERT_TRUE(WriteWholeFile(path_, "new").ok());
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_EQ(Content(folder_ + "/target.npy"), "new");
}

TEST_F(OutputFileTest, SaysThatTheFolderIsMissing) {
  const OutputFile file(folder_ + "/absent/result.npy");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(file.status().message()).find("make the folder first"), std::string::npos);
}

TEST_F(OutputFileTest, RefusesAFolderBeforeAnyWork) {
  const OutputFile file(folder_);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(OutputFileTest, RefusesADeviceInPlaceOfReplacingIt) {
  // A pipe stands for /dev/null, which a test run by root must not risk.
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(WriteWholeFile(path_, "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(fs::is_fifo(path_));
  EXPECT_EQ(FilesInFolder(), 1);
}

TEST_F(OutputFileTest, TellsAFullDiskFromOtherFaults) {
  std::ofstream(path_) << "older";
  // As on a full disk: no file may grow beyond 100 kB.
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit limit = {};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small = {100000, limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status full = WriteWholeFile(path_, std::string(200000, 'x'));
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "DISK_FULL");
  EXPECT_EQ(Content(path_), "older");
  EXPECT_EQ(FilesInFolder(), 1);

  const OutputFile file(path_);
  EXPECT_EQ(ReasonOf(file.Failed(ENOSPC)), "DISK_FULL");
  EXPECT_EQ(file.Failed(EIO).code(), absl::StatusCode::kInternal);
}

TEST_F(OutputFileTest, CommitsWhatAnotherLibraryWroteAside) {
  OutputFile file(path_);
  std::ofstream(file.aside()) << "by another";
  ASSERT_TRUE(file.Commit().ok());
  EXPECT_EQ(Content(path_), "by another");
}

TEST_F(OutputFileTest, TakesTheLongestNameOfAFile) {
  const std::string path = folder_ + "/" + std::string(255, 'n');
  ASSERT_TRUE(WriteWholeFile(path, "x").ok());
  EXPECT_EQ(Content(path), "x");
}

TEST_F(OutputFileTest, WhatAKilledProcessLeftAsideIsKnownByItsNameAndDeleted) {
  fs::create_directory(folder_ + "/below");
  OutputFile file(folder_ + "/below/result.npy");
  ASSERT_TRUE(file.status().ok()) << file.status();
  EXPECT_TRUE(IsAsideName(fs::path(file.aside()).filename().string()));
  for (const char* other : {"result.npy", "part-abcdef", ".part-abcdef", "a.part-abcdef.npy"}) {
    EXPECT_FALSE(IsAsideName(other)) << other;
    std::ofstream(folder_ + "/below/" + other) << "kept";
  }
  RemoveAsideFiles(folder_, std::chrono::hours(1));
  EXPECT_TRUE(fs::exists(file.aside())) << "it may still be written";
  RemoveAsideFiles(folder_, std::chrono::seconds(0));
  EXPECT_FALSE(fs::exists(file.aside()));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ + "/below"), {}), 4);
}

TEST_F(OutputFileTest, MakesFoldersAndTellsWhereItCannot) {
  ASSERT_TRUE(MakeFolders(folder_ + "/a/b/").ok());
  EXPECT_TRUE(fs::is_directory(folder_ + "/a/b"));
  EXPECT_TRUE(MakeFolders(folder_ + "/a/b").ok());
  std::ofstream(folder_ + "/file") << "x";
  EXPECT_FALSE(MakeFolders(folder_ + "/file/below").ok());
}

TEST_F(OutputFileTest, DoesNothingAfterAFailure) {
  OutputFile file(folder_ + "/absent/result.npy");
  EXPECT_FALSE(file.Write("x", 1, 0).ok());
  EXPECT_FALSE(file.Commit().ok());
}

}  // namespace
}  // namespace gvsl
