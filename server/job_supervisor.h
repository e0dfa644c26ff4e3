// JobSupervisor: sees to it that queued jobs run, and that running ones come to their end.
//
// A job's process is the server's child by chance alone: what counts is the lock of its folder
// (docs/adr/0006-job-folder.md). So the processes of a server that was killed are this one's.
#ifndef GVSL_SERVER_JOB_SUPERVISOR_H_
#define GVSL_SERVER_JOB_SUPERVISOR_H_

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"
#include "server/job_folder.h"
#include "server/job_store.h"
#include "server/server_state.h"

namespace gvsl {

// Works on a thread of its own from construction on. Safe for concurrent use.
class JobSupervisor {
 public:
  struct Options {
    std::string trainer;  // the program; empty: DefaultTrainer()
    int concurrent = 1;   // jobs that run at the same time
    int restarts = 5;     // of a process that dies again and again without a new checkpoint
    std::chrono::milliseconds poll{250};
    std::chrono::milliseconds first_pause{1000}, longest_pause{60000};  // before a restart
    // A process that was told to stop, or has written its last event, and is still there after so
    // long is killed.
    std::chrono::seconds stop_patience{600};
  };

  // `state` outlives the supervisor.
  JobSupervisor(ServerState& state, Options options);
  // Processes that run go on without a server, and the next one finds them.
  ~JobSupervisor();

  // Nothing is started any more; running processes are told to stop. Their jobs go on when a server
  // starts again.
  void BeginDrain();
  // Waits until they have stopped, at most this long; true when they have.
  bool FinishDrain(std::chrono::milliseconds patience);

 private:
  using Clock = std::chrono::steady_clock;
  // The process of a running job as far as it is known here.
  struct Process {
    pid_t child = 0;                 // ours, and not reaped
    pid_t holder = 0;                // of the lock
    std::optional<int> wait_status;  // of a child that has ended
    std::optional<Clock::time_point> told_to_stop, said_its_last;
    bool killed = false;
  };
  // What the folder tells of a job since the record was written.
  struct News {
    std::vector<v1::JobEvent> events;
    int64_t offset = 0;
    bool anew = false;                         // they begin at the first one, the file being cut
    bool more = false;                         // there are others behind them
    std::optional<v1::JobEvent::Ended> ended;  // the last word of its last process
  };

  void Run();
  void Poll();
  // False where the next one in the queue may have the place.
  bool StartNext(const std::string& name);
  void Tend(const std::string& name);
  bool IsAlive(const JobFolder& folder, Process& process);
  News ReadNews(const JobFolder& folder, const StoredJob& stored, bool alive, Process& process);
  // Tells a process that runs to stop, if that is wanted, and kills one that does not.
  void SeeItStop(Process& process, bool wanted);
  // Decides what becomes of a job whose process is gone, from its record with the news in it.
  void Settle(const News& news, const Process& process, const absl::StatusOr<std::string>& model,
              StoredJob& stored);
  // Its process died: once more, or never again.
  void Crash(const std::string& how, bool short_of_memory, StoredJob& stored);
  void Fail(const std::string& name, const std::string& why);
  void Complain(const std::string& text);
  bool draining();

  ServerState& state_;
  const Options options_;
  // The supervisor's thread alone:
  std::map<std::string, Process> processes_;
  std::map<std::string, Clock::time_point> not_before_;
  std::map<std::string, Clock::time_point> complaints_;  // when each was made last

  std::mutex mutex_;
  std::condition_variable changed_;
  bool draining_ = false, stopping_ = false;  // guarded by mutex_
  // After the last poll, and when the drain began; guarded by mutex_.
  int64_t running_ = 0, polls_ = 0, drain_polls_ = 0;
  std::thread thread_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_SUPERVISOR_H_
