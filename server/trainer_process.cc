#include "server/trainer_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

constexpr int kFirstToDie = 500;  // of 1000

}  // namespace

std::string DefaultTrainer() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (error ? std::filesystem::path() : self.parent_path()) / "gvsl-trainer";
}

absl::StatusOr<pid_t> StartTrainer(const std::string& program, const JobFolder& folder) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  const auto destroyed = absl::MakeCleanup([&] {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  });
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, folder.log_path().c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0640);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::string name = program, path = folder.path();
  char* const arguments[] = {name.data(), path.data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawn(&child, program.c_str(), &files, &attributes, arguments, environ);
  if (error == 0) {
    // When memory runs out, a job is to die, from which it recovers, and not the server.
    std::ofstream(absl::StrCat("/proc/", child, "/oom_score_adj")) << kFirstToDie;
    return child;
  }
  const std::string text = absl::StrCat("cannot start ", program, ": ", std::strerror(error));
  if (error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE)
    return absl::UnavailableError(text);
  return WithReason(absl::FailedPreconditionError(text), "TRAINER_NOT_STARTED");
}

std::optional<int> ReapTrainer(pid_t child) {
  siginfo_t about = {};
  if (waitid(P_PID, static_cast<id_t>(child), &about, WEXITED | WNOHANG | WNOWAIT) != 0)
    return 0;  // no child of ours: nothing is known of its end
  if (about.si_pid == 0) return std::nullopt;
  // While it is not reaped its number is its own: no stranger's session is hit.
  kill(-child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    const char* name = sigabbrev_np(signal);
    std::string text = name != nullptr ? absl::StrCat("was killed by SIG", name)
                                       : absl::StrCat("was killed by signal ", signal);
    if (signal == SIGKILL) return text + ", probably because memory ran out";
    if (signal == SIGSEGV || signal == SIGABRT || signal == SIGBUS || signal == SIGILL ||
        signal == SIGFPE)
      return text + ", which is a fault of the program or of this machine";
    return text;
  }
  return absl::StrCat("ended with exit code ", WEXITSTATUS(wait_status), " and without a word");
}

}  // namespace gvsl
