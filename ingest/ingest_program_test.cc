// The program gvsl-ingest, run as a user runs it.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;
  std::string output;  // stdout and stderr
};

Outcome RunIngest(const std::string& arguments, const std::string& environment = "") {
  const std::string command =
      environment + " " + std::string(GVSL_BIN_DIR) + "/gvsl-ingest " + arguments + " 2>&1";
  Outcome outcome;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer;
  while (size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    outcome.output.append(buffer.data(), count);
  }
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

class IngestProgramTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("gvsl-ingest-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_F(IngestProgramTest, WritesOneDicomFolderAPatient) {
  const Outcome outcome =
      RunIngest("phantom --patient 3 --count 2 --size 24,20,6 --spacing 10,10,30 -o '" +
                (folder_ / "new" / "deep").string() + "'");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  for (const char* patient : {"patient3", "patient4"}) {
    const fs::path series = folder_ / "new" / "deep" / patient;
    EXPECT_NE(outcome.output.find(series.string()), std::string::npos) << outcome.output;
    for (int slice = 1; slice <= 6; ++slice) {
      EXPECT_TRUE(fs::exists(series / ("IM0000" + std::to_string(slice) + ".dcm"))) << slice;
    }
  }
}

TEST_F(IngestProgramTest, HelpShowsExamples) {
  for (const char* verb : {"", "phantom", "import"}) {
    const Outcome outcome = RunIngest(std::string(verb) + " --help");
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_NE(outcome.output.find("  gvsl-ingest " + std::string(verb)), std::string::npos)
        << outcome.output;
  }
}

TEST_F(IngestProgramTest, BadUsageExitsWithTwo) {
  for (const char* arguments :
       {"", "nonsense", "phantom", "phantom --count 0 -o x", "phantom --size 1,2 -o x",
        "phantom --size 1,64,64 -o x", "phantom --spacing 0,1,1 -o x", "phantom --patient abc -o x",
        "phantom -o x --unknown", "import", "import --threads -1 x"}) {
    const Outcome outcome = RunIngest(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments << "\n" << outcome.output;
    EXPECT_FALSE(outcome.output.empty()) << arguments;
  }
}

TEST_F(IngestProgramTest, FolderThatCannotBeMadeExitsWithOneAndSaysWhich) {
  const fs::path file = folder_ / "a-file";
  std::ofstream(file) << "in the way";
  const Outcome outcome = RunIngest("phantom --size 8,8,4 -o '" + (file / "below").string() + "'");
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_NE(outcome.output.find((file / "below").string()), std::string::npos) << outcome.output;
}

// A folder in which nobody may make anything, not even root, as who containers run their tests.
TEST_F(IngestProgramTest, FolderThatMayNotBeWrittenExitsWithOneAndSaysWhich) {
  const Outcome outcome = RunIngest("phantom --size 8,8,4 -o /proc/self");
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_NE(outcome.output.find("/proc/self/patient0"), std::string::npos) << outcome.output;
}

TEST_F(IngestProgramTest, MissingDataDictionaryIsAnErrorNotABadFile) {
  const Outcome outcome = RunIngest("phantom --size 8,8,4 -o '" + folder_.string() + "'",
                                    "DCMDICTPATH=/nonexistent.dic");
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_NE(outcome.output.find("DCMDICTPATH"), std::string::npos) << outcome.output;
  EXPECT_FALSE(fs::exists(folder_ / "patient0"));
}

}  // namespace
