#include "server/job_supervisor.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "server/guarded.h"
#include "server/job_events.h"
#include "server/job_task.h"
#include "server/log.h"
#include "server/trainer_process.h"

namespace gvsl {
namespace {

constexpr size_t kMostNews = 5000;  // events of one job taken in one poll

void End(v1::Job::State state, StoredJob& stored) {
  stored.job.set_state(state);
  stored.job.clear_remaining();
  *stored.job.mutable_end_time() = Now();
  stored.stop_requested = false;
}

// 0 for a file that is not there.
int64_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

void Requeue(StoredJob& stored) {
  stored.job.set_state(v1::Job::QUEUED);
  stored.job.clear_remaining();
}

}  // namespace

JobSupervisor::JobSupervisor(ServerState& state, Options options)
    : state_(state), options_(std::move(options)), thread_([this] { Run(); }) {}

JobSupervisor::~JobSupervisor() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void JobSupervisor::BeginDrain() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (draining_) return;
  draining_ = true;
  drain_polls_ = polls_;
}

bool JobSupervisor::FinishDrain(std::chrono::milliseconds patience) {
  std::unique_lock<std::mutex> lock(mutex_);
  // A poll may have been under way when the drain began; the one after it has seen it.
  return changed_.wait_for(lock, patience,
                           [this] { return polls_ >= drain_polls_ + 2 && running_ == 0; });
}

bool JobSupervisor::draining() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return draining_;
}

void JobSupervisor::Complain(const std::string& text) {
  constexpr auto kPause = std::chrono::minutes(1);  // what is wrong is found four times a second
  constexpr size_t kMostRemembered = 100;
  const auto now = Clock::now();
  const auto found = complaints_.find(text);
  if (found != complaints_.end() && now - found->second < kPause) return;
  if (complaints_.size() >= kMostRemembered) complaints_.clear();
  complaints_[text] = now;
  LogError(text);
}

void JobSupervisor::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    const absl::Status status = Guarded([this] {
      Poll();
      return absl::OkStatus();
    });
    if (!status.ok()) Complain(absl::StrCat("jobs: ", std::string(status.message())));
    const auto totals = state_.jobs->Totals();
    lock.lock();
    if (totals.ok()) running_ = totals->running;
    ++polls_;
    changed_.notify_all();
    changed_.wait_for(lock, options_.poll, [this] { return stopping_; });
  }
}

void JobSupervisor::Poll() {
  const auto running = state_.jobs->InState(v1::Job::RUNNING, std::numeric_limits<int>::max());
  if (!running.ok()) return Complain(running.status().ToString());
  for (const std::string& name : *running) Tend(name);
  if (draining()) return;
  const auto totals = state_.jobs->Totals();
  if (!totals.ok() || totals->running >= options_.concurrent) return;
  auto places = options_.concurrent - totals->running;
  const auto next = state_.jobs->InState(v1::Job::QUEUED, std::numeric_limits<int>::max());
  if (!next.ok()) return Complain(next.status().ToString());
  for (const std::string& name : *next) {
    if (places <= 0) break;
    if (StartNext(name)) --places;
  }
}

bool JobSupervisor::StartNext(const std::string& name) {
  const auto stored = state_.jobs->Get(name);
  if (!stored.ok()) {
    Complain(absl::StrCat(name, ": ", std::string(stored.status().message())));
    return false;
  }
  // A job that waits to be started again keeps its place: the pause is short, and jobs are long.
  const auto pause = not_before_.find(name);
  if (stored->crashes > 0 && pause != not_before_.end() && Clock::now() < pause->second)
    return true;
  const JobFolder folder(state_.config.data_dir(), name);
  const auto task = TaskOf(state_, stored->job);
  if (absl::IsNotFound(task.status())) {
    Fail(name, absl::StrCat("It cannot start: ", std::string(task.status().message())));
    return false;
  }
  if (!task.ok()) {  // the database's trouble is not the job's: it waits
    Complain(absl::StrCat(name, ": ", std::string(task.status().message())));
    return false;
  }
  if (const absl::Status prepared = folder.Prepare(*task); !prepared.ok()) {
    Complain(absl::StrCat(name, ": ", std::string(prepared.message())));
    Fail(name,
         ReasonOf(prepared) == "DISK_FULL"
             ? "The disk of the server's data folder is full; free space, then resume the job."
             : "The server cannot write the job's folder, its log says why; mend that, then "
               "resume the job.");
    return false;
  }
  const auto begun = state_.jobs->Update(name, [](StoredJob& current) -> absl::Status {
    if (current.job.state() != v1::Job::QUEUED) return absl::AbortedError("cancelled meanwhile");
    current.job.set_state(v1::Job::RUNNING);
    current.stop_requested = false;
    if (!current.job.has_start_time()) *current.job.mutable_start_time() = Now();
    return absl::OkStatus();
  });
  if (!begun.ok()) return false;
  const auto child =
      StartTrainer(options_.trainer.empty() ? DefaultTrainer() : options_.trainer, folder);
  if (child.ok()) {
    processes_[name] = Process();
    processes_[name].child = *child;
    LogInfo(absl::StrCat(name, ": started, process ", *child));
    return true;
  }
  Complain(absl::StrCat(name, ": ", std::string(child.status().message())));
  if (absl::IsFailedPrecondition(child.status())) {
    Fail(name,
         "The program gvsl-trainer cannot be started on the server; install it beside gvsld, or "
         "name it as `trainer` in gvsld's configuration, then resume the job.");
    return false;
  }
  (void)state_.jobs->Update(name, [&](StoredJob& current) {
    Crash("found no room on the machine", true, current);
    return absl::OkStatus();
  });
  return true;
}

void JobSupervisor::Fail(const std::string& name, const std::string& why) {
  const auto failed = state_.jobs->Update(name, [&](StoredJob& current) {
    if (HasEnded(current.job.state())) return absl::OkStatus();
    current.job.set_failure(why);
    End(v1::Job::FAILED, current);
    return absl::OkStatus();
  });
  if (!failed.ok()) Complain(failed.status().ToString());
}

void JobSupervisor::Tend(const std::string& name) {
  const auto stored = state_.jobs->Get(name);
  if (!stored.ok()) return Complain(stored.status().ToString());
  const JobFolder folder(state_.config.data_dir(), name);
  Process& process = processes_[name];
  // First whether it lives, then what it says: the last words of one that does not are all there.
  const bool alive = IsAlive(folder, process);
  const News news = ReadNews(folder, *stored, alive, process);
  if (alive) SeeItStop(process, stored->stop_requested || draining());
  const bool gone = !alive && !news.more;
  if (!gone && news.offset == stored->event_offset) return;
  if (gone) {
    // An earlier server's process may be on its way to the lock yet: nobody would tend it.
    const auto withdrawn = folder.Withdraw();
    if (!withdrawn.ok())
      return Complain(absl::StrCat(name, ": ", std::string(withdrawn.status().message())));
    if (!*withdrawn) return;  // it just came: it is found alive the next time
  }
  // The record outlives a loss of power: what it tells of must outlive it, too.
  if (const int error = SyncToDisk(folder.events_path()); error != 0 && error != ENOENT)
    return Complain(absl::StrCat(name, ": events.jsonl: ", std::strerror(error)));

  absl::StatusOr<std::string> model = std::string();
  if (gone && news.ended && news.ended->outcome() == v1::JobEvent::Ended::SUCCEEDED)
    model = StoreModelOf(state_, stored->job, news.ended->model());
  const auto updated = state_.jobs->Update(name, [&](StoredJob& current) {
    if (news.anew) current.event_sequence = 0;
    for (const v1::JobEvent& event : news.events) Apply(event, current);
    current.event_offset = news.offset;
    if (gone) Settle(news, process, model, current);
    return absl::OkStatus();
  });
  if (!updated.ok()) return Complain(updated.status().ToString());
  if (!gone) return;
  processes_.erase(name);
  LogInfo(absl::StrCat(name, ": ", v1::Job::State_Name(updated->job.state()), " at step ",
                       updated->job.step()));
}

bool JobSupervisor::IsAlive(const JobFolder& folder, Process& process) {
  if (process.child > 0) {
    // It may not have the lock yet: while it is our child and runs, it lives.
    process.wait_status = ReapTrainer(process.child);
    if (!process.wait_status) return true;
    process.child = 0;
  }
  const auto holder = folder.LockHolder();
  if (!holder.ok()) {
    Complain(absl::StrCat(folder.path(), ": ", std::string(holder.status().message())));
    return true;  // nobody knows: it is not taken for dead
  }
  process.holder = *holder;
  if (*holder != 0) process.wait_status.reset();  // our child found the folder in use
  return *holder != 0;
}

JobSupervisor::News JobSupervisor::ReadNews(const JobFolder& folder, const StoredJob& stored,
                                            bool alive, Process& process) {
  News news;
  news.anew = SizeOf(folder.events_path()) < stored.event_offset;
  JobEventReader reader(folder.events_path(), news.anew ? 0 : stored.event_offset);
  int64_t last_begin = reader.offset();
  while (news.events.size() < kMostNews) {
    const int64_t begin = reader.offset();
    auto event = reader.Next();
    news.offset = reader.offset();
    if (!event) break;
    last_begin = begin;
    news.events.push_back(*std::move(event));
  }
  news.more = news.events.size() == kMostNews && reader.Next().has_value();
  // The last word counts once the process is gone; until then the lock may still be held.
  if (alive && !news.more && !news.events.empty() && news.events.back().has_ended()) {
    news.events.pop_back();
    news.offset = last_begin;
    if (!process.said_its_last) process.said_its_last = Clock::now();
  }
  for (const v1::JobEvent& event : news.events) {
    if (event.has_started()) news.ended.reset();
    if (event.has_ended()) news.ended = event.ended();
  }
  return news;
}

void JobSupervisor::SeeItStop(Process& process, bool wanted) {
  const pid_t pid = process.child > 0 ? process.child : process.holder;
  if (pid <= 0) return;
  if (wanted && !process.told_to_stop) {
    kill(pid, SIGTERM);
    process.told_to_stop = Clock::now();
  }
  const auto since = process.said_its_last ? process.said_its_last : process.told_to_stop;
  if (!since || process.killed || Clock::now() - *since < options_.stop_patience) return;
  process.killed = true;
  if (kill(-pid, SIGKILL) != 0) kill(pid, SIGKILL);
}

void JobSupervisor::Settle(const News& news, const Process& process,
                           const absl::StatusOr<std::string>& model, StoredJob& stored) {
  using Ended = v1::JobEvent::Ended;
  if (news.ended && news.ended->outcome() == Ended::SUCCEEDED) {
    if (model.ok()) {
      stored.job.set_model(*model);
      return End(v1::Job::SUCCEEDED, stored);
    }
    stored.job.set_failure(absl::StrCat(
        "It is trained, but its model could not be stored: ", std::string(model.status().message()),
        ". Resume the job to try again."));
    return End(v1::Job::FAILED, stored);
  }
  if (news.ended && news.ended->outcome() == Ended::FAILED && !news.ended->retryable()) {
    stored.job.set_failure(news.ended->message());
    return End(v1::Job::FAILED, stored);
  }
  if (stored.stop_requested) return End(v1::Job::CANCELLED, stored);
  if (news.ended && news.ended->outcome() == Ended::STOPPED) return Requeue(stored);
  if (news.ended) return Crash("failed: " + news.ended->message(), false, stored);
  if (process.told_to_stop) return Requeue(stored);  // before it could write a checkpoint
  if (!process.wait_status) {
    return Crash("ended without a word, and not as this server's child", false, stored);
  }
  const int status = *process.wait_status;
  Crash(DescribeExit(status), WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, stored);
}

void JobSupervisor::Crash(const std::string& how, bool short_of_memory, StoredJob& stored) {
  const std::string& name = stored.job.name();
  ++stored.crashes;
  LogError(absl::StrCat(name, ": its process ", how, "; crash ", stored.crashes, " since step ",
                        stored.checkpoint_step));
  if (stored.crashes <= options_.restarts) {
    stored.job.set_restarts(stored.job.restarts() + 1);
    const auto pause = options_.first_pause * (1 << std::min(stored.crashes - 1, 20));
    not_before_[name] = Clock::now() + std::min(pause, options_.longest_pause);
    return Requeue(stored);
  }
  std::string why = absl::StrCat("Its process ", how, ", ", stored.crashes,
                                 " time(s) without a new checkpoint. ");
  absl::StrAppend(&why,
                  short_of_memory
                      ? "Give the server more memory and resume the job, or create one with "
                        "a smaller data.crop, optimization.batch_size or network.size."
                      : "Its log says more (gvsl jobs logs); mend the cause, then resume it.");
  const std::string tail = JobFolder(state_.config.data_dir(), name).LogTail();
  if (!tail.empty()) absl::StrAppend(&why, " The log's last lines:\n", tail);
  stored.job.set_failure(why);
  End(v1::Job::FAILED, stored);
}

}  // namespace gvsl
