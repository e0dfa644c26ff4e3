#include "server/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace gvsl {
namespace {

absl::StatusOr<CommandLine> Read(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "gvsld");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  return ReadCommandLine(static_cast<int>(argv.size()), argv.data());
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// A configuration file for the time of one test.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) { std::ofstream(path) << text; }
  ~ConfigFile() { std::filesystem::remove(path); }
  const std::string path =
      testing::TempDir() + "/config_test." + std::to_string(getpid()) + ".textproto";
};

TEST(CommandLine, FillsInEveryDefault) {
  const auto line = Read({"--data_dir", "/data"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->exit_code, -1);
  EXPECT_EQ(line->config.listen(), "127.0.0.1:8500");  // loopback unless told otherwise
  EXPECT_EQ(line->config.device(), "auto");
  EXPECT_EQ(line->config.queue_capacity(), 64);
  EXPECT_EQ(line->config.drain_timeout_s(), 30);
  EXPECT_EQ(line->config.upload_expiry_h(), 24);
  EXPECT_EQ(line->config.concurrent_jobs(), 1);
  EXPECT_EQ(line->config.job_restarts(), 5);
  EXPECT_FALSE(line->config.auto_embed());
  EXPECT_EQ(line->config.exact_search_up_to(), 20000);
  EXPECT_EQ(line->config.search_effort(), 128);
  EXPECT_EQ(line->config.search_memory_mib(), line->config.memory_limit_mib() / 4);
  EXPECT_GT(line->config.memory_limit_mib(), 0);
  EXPECT_LT(line->config.memory_limit_mib(), AvailableMemory() >> 20);
}

TEST(CommandLine, TakesFlagsOverTheFileOverDefaults) {
  const ConfigFile file(
      "data_dir: \"/from_file\" listen: \"0.0.0.0:1\"  # a comment\n"
      "queue_capacity: 7 upload_expiry_h: 2");
  const auto line = Read({"--config", file.path, "--listen", "[::1]:2", "--threads", "3"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.data_dir(), "/from_file");
  EXPECT_EQ(line->config.listen(), "[::1]:2");
  EXPECT_EQ(line->config.queue_capacity(), 7);
  EXPECT_EQ(line->config.upload_expiry_h(), 2);
  EXPECT_EQ(line->config.threads(), 3);
  EXPECT_EQ(line->config.drain_timeout_s(), 30);
}

TEST(CommandLine, NoRestartsAtAllCanBeAskedFor) {
  const ConfigFile file("data_dir: \"/data\" job_restarts: 0 trainer: \"/opt/trainer\"");
  const auto line = Read({"--config", file.path, "--concurrent_jobs", "2"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.job_restarts(), 0);
  EXPECT_EQ(line->config.trainer(), "/opt/trainer");
  EXPECT_EQ(line->config.concurrent_jobs(), 2);
}

TEST(CommandLine, TakesAnEmptyFile) {
  const ConfigFile file("");
  EXPECT_TRUE(Read({"--config", file.path, "--data_dir", "/data"}).ok());
}

TEST(CommandLine, TellsAFileThatCannotBeRead) {
  for (const std::string& path : {std::string("/absent.textproto"), testing::TempDir()}) {
    const auto line = Read({"--config", path, "--data_dir", "/data"});
    EXPECT_EQ(line.status().code(), absl::StatusCode::kNotFound);
    EXPECT_NE(MessageOf(line.status()).find(path), std::string::npos);
  }
}

TEST(CommandLine, NamesFileLineAndFieldOfAnUnknownField) {
  const ConfigFile file("data_dir: \"/data\"\nqueue_size: 7\n");
  const auto line = Read({"--config", file.path});
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* word : {file.path.c_str(), "line 2", "queue_size"}) {
    EXPECT_NE(MessageOf(line.status()).find(word), std::string::npos) << line.status();
  }
}

TEST(CommandLine, NamesTheFieldOfABadValue) {
  const struct {
    std::vector<std::string> flags;
    const char* field;
  } cases[] = {
      {{}, "data_dir: "},
      {{"--data_dir", "/d", "--listen", "8500"}, "listen: "},
      {{"--data_dir", "/d", "--listen", ":8500"}, "listen: "},
      {{"--data_dir", "/d", "--listen", "host:"}, "listen: "},
      {{"--data_dir", "/d", "--listen", "host:65536"}, "listen: "},
      {{"--data_dir", "/d", "--listen", "host:-1"}, "listen: "},
      {{"--data_dir", "/d", "--listen", "host:99999999999999999999"}, "listen: "},
      {{"--data_dir", "/d", "--threads", "-1"}, "threads: "},
      {{"--data_dir", "/d", "--queue_capacity", "-5"}, "queue_capacity: "},
      {{"--data_dir", "/d", "--memory_limit_mib", "1"}, "memory_limit_mib: "},
      {{"--data_dir", "/d", "--drain_timeout_s", "100000"}, "drain_timeout_s: "},
      {{"--data_dir", "/d", "--concurrent_jobs", "-1"}, "concurrent_jobs: "},
  };
  for (const auto& wrong : cases) {
    const auto line = Read(wrong.flags);
    EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument) << wrong.field;
    EXPECT_EQ(MessageOf(line.status()).rfind(wrong.field, 0), 0u) << line.status();
  }
}

TEST(CommandLine, EndsAtOnceForHelpVersionAndWrongUsage) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(Read({"--help"})->exit_code, 0);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("Example:"), std::string::npos);
  testing::internal::CaptureStdout();
  EXPECT_EQ(Read({"--version"})->exit_code, 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), GVSL_VERSION "\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(Read({"--no_such_flag"})->exit_code, 2);
  EXPECT_EQ(Read({"--threads", "many"})->exit_code, 2);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
}

TEST(ParseConfig, SaysWhereASyntaxErrorIs) {
  const auto config = ParseConfig("data_dir: \"/data\"\nthreads: many\n");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MessageOf(config.status()).rfind("line 2, column 10", 0), 0u) << config.status();
}

}  // namespace
}  // namespace gvsl
