// The process of a job: started in a session of its own, so that it outlives the server.
#ifndef GVSL_SERVER_TRAINER_PROCESS_H_
#define GVSL_SERVER_TRAINER_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/job_folder.h"

namespace gvsl {

// The program beside this process's own.
std::string DefaultTrainer();

// Runs `program FOLDER` with nothing of this process's but its environment and working folder: no
// open files, default signals, standard output and error appended to the folder's log. UNAVAILABLE
// when the machine has no room for a process now; FAILED_PRECONDITION (TRAINER_NOT_STARTED) when
// the program cannot run at all; the words name it and are not for clients.
absl::StatusOr<pid_t> StartTrainer(const std::string& program, const JobFolder& folder);

// The wait status of a child that has ended, after what it left of its session was killed; nothing
// while it runs.
std::optional<int> ReapTrainer(pid_t child);

// "was killed by SIGKILL, probably because memory ran out" from a wait status.
std::string DescribeExit(int wait_status);

}  // namespace gvsl

#endif  // GVSL_SERVER_TRAINER_PROCESS_H_
