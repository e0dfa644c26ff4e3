// Whoever follows a job: watchers, logs, artifacts; and followers over the end of a server.
#include "server/job_feeds.h"

#include <spawn.h>
#include <sys/wait.h>

#include <set>

#include "server/job_service_test_fixture.h"

namespace gvsl {
namespace {

class JobFeedsTest : public JobServiceTest {};

TEST_F(JobFeedsTest, AWatcherIsToldTheRecordEveryEventAndTheEnd) {
  Start();
  const std::string name = Created(30);
  Messages messages;
  ASSERT_OK(Watch(name, 0, &messages));
  ASSERT_TRUE(messages.front().has_job());
  EXPECT_EQ(messages.back().job().state(), v1::Job::SUCCEEDED);
  EXPECT_NE(messages.back().job().model(), "");
  int64_t sequence = 0;
  std::vector<v1::Job::State> states;
  for (const auto& message : messages) {
    if (message.has_event()) {
      EXPECT_EQ(message.event().sequence(), ++sequence);
    } else {
      states.push_back(message.job().state());
    }
  }
  EXPECT_EQ(sequence, static_cast<int64_t>(EventsOf(data_dir_, name).size()));
  EXPECT_EQ(std::set<v1::Job::State>(states.begin(), states.end()).size(), states.size());

  Messages rest;
  ASSERT_OK(Watch(name, sequence - 3, &rest));
  ASSERT_EQ(rest.size(), 4u);
  EXPECT_TRUE(rest[0].has_job());
  EXPECT_EQ(rest[1].event().sequence(), sequence - 2);
  Messages none;
  const grpc::Status absent = Watch("jobs/none", 0, &none);
  EXPECT_EQ(ReasonOf(absent), "JOB_NOT_FOUND");
  EXPECT_EQ(FieldOf(Watch("../etc", 0, &none)), "name");
  EXPECT_EQ(FieldOf(Watch(name, -1, &none)), "after_sequence");
}

TEST_F(JobFeedsTest, HundredsOfWatchersTakeNoThreadOfOtherCalls) {
  Start("--step_ms=20");
  const std::string name = Created(100000);
  AwaitStep(name, 2);
  constexpr int kWatchers = 500;  // more than calls may run at once
  v1::WatchJobRequest request;
  request.set_name(name);
  std::vector<std::unique_ptr<ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchJobResponse>>> readers;
  v1::WatchJobResponse message;
  for (int i = 0; i < kWatchers; ++i) {
    contexts.push_back(std::make_unique<ClientContext>());
    readers.push_back(jobs().WatchJob(contexts.back().get(), request));
  }
  for (auto& reader : readers) {
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_TRUE(message.has_job());
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.event().sequence(), 1);
  }
  v1::Job job;
  EXPECT_OK(Get(name, &job));
  for (int i = 0; i < kWatchers; i += 2) contexts[i]->TryCancel();  // some go as they came
  ASSERT_OK(Cancel(name, &job));
  for (int i = 0; i < kWatchers; ++i) {
    v1::Job::State last = v1::Job::STATE_UNSPECIFIED;
    while (readers[i]->Read(&message)) {
      if (message.has_job()) last = message.job().state();
    }
    const grpc::Status status = readers[i]->Finish();
    if (i % 2 == 1) {
      EXPECT_OK(status);
      EXPECT_EQ(last, v1::Job::CANCELLED);
    } else {
      EXPECT_EQ(status.error_code(), StatusCode::CANCELLED);
    }
  }
}

TEST_F(JobFeedsTest, TheLogIsReadInPartsAndFollowedToTheEnd) {
  Start("--crash_at=15 --crashes=1");
  const std::string name = Created(30);
  std::string followed, whole, rest, none;
  ASSERT_OK(Log(name, 0, true, &followed));
  Await(name, v1::Job::SUCCEEDED);
  ASSERT_OK(Log(name, 0, false, &whole));
  EXPECT_EQ(followed, whole);
  EXPECT_NE(whole.find("cannot go on"), std::string::npos);
  ASSERT_OK(Log(name, 10, false, &rest));
  EXPECT_EQ(rest, whole.substr(10));
  ASSERT_OK(Log(name, static_cast<int64_t>(whole.size()), true, &none));
  EXPECT_EQ(none, "");
  EXPECT_EQ(FieldOf(Log(name, static_cast<int64_t>(whole.size()) + 1, false, &none)), "offset");
  EXPECT_EQ(FieldOf(Log(name, -1, false, &none)), "offset");
}

TEST_F(JobFeedsTest, ArtifactsAreListedAndDownloaded) {
  Start();
  const std::string name = Created(40);
  Await(name, v1::Job::SUCCEEDED);
  v1::ListJobArtifactsResponse list;
  ASSERT_OK(Call(&v1::JobService::Stub::ListJobArtifacts, name, &list));
  std::vector<std::string> paths;
  for (const auto& artifact : list.artifacts()) paths.push_back(artifact.path());
  EXPECT_EQ(paths.front(), "checkpoints/step-000000010.safetensors");
  EXPECT_EQ(paths.back(), "pictures/step.png");
  std::string model, nothing;
  ASSERT_OK(Download(name, "last.safetensors", &model));
  std::ifstream in(trainers_.model(), std::ios::binary);
  EXPECT_EQ(model, std::string(std::istreambuf_iterator<char>(in), {}));
  for (const char* path : {"task.textproto", "../../metadata.sqlite", "log.txt"}) {
    const grpc::Status refused = Download(name, path, &nothing);
    EXPECT_EQ(refused.error_code(), StatusCode::NOT_FOUND) << path;
    EXPECT_EQ(ReasonOf(refused), "ARTIFACT_NOT_FOUND") << path;
  }
  EXPECT_EQ(FieldOf(Download(name, "", &nothing)), "path");
  EXPECT_EQ(nothing, "");
}

TEST_F(JobFeedsTest, ADrainEndsWatchersAndTheNextServerGoesOn) {
  Start("--step_ms=10");
  const std::string name = Created(60);
  AwaitStep(name, 12);
  v1::WatchJobRequest request;
  request.set_name(name);
  ClientContext context;
  auto reader = jobs().WatchJob(&context, request);
  v1::WatchJobResponse message;
  ASSERT_TRUE(reader->Read(&message));  // it watches
  service_->server->Drain();
  int64_t sequence = 0;
  while (reader->Read(&message)) sequence = std::max(sequence, message.event().sequence());
  const grpc::Status cut = reader->Finish();
  EXPECT_EQ(cut.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(cut), "DRAINING");
  Start();
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(job.restarts(), 0);
  EXPECT_EQ(BeginningsOf(data_dir_, name).size(), 2u);
  Messages rest;
  ASSERT_OK(Watch(name, sequence, &rest));
  EXPECT_EQ(rest[1].event().sequence(), sequence + 1);
  EXPECT_EQ(rest.front().job().state(), v1::Job::SUCCEEDED);
}

// The real program, which can be killed.
class Gvsld {
 public:
  Gvsld(const std::string& folder, const std::string& trainer) {
    const std::string port_file = folder + "/port";
    fs::remove(port_file);
    std::vector<std::string> words = {GVSL_BIN_DIR "/gvsld",
                                      "--data_dir",
                                      folder + "/data",
                                      "--listen",
                                      "127.0.0.1:0",
                                      "--device",
                                      "cpu",
                                      "--trainer",
                                      trainer,
                                      "--port_file",
                                      port_file};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], nullptr, nullptr, argv.data(), environ), 0);
    EXPECT_TRUE(Eventually([&] { return fs::exists(port_file); }));
    std::string port;
    std::ifstream(port_file) >> port;
    channel_ = grpc::CreateChannel("127.0.0.1:" + port, grpc::InsecureChannelCredentials());
    jobs = v1::JobService::NewStub(channel_);
  }
  ~Gvsld() { Kill(SIGKILL); }
  void Kill(int signal) {
    if (pid_ <= 0) return;
    kill(pid_, signal);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  std::unique_ptr<v1::JobService::Stub> jobs;

 private:
  pid_t pid_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(JobFeedsTest, AJobGoesOnWhenItsServerIsKilledAndTheNextServerTakesItOver) {
  Start();
  v1::CreateJobRequest request = Request(300);
  service_.reset();  // its volumes stay
  const std::string trainer = trainers_.With("--step_ms=20");
  v1::Job job;
  {
    Gvsld killed(folder_.path(), trainer);
    ClientContext context;
    ASSERT_OK(killed.jobs->CreateJob(&context, request, &job));
    EXPECT_TRUE(Eventually([&] { return EventsOf(data_dir_, job.name()).size() > 5; }));
    killed.Kill(SIGKILL);
  }
  const pid_t process = ProcessOf(data_dir_, job.name());
  EXPECT_GT(process, 0);
  Gvsld next(folder_.path(), trainer);
  v1::WatchJobRequest watch;
  watch.set_name(job.name());
  ClientContext context;
  auto reader = next.jobs->WatchJob(&context, watch);
  v1::WatchJobResponse message;
  int64_t sequence = 0;
  while (reader->Read(&message)) {
    if (!message.has_event()) continue;
    EXPECT_EQ(message.event().sequence(), ++sequence);
  }
  EXPECT_OK(reader->Finish());
  EXPECT_EQ(message.job().state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(message.job().restarts(), 0);
  EXPECT_EQ(BeginningsOf(data_dir_, job.name()), std::vector<int64_t>{0});
}

}  // namespace
}  // namespace gvsl
