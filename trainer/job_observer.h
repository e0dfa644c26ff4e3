// JobObserver: writes what happens in training to the job's folder.
#ifndef GVSL_TRAINER_JOB_OBSERVER_H_
#define GVSL_TRAINER_JOB_OBSERVER_H_

#include <string>

#include "model/trainer.h"
#include "trainer/event_log.h"
#include "trainer/tensorboard.h"

namespace gvsl {

// Events, and a line of text each on standard error; TensorBoard's scalars and pictures;
// `pictures/`.
class JobObserver : public TrainingObserver {
 public:
  // Both must outlive it.
  JobObserver(std::string folder, EventLog& events, TensorboardWriter& tensorboard);

  absl::Status Started(const StartReport& report) override;
  absl::Status Step(const StepReport& report) override;
  absl::Status Validation(const ValidationReport& report) override;
  absl::Status Checkpoint(const CheckpointReport& report) override;
  absl::Status Picture(const PictureReport& report) override;
  absl::Status Warning(const std::string& message) override;

 private:
  const std::string folder_;
  EventLog& events_;
  TensorboardWriter& tensorboard_;
};

}  // namespace gvsl

#endif  // GVSL_TRAINER_JOB_OBSERVER_H_
