// gvsl_test_trainer: does all that docs/adr/0006-job-folder.md asks of gvsl-trainer, and trains
// nothing. For the tests of the server alone: it fails where it is told to, as a real one cannot.
//
//   gvsl_test_trainer [--crash_at=STEP] ... FOLDER
#include <fcntl.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>

#include "gvsl/v1/jobs.pb.h"
#include "gvsl/v1/training_task.pb.h"

namespace {

namespace fs = std::filesystem;
using gvsl::v1::JobEvent;

volatile sig_atomic_t stop_requested = 0;

// What it is told to do wrong. Steps of 0 never come.
struct Faults {
  int64_t crash_at = 0;     // this step...
  int64_t crash_after = 0;  // ...or so many steps after its beginning
  int crashes = 1 << 20;    // of this many processes, the first ones
  int signal = 0;           // that it dies of; 0: exit_code
  int exit_code = 1;
  bool torn = false;    // half an event is the last thing it writes
  int64_t fail_at = 0;  // Ended FAILED
  bool retryable = false;
  int64_t hang_at = 0;    // says and does nothing more
  bool deaf = false;      // to SIGTERM
  int lock_delay_ms = 0;  // before it takes the lock
  int step_ms = 2;
  std::string model;  // a file to take for the trained one
};

Faults ParseFaults(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (int i = 1; i + 1 < argc; ++i) {
    const std::string text = argv[i];
    const size_t equal = std::min(text.find('='), text.size());
    given[text.substr(0, equal)] = equal < text.size() ? text.substr(equal + 1) : "1";
  }
  const auto number = [&](const char* name, int64_t otherwise) {
    return given.count(name) > 0 ? std::atoll(given[name].c_str()) : otherwise;
  };
  Faults faults;
  faults.crash_at = number("--crash_at", 0);
  faults.crash_after = number("--crash_after", 0);
  faults.crashes = static_cast<int>(number("--crashes", faults.crashes));
  faults.signal = static_cast<int>(number("--signal", 0));
  faults.exit_code = static_cast<int>(number("--exit_code", 1));
  faults.torn = number("--torn", 0) != 0;
  faults.fail_at = number("--fail_at", 0);
  faults.retryable = number("--retryable", 0) != 0;
  faults.hang_at = number("--hang_at", 0);
  faults.deaf = number("--deaf", 0) != 0;
  faults.lock_delay_ms = static_cast<int>(number("--lock_delay_ms", 0));
  faults.step_ms = static_cast<int>(number("--step_ms", faults.step_ms));
  faults.model = given["--model"];
  return faults;
}

class Events {
 public:
  explicit Events(const std::string& path) : path_(path) {
    std::ifstream in(path_, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    const std::string all = text.str();
    const size_t whole = all.rfind('\n') == std::string::npos ? 0 : all.rfind('\n') + 1;
    if (whole < all.size()) fs::resize_file(path_, whole);
    std::istringstream lines(all.substr(0, whole));
    for (std::string line; std::getline(lines, line);) {
      JobEvent event;
      (void)google::protobuf::util::JsonStringToMessage(line, &event);
      sequence_ = event.sequence();
      processes_ += event.has_started() ? 1 : 0;
    }
  }
  int processes() const { return processes_; }

  void Append(JobEvent event, bool torn = false) {
    event.set_sequence(++sequence_);
    event.mutable_time()->set_seconds(std::time(nullptr));
    std::string line;
    (void)google::protobuf::util::MessageToJsonString(event, &line);
    line = torn ? line.substr(0, line.size() / 2) : line + "\n";
    const int file = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (write(file, line.data(), line.size()) < 0) std::perror("events");
    fsync(file);
    close(file);
  }

 private:
  const std::string path_;
  int64_t sequence_ = 0;
  int processes_ = 0;
};

// The server's promise to its process: a session of its own, and no open files but these three.
void TellOfMyself() {
  std::string files;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd"))
    files += entry.path().filename().string() + " ";
  std::fprintf(stderr, "session %s, open files %d\n", getsid(0) == getpid() ? "own" : "shared",
               static_cast<int>(std::count(files.begin(), files.end(), ' ')) - 1);
}

class Trainer {
 public:
  Trainer(Faults faults, std::string folder)
      : faults_(std::move(faults)),
        folder_(std::move(folder)),
        events_(folder_ + "/events.jsonl") {}

  int Run() {
    std::ifstream in(folder_ + "/task.textproto");
    std::stringstream text;
    text << in.rdbuf();
    if (!google::protobuf::TextFormat::ParseFromString(text.str(), &task_)) return 2;
    Begin();
    const int64_t begin = step_, steps = task_.spec().optimization().steps();
    const auto& upkeep = task_.spec().upkeep();
    while (step_ < steps) {
      std::this_thread::sleep_for(std::chrono::milliseconds(faults_.step_ms));
      ++step_;
      if (step_ == faults_.crash_at || step_ - begin == faults_.crash_after) Crash();
      if (step_ == faults_.fail_at) return Fail();
      while (step_ == faults_.hang_at) pause();
      if (step_ % upkeep.report_every() == 0) Report();
      if (step_ % upkeep.validate_every() == 0 && task_.validation_size() > 0) Validate();
      if (step_ % upkeep.checkpoint_every() == 0) Checkpoint();
      if (stop_requested != 0) {
        Checkpoint();
        return End(JobEvent::Ended::STOPPED, "");
      }
    }
    fs::create_directories(folder_ + "/pictures");
    std::ofstream(folder_ + "/pictures/step.png") << "a picture";
    fs::copy_file(faults_.model, folder_ + "/last.safetensors",
                  fs::copy_options::overwrite_existing);
    return End(JobEvent::Ended::SUCCEEDED, "");
  }

 private:
  void Begin() {
    JobEvent event;
    auto* started = event.mutable_started();
    fs::create_directories(folder_ + "/checkpoints");
    for (const auto& entry : fs::directory_iterator(folder_ + "/checkpoints")) {
      const std::string name = entry.path().filename().string();
      const int64_t step = std::atoll(name.c_str() + 5);  // step-000000010.safetensors
      if (step <= step_) continue;
      step_ = step;
      started->set_checkpoint("checkpoints/" + name);
    }
    started->set_step(step_);
    started->set_device("cpu");
    events_.Append(event);
  }
  void Report() {
    JobEvent event;
    auto* step = event.mutable_step();
    step->set_step(step_);
    step->set_steps_per_second(100);
    step->mutable_losses()->set_total(1.0 / static_cast<double>(step_));
    events_.Append(event);
  }
  void Validate() {
    JobEvent event;
    event.mutable_validation()->set_step(step_);
    event.mutable_validation()->mutable_losses()->set_total(1.0 / static_cast<double>(step_));
    event.mutable_validation()->set_best(true);
    events_.Append(event);
  }
  void Checkpoint() {
    char name[64];
    std::snprintf(name, sizeof(name), "checkpoints/step-%09lld.safetensors",
                  static_cast<long long>(step_));
    std::ofstream(folder_ + "/" + name) << "weights of step " << step_;
    JobEvent event;
    event.mutable_checkpoint()->set_step(step_);
    event.mutable_checkpoint()->set_path(name);
    events_.Append(event);
  }
  int End(JobEvent::Ended::Outcome outcome, const std::string& message) {
    JobEvent event;
    event.mutable_ended()->set_outcome(outcome);
    event.mutable_ended()->set_step(step_);
    event.mutable_ended()->set_message(message);
    event.mutable_ended()->set_retryable(faults_.retryable);
    if (outcome == JobEvent::Ended::SUCCEEDED) event.mutable_ended()->set_model("last.safetensors");
    events_.Append(event);
    return outcome == JobEvent::Ended::FAILED ? 1 : 0;
  }
  int Fail() {
    return End(JobEvent::Ended::FAILED, "The voxels of volumes/x are damaged; upload it again.");
  }
  void Crash() {
    if (events_.processes() >= faults_.crashes) return;
    std::fprintf(stderr, "cannot go on in %s/checkpoints\n", folder_.c_str());
    if (faults_.torn) {
      JobEvent event;
      event.mutable_warning()->set_message("never said to its end");
      events_.Append(event, true);
    }
    if (faults_.signal != 0) {
      signal(faults_.signal, SIG_DFL);
      raise(faults_.signal);
    }
    _exit(faults_.exit_code);
  }

  const Faults faults_;
  const std::string folder_;
  Events events_;
  gvsl::v1::TrainingTask task_;
  int64_t step_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const Faults faults = ParseFaults(argc, argv);
  const std::string folder = argv[argc - 1];
  signal(
      SIGTERM, faults.deaf ? SIG_IGN : [](int) { stop_requested = 1; });
  TellOfMyself();
  std::this_thread::sleep_for(std::chrono::milliseconds(faults.lock_delay_ms));
  const int lock = open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  struct flock wanted = {};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_SET;
  if (fcntl(lock, F_SETLK, &wanted) != 0) return 3;
  if (!fs::exists(folder + "/task.textproto")) {
    std::fputs("there is no task\n", stderr);
    return 3;
  }
  return Trainer(faults, folder).Run();
}
