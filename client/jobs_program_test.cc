// `gvsl jobs`, run as a user runs it, against a JobService in this process.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/fake_job_service.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

struct Outcome {
  int exit_code = -1;
  std::string output;  // standard output, then standard error
  std::string out;     // standard output alone
};

class JobsProgramTest : public ::testing::Test {
 protected:
  Outcome Gvsl(const std::string& arguments) {
    const std::string errors = folder_ / "errors";
    const std::string command =
        absl::StrCat("cd '", folder_.path(), "' && GVSL_SERVER=", service_.address, " ",
                     GVSL_BIN_DIR, "/gvsl ", arguments, " 2> '", errors, "'");
    Outcome outcome;
    FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return outcome;
    std::array<char, 4096> buffer;
    while (size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
      outcome.output.append(buffer.data(), count);
    }
    const int status = ::pclose(pipe);
    if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
    outcome.out = outcome.output;
    std::stringstream text;
    text << std::ifstream(errors).rdbuf();
    outcome.output += text.str();
    std::filesystem::remove(errors);
    return outcome;
  }
  std::vector<std::string> Lines(const Outcome& outcome) {
    return absl::StrSplit(outcome.out, '\n', absl::SkipEmpty());
  }
  void Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }

  FakeJobService service_;
  TemporaryFolder folder_;
};

TEST_F(JobsProgramTest, SubmitSendsTheSpecOfTheFileWithItsOverrides) {
  Write("heart.textproto", "data { filter: 'modality = \"CT\"' }\noptimization { steps: 5 }");
  const Outcome outcome = Gvsl(
      "jobs submit heart.textproto --set optimization.steps=100 --set data.crop=32 "
      "--request_id mine");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_TRUE(absl::StrContains(outcome.output, "jobs/a")) << outcome.output;
  ASSERT_EQ(service_.created.size(), 1u);
  const v1::CreateJobRequest& request = service_.created[0];
  EXPECT_EQ(request.request_id(), "mine");
  EXPECT_EQ(request.job().display_name(), "heart");
  EXPECT_EQ(request.job().spec().data().filter(), "modality = \"CT\"");
  EXPECT_EQ(request.job().spec().data().crop(), 32);
  EXPECT_EQ(request.job().spec().optimization().steps(), 100);
}

TEST_F(JobsProgramTest, ADryRunShowsTheSpecAndQueuesNothing) {
  Write("heart.textproto", "optimization { steps: 5 }");
  const Outcome outcome = Gvsl("jobs submit heart.textproto --name mine --dry_run");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_TRUE(absl::StrContains(outcome.output, "steps: 5")) << outcome.output;
  EXPECT_FALSE(absl::StrContains(outcome.output, "jobs/a")) << outcome.output;
  EXPECT_TRUE(service_.created.at(0).validate_only());
  EXPECT_EQ(service_.created.at(0).job().display_name(), "mine");
}

TEST_F(JobsProgramTest, AWrongSpecIsAFailureAndAWrongOverrideBadUsage) {
  Write("bad.textproto", "optimization {\n  stepz: 5\n}");
  Outcome outcome = Gvsl("jobs submit bad.textproto");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_TRUE(absl::StrContains(outcome.output, "bad.textproto: line 2: optimization.stepz"))
      << outcome.output;
  outcome = Gvsl("jobs submit bad.textproto --set optimization.stepz=5");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_TRUE(absl::StrContains(outcome.output, "there is no \"stepz\"")) << outcome.output;
  EXPECT_EQ(Gvsl("jobs submit absent.textproto").exit_code, 1);
  EXPECT_EQ(Gvsl("jobs submit bad.textproto --dry_run --watch").exit_code, 2);
  EXPECT_TRUE(service_.created.empty());
}

TEST_F(JobsProgramTest, AWatchOnAPipePrintsALineForEveryEventAndState) {
  service_.job.set_total_steps(20);
  service_.job.set_model("models/m");
  service_.AddEvent().mutable_started()->set_device("cpu");
  service_.AddStep(10);
  service_.AddEvent().mutable_validation()->set_step(10);
  service_.AddStep(20);
  service_.cuts = {{3, {grpc::StatusCode::UNAVAILABLE, "the server restarts"}}};
  const Outcome outcome = Gvsl("jobs watch a");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  const auto lines = Lines(outcome);
  ASSERT_EQ(lines.size(), 5u) << outcome.output;
  EXPECT_EQ(lines[0], "jobs/a has succeeded: models/m");
  EXPECT_EQ(lines[1].rfind("begins on cpu", 0), 0u);
  EXPECT_EQ(lines[2].rfind("step 10 of 20  loss", 0), 0u);
  EXPECT_EQ(lines[3].rfind("validation at step 10", 0), 0u);
  EXPECT_EQ(lines[4].rfind("step 20 of 20", 0), 0u);
  EXPECT_EQ(outcome.output.find('\r'), std::string::npos);
}

TEST_F(JobsProgramTest, AWatchOnATerminalDrawsABarAndLeavesALineForAllButSteps) {
  service_.job.set_total_steps(20);
  service_.AddStep(10);
  service_.AddEvent().mutable_validation()->set_step(10);
  service_.AddStep(20);
  const std::string typescript = folder_ / "typescript";
  const std::string command =
      absl::StrCat("GVSL_SERVER=", service_.address, " script -qec '", GVSL_BIN_DIR,
                   "/gvsl jobs watch a' '", typescript, "' < /dev/null > /dev/null 2>&1");
  ASSERT_EQ(std::system(command.c_str()), 0) << "script (util-linux)";
  std::stringstream text;
  text << std::ifstream(typescript).rdbuf();
  EXPECT_TRUE(absl::StrContains(text.str(), "training  [")) << text.str();
  EXPECT_TRUE(absl::StrContains(text.str(), "100%  step 20 of 20")) << text.str();
  EXPECT_TRUE(absl::StrContains(text.str(), "validation at step 10")) << text.str();
}

TEST_F(JobsProgramTest, AWatchOfAJobThatDoesNotSucceedFails) {
  service_.job.set_state(v1::Job::FAILED);
  service_.job.set_failure("the disk is full; free some");
  for (const char* arguments : {"jobs watch a", "jobs resume a --watch"}) {
    const Outcome outcome = Gvsl(arguments);
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_TRUE(absl::StrContains(outcome.output, "the disk is full; free some")) << outcome.output;
  }
  service_.job.set_state(v1::Job::CANCELLED);
  EXPECT_EQ(Gvsl("jobs watch a").exit_code, 1);
}

TEST_F(JobsProgramTest, JsonOfAWatchIsADocumentALineAlsoOfItsFailure) {
  service_.job.set_state(v1::Job::FAILED);
  service_.AddStep(10);
  const Outcome outcome = Gvsl("--json jobs watch a");
  const auto lines = Lines(outcome);
  ASSERT_EQ(lines.size(), 3u) << outcome.output;
  EXPECT_EQ(lines[0].rfind("{\"job\":{\"name\":\"jobs/a\"", 0), 0u) << lines[0];
  EXPECT_EQ(lines[1].rfind("{\"event\":{\"sequence\":\"1\"", 0), 0u) << lines[1];
  EXPECT_TRUE(absl::StrContains(lines[2], "JOB_FAILED")) << lines[2];
}

TEST_F(JobsProgramTest, TablesNameWhatTheServerHas) {
  service_.jobs_listed = 5;
  service_.job.set_display_name("heart");
  service_.job.set_total_steps(20);
  service_.AddStep(10);
  service_.artifacts["checkpoints/step-000000010.safetensors"] = std::string(2048, 'x');
  EXPECT_EQ(Lines(Gvsl("jobs list")).size(), 6u);
  EXPECT_TRUE(absl::StrContains(Gvsl("jobs show jobs/a").output, "10 of 20"));
  EXPECT_TRUE(absl::StrContains(Gvsl("--json jobs show a").output, "\"displayName\": \"heart\""));
  EXPECT_TRUE(absl::StrContains(Gvsl("jobs artifacts a").output,
                                "checkpoints/step-000000010.safetensors  2.0 KiB"));
}

TEST_F(JobsProgramTest, TheSpecOfAJobCanBeSubmittedAgain) {
  service_.job.mutable_spec()->mutable_data()->set_filter("tags:\"a\"");
  service_.job.mutable_spec()->mutable_method()->set_fundament(false);
  EXPECT_EQ(Gvsl("jobs show a --spec > again.textproto").exit_code, 0);
  EXPECT_EQ(Gvsl("jobs submit again.textproto").exit_code, 0);
  EXPECT_EQ(service_.created.at(0).job().spec().SerializeAsString(),
            service_.job.spec().SerializeAsString());
}

TEST_F(JobsProgramTest, LogsArePrintedByteForByte) {
  service_.log = "epoch 1\nepoch 2\n";
  EXPECT_EQ(Gvsl("jobs logs a --follow").output, service_.log);
  EXPECT_TRUE(service_.logs_read.at(0).follow());
  EXPECT_EQ(Gvsl("jobs logs a --offset 8").output, "epoch 2\n");
}

TEST_F(JobsProgramTest, CancelWaitsWhenAskedTo) {
  service_.job.set_state(v1::Job::CANCELLED);
  EXPECT_EQ(Gvsl("jobs cancel a").exit_code, 0);
  EXPECT_TRUE(service_.watched.empty());
  EXPECT_EQ(Gvsl("jobs cancel a --wait").exit_code, 0);
  EXPECT_EQ(service_.watched.size(), 1u);
}

TEST_F(JobsProgramTest, ABareIdAndAFullNameMeanTheSameJob) {
  Gvsl("jobs cancel a");
  Gvsl("jobs resume jobs/a");
  Gvsl("jobs delete a jobs/a");
  EXPECT_EQ(service_.names, (std::vector<std::string>{"cancel jobs/a", "resume jobs/a",
                                                      "delete jobs/a", "delete jobs/a"}));
}

TEST_F(JobsProgramTest, DownloadAndPlotWriteTheirFiles) {
  service_.artifacts["pictures/step.txt"] = "content";
  service_.AddStep(10);
  service_.AddStep(20);
  EXPECT_EQ(Gvsl("jobs download a pictures/step.txt").exit_code, 0);
  std::string content;
  std::ifstream(folder_ / "step.txt") >> content;
  EXPECT_EQ(content, "content");
  const Outcome outcome = Gvsl("jobs plot a -o losses.png");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "wrote losses.png\n");
  std::ifstream(folder_ / "losses.png") >> content;
  EXPECT_EQ(content.substr(1, 3), "PNG");
  EXPECT_EQ(Gvsl("jobs plot a -o losses.jpg").exit_code, 2);
  EXPECT_EQ(Gvsl("jobs plot b -o losses.png").exit_code, 1);
}

TEST_F(JobsProgramTest, EveryHelpHasAnExampleAndTheCompletionKnowsTheWords) {
  const std::string completion = Gvsl("completion bash").output;
  for (const char* verb : {"submit", "list", "show", "watch", "logs", "cancel", "resume", "delete",
                           "artifacts", "download", "plot"}) {
    const Outcome outcome = Gvsl(absl::StrCat("jobs ", verb, " --help"));
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_TRUE(absl::StrContains(outcome.output, absl::StrCat("Example:\n  gvsl jobs ", verb)))
        << outcome.output;
    EXPECT_TRUE(absl::StrContains(completion, absl::StrCat("'jobs ", verb, "')"))) << verb;
  }
  EXPECT_TRUE(absl::StrContains(completion, "--dry_run"));
}

}  // namespace
}  // namespace gvsl
