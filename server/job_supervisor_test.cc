#include "server/job_supervisor.h"

#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <atomic>

#include "server/job_spec.h"
#include "server/job_task.h"
#include "server/job_test_fixture.h"
#include "server/names.h"

namespace gvsl {
namespace {

using namespace std::chrono_literals;
using Steps = std::vector<int64_t>;

// A server's state without its network, so that a supervisor can be had and lost at will.
class JobSupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    v1::ServerConfig config;
    config.set_data_dir(data_dir_);
    config.set_device("cpu");
    config.set_threads(1);
    config.set_queue_capacity(1);
    config.set_upload_expiry_h(1);
    auto state = ServerState::Open(config);
    ASSERT_TRUE(state.ok()) << state.status();
    state_ = *std::move(state);
    for (const char* id : {"a", "b", "c", "d"}) {
      StoredVolume volume;
      volume.volume.set_name(absl::StrCat("volumes/", id));
      volume.volume.set_kind(v1::Volume::IMAGE);
      volume.volume.set_content_sha256(id);
      volume.blob_sha256 = id;
      ASSERT_TRUE(state_->metadata->AddVolume(volume, {}).ok());
    }
  }
  void TearDown() override {
    supervisor_.reset();
    KillProcesses(data_dir_);
  }

  // Begins to supervise, with pauses that a test can wait for.
  void Supervise(const std::string& faults, int restarts = 1,
                 const std::function<void(JobSupervisor::Options&)>& adjust = {}) {
    JobSupervisor::Options options;
    options.trainer = trainers_.With(faults);
    options.restarts = restarts;
    options.poll = 10ms;
    options.first_pause = 5ms;
    if (adjust) adjust(options);
    supervisor_.reset();
    supervisor_ = std::make_unique<JobSupervisor>(*state_, options);
  }
  std::string Queue(const v1::PretrainingSpec& spec) {
    v1::Job asked;
    asked.set_display_name("a job");
    *asked.mutable_spec() = spec;
    asked.mutable_spec()->mutable_data()->add_volumes("volumes/a");
    asked.mutable_spec()->mutable_data()->add_volumes("volumes/b");
    auto resolved = ResolveJob(asked, *state_->metadata, false);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    *asked.mutable_spec() = resolved->spec;
    asked.set_name("jobs/" + NewId());
    asked.set_state(v1::Job::QUEUED);
    asked.set_total_steps(spec.optimization().steps());
    asked.set_data_sha256(resolved->data.sha256);
    *asked.mutable_create_time() = Now();
    JobInputs inputs = {{"volumes/a", "volumes/b"}, {}, resolved->initial_model};
    for (const auto& volume : resolved->data.validation) inputs.validation.push_back(volume.name());
    const auto added = state_->jobs->Add(asked, inputs, {});
    EXPECT_TRUE(added.ok()) << added.status();
    return asked.name();
  }
  std::string Queue(int64_t steps) { return Queue(SmallSpec(steps)); }
  v1::Job Get(const std::string& name) {
    auto stored = state_->jobs->Get(name);
    EXPECT_TRUE(stored.ok()) << stored.status();
    return stored.ok() ? stored->job : v1::Job();
  }
  v1::Job Await(const std::string& name, v1::Job::State state) {
    EXPECT_TRUE(Eventually([&] { return Get(name).state() == state; }))
        << Get(name).ShortDebugString();
    return Get(name);
  }
  void AwaitStep(const std::string& name, int64_t step) {
    EXPECT_TRUE(Eventually([&] { return Get(name).step() >= step; }))
        << Get(name).ShortDebugString();
  }
  void AskToStop(const std::string& name) {
    ASSERT_TRUE(state_->jobs
                    ->Update(name,
                             [](StoredJob& stored) {
                               stored.stop_requested = true;
                               return absl::OkStatus();
                             })
                    .ok());
  }
  void QueueAgain(const std::string& name) {
    ASSERT_TRUE(state_->jobs
                    ->Update(name,
                             [](StoredJob& stored) {
                               stored.job.set_state(v1::Job::QUEUED);
                               stored.crashes = 0;
                               return absl::OkStatus();
                             })
                    .ok());
  }
  Steps Beginnings(const std::string& name) { return BeginningsOf(data_dir_, name); }
  std::string LogOf(const std::string& name) {
    std::ifstream in(JobFolder(data_dir_, name).log_path());
    return std::string(std::istreambuf_iterator<char>(in), {});
  }

  const Folder folder_;
  const std::string data_dir_ = folder_.path() + "/data";
  Trainers trainers_{folder_.path()};
  std::unique_ptr<ServerState> state_;
  std::unique_ptr<JobSupervisor> supervisor_;
};

TEST_F(JobSupervisorTest, AJobRunsToItsEndAndItsModelIsStored) {
  v1::PretrainingSpec spec = SmallSpec(30);
  spec.mutable_data()->add_validation_volumes("volumes/c");
  spec.mutable_data()->add_validation_volumes("volumes/d");
  spec.mutable_upkeep()->set_validate_every(10);
  const std::string name = Queue(spec);
  Supervise("");
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(job.step(), 30);
  EXPECT_EQ(job.last_step().step(), 30);
  EXPECT_EQ(job.best_validation().step(), 30);
  EXPECT_FALSE(job.has_remaining());
  EXPECT_EQ(job.restarts(), 0);
  EXPECT_EQ(job.failure(), "");
  EXPECT_TRUE(job.has_start_time() && job.has_end_time());
  EXPECT_EQ(Beginnings(name), Steps{0});

  const auto model = state_->metadata->GetModel(job.model());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->model.display_name(), "a job");
  EXPECT_EQ(model->model.card().widths(0), 8);
  EXPECT_TRUE(fs::exists(state_->blobs->PathOf(model->blob_sha256)));
  EXPECT_TRUE(fs::exists(data_dir_ + "/" + name + "/last.safetensors"));
  EXPECT_TRUE(fs::is_empty(data_dir_ + "/scratch"));
}

TEST_F(JobSupervisorTest, ItsProcessHasASessionOfItsOwnAndNothingOfTheServers) {
  const std::string name = Queue(10);
  Supervise("");
  Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(LogOf(name), "session own, open files 3\n");
}

TEST_F(JobSupervisorTest, AProcessThatDiesGoesOnFromItsLastCheckpoint) {
  const std::string name = Queue(40);
  Supervise("--crash_at=25 --crashes=1 --signal=11 --torn");
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(job.restarts(), 1);
  EXPECT_EQ(Beginnings(name), (Steps{0, 20}));
  int64_t last = 0;
  for (const v1::JobEvent& event : EventsOf(data_dir_, name)) {
    EXPECT_EQ(event.sequence(), ++last);
    EXPECT_FALSE(event.has_warning()) << "half an event is none";
  }
}

TEST_F(JobSupervisorTest, AProcessThatDiesAgainAndAgainFailsInWords) {
  const std::string name = Queue(40);
  Supervise("--crash_at=25 --signal=9", 2);
  const v1::Job job = Await(name, v1::Job::FAILED);
  EXPECT_EQ(job.restarts(), 2);
  EXPECT_EQ(Beginnings(name), (Steps{0, 20, 20}));
  for (const char* words : {"SIGKILL", "memory", "3 time(s)", "cannot go on in checkpoints"})
    EXPECT_NE(job.failure().find(words), std::string::npos) << words << ": " << job.failure();
  EXPECT_EQ(job.failure().find(folder_.path()), std::string::npos) << job.failure();
  EXPECT_TRUE(job.has_end_time());
}

TEST_F(JobSupervisorTest, AProcessThatGetsFurtherEachTimeMayDieAsOftenAsItLikes) {
  const std::string name = Queue(60);
  Supervise("--crash_after=15", 1);  // at 15, 25, 35, 45, 55: each behind another checkpoint
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(job.restarts(), 5);
  EXPECT_EQ(Beginnings(name), (Steps{0, 10, 20, 30, 40, 50}));
}

TEST_F(JobSupervisorTest, AFailureThatNothingCanMendIsFinalAtOnce) {
  const std::string name = Queue(40);
  Supervise("--fail_at=5", 5);
  const v1::Job job = Await(name, v1::Job::FAILED);
  EXPECT_EQ(job.failure(), "The voxels of volumes/x are damaged; upload it again.");
  EXPECT_EQ(job.restarts(), 0);
  EXPECT_EQ(job.step(), 5);
}

TEST_F(JobSupervisorTest, AFailureThatMayPassIsTriedAgain) {
  const std::string name = Queue(40);
  Supervise("--fail_at=5 --retryable", 2);
  const v1::Job job = Await(name, v1::Job::FAILED);
  EXPECT_EQ(job.restarts(), 2);
  EXPECT_NE(job.failure().find("volumes/x are damaged"), std::string::npos) << job.failure();
}

TEST_F(JobSupervisorTest, AJobThatIsToldToStopCanGoOnFromWhereItWas) {
  const std::string name = Queue(2000);
  Supervise("--step_ms=10");
  AwaitStep(name, 12);
  AskToStop(name);
  const v1::Job stopped = Await(name, v1::Job::CANCELLED);
  EXPECT_LT(stopped.step(), 2000);
  EXPECT_TRUE(stopped.has_end_time());
  EXPECT_EQ(ProcessOf(data_dir_, name), 0);
  Supervise("--step_ms=0");
  QueueAgain(name);
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(Beginnings(name), (Steps{0, stopped.step()}));
  EXPECT_EQ(job.restarts(), 0);
}

TEST_F(JobSupervisorTest, AProcessThatDoesNotStopIsKilled) {
  const std::string name = Queue(2000);
  Supervise("--deaf --hang_at=15", 1, [](auto& options) { options.stop_patience = 1s; });
  AwaitStep(name, 14);
  AskToStop(name);
  EXPECT_EQ(Await(name, v1::Job::CANCELLED).restarts(), 0);
  EXPECT_EQ(ProcessOf(data_dir_, name), 0);
}

TEST_F(JobSupervisorTest, JobsWaitForTheirTurnInTheOrderTheyCame) {
  const std::string first = Queue(100), second = Queue(20), third = Queue(20);
  std::atomic<int64_t> most{0};
  std::atomic<bool> done{false};
  std::thread watcher([&] {
    while (!done) most = std::max(most.load(), state_->jobs->Totals()->running);
  });
  Supervise("");
  const v1::Job third_done = Await(third, v1::Job::SUCCEEDED);
  done = true;
  watcher.join();
  EXPECT_EQ(most, 1);
  const v1::Job first_done = Get(first), second_done = Get(second);
  EXPECT_EQ(second_done.state(), v1::Job::SUCCEEDED);
  const auto micros = [](const google::protobuf::Timestamp& time) {
    return time.seconds() * 1000000 + time.nanos() / 1000;
  };
  EXPECT_LE(micros(first_done.end_time()), micros(second_done.start_time()));
  EXPECT_LE(micros(second_done.end_time()), micros(third_done.start_time()));
}

TEST_F(JobSupervisorTest, AsManyRunAtOnceAsTheServerMayRun) {
  const std::string first = Queue(100000), second = Queue(100000), third = Queue(100000);
  Supervise("", 1, [](auto& options) { options.concurrent = 2; });
  AwaitStep(first, 1);
  AwaitStep(second, 1);
  EXPECT_EQ(Get(third).state(), v1::Job::QUEUED);
}

TEST_F(JobSupervisorTest, AProcessOutlivesItsServerAndIsTheNextOnes) {
  const std::string name = Queue(500);
  Supervise("--step_ms=10");
  AwaitStep(name, 5);
  const pid_t process = ProcessOf(data_dir_, name);
  ASSERT_GT(process, 0);
  supervisor_.reset();
  const int64_t seen = Get(name).step();
  EXPECT_TRUE(Eventually([&] { return EventsOf(data_dir_, name).back().step().step() > seen; }));
  EXPECT_EQ(ProcessOf(data_dir_, name), process);
  Supervise("");
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(job.restarts(), 0);
  EXPECT_EQ(Beginnings(name), Steps{0});
}

TEST_F(JobSupervisorTest, WhatEndedWhileNoServerWatchedIsFoundOut) {
  const std::string done = Queue(60), died = Queue(100000);
  Supervise("", 1, [](auto& options) { options.concurrent = 2; });
  AwaitStep(done, 1);
  AwaitStep(died, 11);
  const pid_t process = ProcessOf(data_dir_, died);
  supervisor_.reset();
  ASSERT_EQ(kill(process, SIGKILL), 0);
  EXPECT_TRUE(Eventually(
      [&] { return ProcessOf(data_dir_, done) == 0 && ProcessOf(data_dir_, died) == 0; }));
  EXPECT_EQ(Get(done).state(), v1::Job::RUNNING);
  Supervise("", 1, [](auto& options) { options.concurrent = 2; });
  Await(done, v1::Job::SUCCEEDED);
  EXPECT_EQ(Beginnings(done), Steps{0});
  EXPECT_TRUE(Eventually([&] { return Beginnings(died).size() == 2; }));
  EXPECT_EQ(Beginnings(died)[1] % 10, 0);
  EXPECT_GE(Beginnings(died)[1], 10);
  EXPECT_EQ(Get(died).restarts(), 1);
}

TEST_F(JobSupervisorTest, AProcessThatHasNotTakenItsLockYetIsNotTakenForDead) {
  const std::string name = Queue(10);
  Supervise("--lock_delay_ms=1000");
  EXPECT_EQ(Await(name, v1::Job::SUCCEEDED).restarts(), 0);
  EXPECT_EQ(Beginnings(name), Steps{0});
}

TEST_F(JobSupervisorTest, AProcessThatComesToItsLockAfterItsJobWasCancelledDoesNothing) {
  const std::string name = Queue(100000);
  Supervise("--lock_delay_ms=1500");
  EXPECT_TRUE(Eventually([&] { return Get(name).state() == v1::Job::RUNNING; }));
  supervisor_.reset();  // the next one does not know its child
  AskToStop(name);
  Supervise("");
  Await(name, v1::Job::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return LogOf(name).find("no task") != std::string::npos; }));
  EXPECT_TRUE(EventsOf(data_dir_, name).empty());
}

TEST_F(JobSupervisorTest, ADrainStopsJobsAtACheckpointAndTheNextStartGoesOn) {
  const std::string running = Queue(2000), waiting = Queue(10);
  Supervise("--step_ms=10");
  AwaitStep(running, 12);
  supervisor_->BeginDrain();
  EXPECT_TRUE(supervisor_->FinishDrain(kPatience));
  const v1::Job stopped = Get(running);
  EXPECT_EQ(stopped.state(), v1::Job::QUEUED);
  EXPECT_FALSE(stopped.has_end_time());
  EXPECT_EQ(Get(waiting).state(), v1::Job::QUEUED);
  EXPECT_EQ(ProcessOf(data_dir_, running), 0);
  Supervise("--step_ms=0");
  Await(waiting, v1::Job::SUCCEEDED);
  const v1::Job job = Get(running);
  EXPECT_EQ(job.state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(job.restarts(), 0);
  EXPECT_EQ(Beginnings(running), (Steps{0, stopped.step()}));
}

TEST_F(JobSupervisorTest, ADrainThatIsTooShortLeavesTheProcessToTheNextStart) {
  const std::string name = Queue(300);
  Supervise("--deaf --step_ms=10");
  AwaitStep(name, 5);
  supervisor_->BeginDrain();
  EXPECT_FALSE(supervisor_->FinishDrain(50ms));
  EXPECT_EQ(Get(name).state(), v1::Job::RUNNING);
  Supervise("");
  EXPECT_EQ(Await(name, v1::Job::SUCCEEDED).restarts(), 0);
}

TEST_F(JobSupervisorTest, EventsThatALossOfPowerTookAreNotWaitedFor) {
  const std::string name = Queue(10);
  ASSERT_TRUE(state_->jobs
                  ->Update(name,
                           [](StoredJob& stored) {
                             stored.event_sequence = 1000;
                             stored.event_offset = 1000000;
                             return absl::OkStatus();
                           })
                  .ok());
  Supervise("");
  const v1::Job job = Await(name, v1::Job::SUCCEEDED);
  EXPECT_EQ(job.restarts(), 0);
  EXPECT_EQ(job.last_step().step(), 10);
}

TEST_F(JobSupervisorTest, AJobWaitsWhileTheDatabaseCannotTellOfItsVolumes) {
  const std::string name = Queue(10);
  soci::session sql(soci::sqlite3, "dbname=" + data_dir_ + "/metadata.sqlite");
  std::string record;
  sql << "SELECT record FROM volumes WHERE id = 'a'", soci::into(record);
  sql << "UPDATE volumes SET record = '{' WHERE id = 'a'";
  Supervise("");
  std::this_thread::sleep_for(200ms);  // twenty polls, in which it could fail
  EXPECT_EQ(Get(name).state(), v1::Job::QUEUED);
  sql << "UPDATE volumes SET record = :r WHERE id = 'a'", soci::use(record, "r");
  EXPECT_EQ(Await(name, v1::Job::SUCCEEDED).restarts(), 0);
}

TEST_F(JobSupervisorTest, AJobThatCannotBeReadHoldsUpNoOther) {
  const std::string first = Queue(10), second = Queue(10);
  soci::session sql(soci::sqlite3, "dbname=" + data_dir_ + "/metadata.sqlite");
  const std::string id = first.substr(first.find('/') + 1);
  sql << "UPDATE jobs SET record = '{' WHERE id = :i", soci::use(id, "i");
  ASSERT_FALSE(state_->jobs->Get(first).ok());
  Supervise("");
  Await(second, v1::Job::SUCCEEDED);
}

TEST_F(JobSupervisorTest, AServerWithoutItsTrainerSaysSo) {
  const std::string name = Queue(10);
  Supervise("", 5, [&](auto& options) { options.trainer = folder_.path() + "/absent"; });
  const v1::Job job = Await(name, v1::Job::FAILED);
  EXPECT_NE(job.failure().find("gvsl-trainer cannot be started"), std::string::npos);
  EXPECT_EQ(job.failure().find(folder_.path()), std::string::npos) << job.failure();
}

TEST_F(JobSupervisorTest, AModelThatCannotBeStoredFailsTheJobAndMayBeTriedAgain) {
  const std::string good = ModelFile({8, 8, 8, 8, 8}, folder_.path() + "/made");
  std::ofstream(trainers_.model(), std::ios::binary) << good.substr(0, good.size() - 100);
  const std::string name = Queue(10);
  Supervise("");
  const v1::Job failed = Await(name, v1::Job::FAILED);
  EXPECT_NE(failed.failure().find("could not be stored"), std::string::npos) << failed.failure();
  EXPECT_EQ(failed.failure().find(folder_.path()), std::string::npos) << failed.failure();
  std::ofstream(trainers_.model(), std::ios::binary) << good;
  QueueAgain(name);
  Await(name, v1::Job::SUCCEEDED);
}

TEST_F(JobSupervisorTest, AServerKilledBetweenModelAndRecordMakesNoSecondModel) {
  const std::string name = Queue(10);
  const std::string folder = data_dir_ + "/" + name;
  fs::create_directories(folder);
  fs::copy_file(trainers_.model(), folder + "/last.safetensors");
  const auto first = StoreModelOf(*state_, Get(name), "last.safetensors");
  ASSERT_TRUE(first.ok()) << first.status();
  Supervise("");
  EXPECT_EQ(Await(name, v1::Job::SUCCEEDED).model(), *first);
  EXPECT_EQ(state_->metadata->Totals()->models, 1);
}

TEST_F(JobSupervisorTest, AModelFileOutsideOfTheFolderIsNone) {
  const std::string name = Queue(10);
  fs::create_directories(data_dir_ + "/" + name);
  EXPECT_FALSE(StoreModelOf(*state_, Get(name), "../../../trained").ok());
  EXPECT_FALSE(StoreModelOf(*state_, Get(name), trainers_.model()).ok());
}

}  // namespace
}  // namespace gvsl
