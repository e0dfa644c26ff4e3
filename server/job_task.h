// What goes into a job's process, and what comes out of it.
#ifndef GVSL_SERVER_JOB_TASK_H_
#define GVSL_SERVER_JOB_TASK_H_

#include <string>

#include "absl/status/statusor.h"
#include "gvsl/v1/training_task.pb.h"
#include "server/job_store.h"
#include "server/server_state.h"

namespace gvsl {

// The task of a job as things stand now. NOT_FOUND when one of its volumes or its initial model was
// deleted.
absl::StatusOr<v1::TrainingTask> TaskOf(ServerState& state, const v1::Job& job);

// Stores the model file (a path in the job's folder) of a job that succeeded, under the job's
// display name and with the card that the file carries; its `models/{id}`. However often it is
// called, there is one model. The file itself stays where it is. Statuses are fit for clients.
absl::StatusOr<std::string> StoreModelOf(ServerState& state, const v1::Job& job,
                                         const std::string& file);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_TASK_H_
