// A job's task as the training loop takes it.
#ifndef GVSL_TRAINER_TASK_H_
#define GVSL_TRAINER_TASK_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "gvsl/v1/training_task.pb.h"
#include "model/trainer.h"

namespace gvsl {

// Reads `task.textproto` of a job's folder. NOT_FOUND, INVALID_ARGUMENT with line and column.
absl::StatusOr<v1::TrainingTask> ReadTask(const std::string& folder);

// Everything but the device. INVALID_ARGUMENT names the field.
absl::StatusOr<TrainingSetup> SetupOf(const v1::TrainingTask& task, const std::string& folder);

// Of the task's settings and of its volumes as the network of `setup` sees them; runs with the same
// digest may take up each other's checkpoints.
std::string RunDigest(const v1::TrainingTask& task, const TrainingSetup& setup);

// CPU threads of one of the task's ranks on a machine of so many cores; 1 or more.
int ThreadsOfRank(const v1::TrainingTask& task, int cores);

// For the card of the model: method, job, settings, data, program and what it reached, as JSON.
// What is not known is left out.
std::string ProvenanceOf(const v1::TrainingTask& task, int64_t step,
                         const std::optional<LossValues>& losses,
                         const std::optional<ValidationReport>& validation);

v1::JobLosses ToProto(const LossValues& losses);

}  // namespace gvsl

#endif  // GVSL_TRAINER_TASK_H_
