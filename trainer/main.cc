// gvsl-trainer: runs the pre-training job of a folder (docs/adr/0006-job-folder.md).
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "model/checkpoint.h"
#include "model/extractor.h"
#include "trainer/event_log.h"
#include "trainer/folder_lock.h"
#include "trainer/job_observer.h"
#include "trainer/rank_group.h"
#include "trainer/task.h"
#include "trainer/tensorboard.h"

namespace gvsl {
namespace {

constexpr char kUsage[] =
    "usage: gvsl-trainer JOB_FOLDER\n"
    "Runs the pre-training job that JOB_FOLDER/task.textproto describes, from its last checkpoint "
    "if\n"
    "there is one. SIGTERM: writes a checkpoint and leaves. gvsld starts it; by hand:\n"
    "  gvsl-trainer data/jobs/3f2a91c0\n";

enum ExitCode { kDone = 0, kFailed = 1, kUsageError = 2, kNotOurs = 3 };

int Complain(const absl::Status& status) {
  std::fprintf(stderr, "gvsl-trainer: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

// Whether starting again from the last checkpoint may help without anyone's doing.
bool Retryable(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kInternal;
}

// What a client is told: what to do, and no path of the server.
std::string Advice(const absl::Status& status, const std::string& folder,
                   const v1::TrainingTask& task) {
  std::string message(status.message());
  if (ReasonOf(status) == "DISK_FULL") {
    message += "; free space, then resume the job: it goes on from its last checkpoint";
  }
  std::vector<std::pair<std::string, std::string>> names = {{folder + "/", ""}};
  if (!task.cache_dir().empty()) names.emplace_back(task.cache_dir() + "/", "cache/");
  for (const auto* volumes : {&task.training(), &task.validation()}) {
    for (const auto& volume : *volumes) {
      if (!volume.path().empty()) names.emplace_back(volume.path(), volume.name());
    }
  }
  return absl::StrReplaceAll(message, names);
}

// A run from its task on, and what the signal's thread needs of it. The mutex is held by whoever
// ends the run, for good: it is not ended from two sides.
struct Run {
  std::mutex mutex;
  std::string folder;
  int64_t begin = 0;  // the step that it goes on from, as far as names of checkpoints tell
  v1::TrainingTask task;
  std::unique_ptr<TensorboardWriter> tensorboard;
  std::unique_ptr<JobObserver> observer;
  Peers peers;
  std::unique_ptr<RankGroup> group;
  std::unique_ptr<Trainer> trainer;

  // The last finished step.
  int64_t step() const { return trainer != nullptr ? trainer->step() : begin; }
};

v1::JobEvent Ended(v1::JobEvent::Ended::Outcome outcome, int64_t step, const std::string& message) {
  v1::JobEvent event;
  event.mutable_ended()->set_outcome(outcome);
  event.mutable_ended()->set_step(step);
  event.mutable_ended()->set_message(message);
  return event;
}

// A handler that writes to a pipe, since libraries have started threads of their own before main,
// in which no signal can be blocked.
int signal_pipe[2];
void OnSignal(int number) {
  const char byte = static_cast<char>(number);
  if (write(signal_pipe[1], &byte, 1) < 0) _exit(kFailed);
}

absl::Status CatchSignals() {
  if (pipe2(signal_pipe, O_CLOEXEC) != 0) return absl::InternalError("no pipe for signals");
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return absl::OkStatus();
}

// Waits for SIGTERM; keeps the last finished step and ends the process, while the step under way
// goes on computing what nobody will see.
void StopOnSignal(Run& run, EventLog& events) {
  char received = 0;
  while (read(signal_pipe[0], &received, 1) != 1) {
  }
  std::fprintf(stderr, "signal %d: stopping\n", received);
  run.mutex.lock();
  absl::Status status;
  if (run.trainer != nullptr) status = run.trainer->Stop().status();
  if (status.ok()) {
    status = events.Append(Ended(v1::JobEvent::Ended::STOPPED, run.step(), ""), true);
  } else {
    auto event =
        Ended(v1::JobEvent::Ended::FAILED, run.step(), Advice(status, run.folder, run.task));
    (void)events.Append(event, true);
  }
  run.peers.Kill();
  _exit(status.ok() ? kDone : Complain(status));
}

int Cores() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

// The device of a rank of a task: all share the CPU; on CUDA each has one of its own, those that
// follow the first rank's.
absl::StatusOr<std::string> InitializeRank(const v1::TrainingTask& task, int rank) {
  const int threads = ThreadsOfRank(task, Cores());
  const std::string wanted = task.device().empty() ? "auto" : task.device();
  auto first = InitializeLibTorch({wanted, threads});
  if (!first.ok() || *first == "cpu" || rank == 0) return first;
  const int index = std::atoi(first->c_str() + sizeof("cuda:") - 1);
  return InitializeLibTorch({absl::StrCat("cuda:", index + rank), threads});
}

int LoaderThreads(const v1::TrainingTask& task, const std::string& device) {
  return device == "cpu" ? 1 : std::clamp(ThreadsOfRank(task, Cores()) / 2, 1, 8);
}

absl::Status MeetPeers(Run& run, int size, const std::string& device) {
  const std::string store = run.folder + "/.ranks";
  std::error_code ignored;
  std::filesystem::remove(store, ignored);
  absl::Status started;
  {
    const std::lock_guard<std::mutex> lock(run.mutex);
    started = run.peers.Start(run.folder, store, size);
  }
  const auto all_live = [&] {
    const std::lock_guard<std::mutex> lock(run.mutex);
    return run.peers.AllLive();
  };
  auto joined = started.ok() ? JoinRanks(store, 0, size, device, all_live) : started;
  std::filesystem::remove(store, ignored);
  if (!joined.ok()) return joined.status();
  run.group = *std::move(joined);
  return absl::OkStatus();
}

absl::StatusOr<TrainingResult> Train(Run& run, EventLog& events) {
  auto task = ReadTask(run.folder);
  if (!task.ok()) return task.status();
  {
    const std::lock_guard<std::mutex> lock(run.mutex);
    run.task = *std::move(task);
  }
  auto tensorboard = TensorboardWriter::Open(run.folder + "/tensorboard");
  if (!tensorboard.ok()) return tensorboard.status();
  run.tensorboard = *std::move(tensorboard);
  run.observer = std::make_unique<JobObserver>(run.folder, events, *run.tensorboard);
  auto setup = SetupOf(run.task, run.folder);
  if (!setup.ok()) return setup.status();
  auto device = InitializeRank(run.task, 0);
  if (!device.ok()) return device.status();
  setup->device = *device;
  setup->loader_threads = LoaderThreads(run.task, *device);
  const int size = std::max(1, run.task.spec().optimization().world_size());
  if (size > 1) {
    if (absl::Status status = MeetPeers(run, size, *device); !status.ok()) return status;
  }
  auto trainer = Trainer::Make(*setup, *run.observer, run.group.get());
  if (!trainer.ok()) return trainer.status();
  {
    const std::lock_guard<std::mutex> lock(run.mutex);
    run.trainer = *std::move(trainer);
  }
  return run.trainer->Run();
}

int Lead(const std::string& folder) {
  if (absl::Status status = CatchSignals(); !status.ok()) return Complain(status);
  auto lock = FolderLock::Take(folder);
  if (!lock.ok()) {
    Complain(lock.status());
    return lock.status().code() == absl::StatusCode::kFailedPrecondition ? kNotOurs : kFailed;
  }
  if (!std::filesystem::exists(folder + "/task.textproto")) {
    Complain(absl::NotFoundError(folder + ": there is no task.textproto; the job was cancelled "
                                          "before this process began"));
    return kNotOurs;
  }
  RemoveAsideFiles(folder, std::chrono::seconds(0));  // nobody else writes here
  auto events = EventLog::Open(folder + "/events.jsonl");
  if (!events.ok()) return Complain(events.status());
  Run run;
  run.folder = folder;
  run.begin = LastCheckpointStep(folder + "/checkpoints");
  std::thread([&] { StopOnSignal(run, **events); }).detach();

  auto result = Train(run, **events);
  // From here on a signal finds the mutex held, and the process ends by itself.
  run.mutex.lock();
  run.peers.Kill();
  absl::Status status = result.status();
  if (status.ok()) {
    auto event = Ended(v1::JobEvent::Ended::SUCCEEDED, result->step,
                       result->stopped_early ? "stopped early: validation no longer improves" : "");
    event.mutable_ended()->set_model(result->model);
    status = (*events)->Append(event, true);
  } else {
    auto event =
        Ended(v1::JobEvent::Ended::FAILED, run.step(), Advice(status, run.folder, run.task));
    event.mutable_ended()->set_retryable(Retryable(status));
    (void)(*events)->Append(event, true);
  }
  const int code = status.ok() ? kDone : Complain(status);
  std::fflush(nullptr);
  _exit(code);  // not through the destructors of what the signal's thread may look at
}

// Another rank than the first: no events, no files; the first one ends it.
class Nobody : public TrainingObserver {
 public:
  absl::Status Started(const StartReport&) override { return absl::OkStatus(); }
  absl::Status Step(const StepReport&) override { return absl::OkStatus(); }
  absl::Status Validation(const ValidationReport&) override { return absl::OkStatus(); }
  absl::Status Checkpoint(const CheckpointReport&) override { return absl::OkStatus(); }
  absl::Status Picture(const PictureReport&) override { return absl::OkStatus(); }
  absl::Status Warning(const std::string&) override { return absl::OkStatus(); }
};

int Follow(const std::string& folder, int rank, const std::string& store, pid_t leader) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != leader) return kFailed;  // it died before it could be heard of
  auto task = ReadTask(folder);
  if (!task.ok()) return Complain(task.status());
  auto setup = SetupOf(*task, folder);
  if (!setup.ok()) return Complain(setup.status());
  const int size = task->spec().optimization().world_size();
  auto device = InitializeRank(*task, rank);
  if (!device.ok()) return Complain(device.status());
  setup->device = *device;
  setup->loader_threads = LoaderThreads(*task, *device);
  auto group = JoinRanks(store, rank, size, *device);
  if (!group.ok()) return Complain(group.status());
  Nobody nobody;
  auto trainer = Trainer::Make(*setup, nobody, group->get());
  if (!trainer.ok()) return Complain(trainer.status());
  auto result = (*trainer)->Run();
  return result.ok() ? kDone : Complain(result.status());
}

}  // namespace
}  // namespace gvsl

int main(int argc, char** argv) {
  // OpenMP's threads spin while they wait for each other, unless told before the program is loaded:
  // beside anything else on the machine, such as the server, that makes both several times slower.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execv("/proc/self/exe", argv);  // as it is where that fails
  }
  prctl(PR_SET_NAME, "gvsl-trainer");  // it was started as "exe"
  std::string folder, store;
  int rank = 0;
  pid_t leader = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help") {
      std::fputs(gvsl::kUsage, stdout);
      return gvsl::kDone;
    }
    if (word == "--version") {
      std::printf("gvsl-trainer %s\n", GVSL_VERSION);
      return gvsl::kDone;
    }
    if (word == "--rank" && i + 1 < argc) {
      rank = std::atoi(argv[++i]);
    } else if (word == "--store" && i + 1 < argc) {
      store = argv[++i];
    } else if (word == "--leader" && i + 1 < argc) {
      leader = std::atoi(argv[++i]);
    } else if (folder.empty() && !word.empty() && word[0] != '-') {
      folder = word;
    } else {
      folder.clear();
      break;
    }
  }
  if (folder.empty() || (rank > 0) != !store.empty() || (rank > 0) != (leader > 0)) {
    std::fputs(gvsl::kUsage, stderr);
    return gvsl::kUsageError;
  }
  return rank > 0 ? gvsl::Follow(folder, rank, store, leader) : gvsl::Lead(folder);
}
