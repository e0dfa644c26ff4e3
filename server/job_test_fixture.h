// What the tests of jobs share: the test's own trainer, told what to do wrong, and jobs for it.
#ifndef GVSL_SERVER_JOB_TEST_FIXTURE_H_
#define GVSL_SERVER_JOB_TEST_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/job_events.h"
#include "server/job_folder.h"
#include "server/service_test_fixture.h"

namespace gvsl {

// Long enough for any machine: no test waits for it to pass.
constexpr std::chrono::minutes kPatience{3};

// Waits until it holds; false if it never does.
inline bool Eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// A folder with programs for gvsld to start, each the test's trainer with faults of its own
// (testing/test_trainer.cc), and a model file for them to come out with.
class Trainers {
 public:
  explicit Trainers(std::string folder) : folder_(std::move(folder)) {
    std::ofstream(model(), std::ios::binary) << ModelFile({8, 8, 8, 8, 8}, folder_ + "/made");
  }
  std::string model() const { return folder_ + "/trained"; }
  std::string With(const std::string& faults) {
    const std::string path = absl::StrCat(folder_, "/trainer", ++count_);
    std::ofstream(path) << "#!/bin/sh\nexec " << GVSL_BIN_DIR
                        << "/gvsl_test_trainer --model=" << model() << " " << faults << " \"$1\"\n";
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }

 private:
  const std::string folder_;
  int count_ = 0;
};

// The process of a job, when it has one; it goes on without a server.
inline pid_t ProcessOf(const std::string& data_dir, const std::string& job) {
  const auto holder = JobFolder(data_dir, job).LockHolder();
  EXPECT_TRUE(holder.ok()) << holder.status();
  return holder.value_or(0);
}

// A process that holds the lock of a folder until it is killed.
class Holder {
 public:
  explicit Holder(const std::string& folder) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    child_ = fork();
    if (child_ == 0) {
      const int file = open((folder + "/lock").c_str(), O_RDWR | O_CREAT, 0600);
      struct flock wanted = {};
      wanted.l_type = F_WRLCK;
      wanted.l_whence = SEEK_SET;
      const bool held = fcntl(file, F_SETLK, &wanted) == 0;
      if (write(ready[1], held ? "1" : "0", 1) == 1) pause();
      _exit(0);
    }
    char held = '0';
    EXPECT_EQ(read(ready[0], &held, 1), 1);
    EXPECT_EQ(held, '1');
    close(ready[0]);
    close(ready[1]);
  }
  ~Holder() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  pid_t pid() const { return child_; }

 private:
  pid_t child_;
};

// Leaves no process behind, whatever became of the test.
inline void KillProcesses(const std::string& data_dir) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(data_dir + "/jobs", error)) {
    const pid_t pid = ProcessOf(data_dir, "jobs/" + entry.path().filename().string());
    if (pid > 0) kill(-pid, SIGKILL);
  }
}

// All events of a job so far.
inline std::vector<v1::JobEvent> EventsOf(const std::string& data_dir, const std::string& job) {
  JobEventReader reader(JobFolder(data_dir, job).events_path());
  std::vector<v1::JobEvent> events;
  while (auto event = reader.Next()) events.push_back(*std::move(event));
  return events;
}

// The steps at which a job's processes began.
inline std::vector<int64_t> BeginningsOf(const std::string& data_dir, const std::string& job) {
  std::vector<int64_t> steps;
  for (const v1::JobEvent& event : EventsOf(data_dir, job)) {
    if (event.has_started()) steps.push_back(event.started().step());
  }
  return steps;
}

// Of so many steps, a checkpoint every ten, small enough for any machine.
inline v1::PretrainingSpec SmallSpec(int64_t steps) {
  v1::PretrainingSpec spec;
  spec.mutable_data()->set_crop(32);
  spec.mutable_network()->set_size("tiny");
  spec.mutable_optimization()->set_steps(steps);
  spec.mutable_upkeep()->set_checkpoint_every(10);
  spec.mutable_upkeep()->set_report_every(1);
  return spec;
}

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_TEST_FIXTURE_H_
