#include "trainer/job_observer.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "model/extractor.h"
#include "trainer/picture.h"
#include "trainer/task.h"

namespace gvsl {

JobObserver::JobObserver(std::string folder, EventLog& events, TensorboardWriter& tensorboard)
    : folder_(std::move(folder)), events_(events), tensorboard_(tensorboard) {}

absl::Status JobObserver::Started(const StartReport& report) {
  std::fprintf(stderr, "started at step %lld on %s\n", static_cast<long long>(report.step),
               report.device.c_str());
  v1::JobEvent event;
  auto& started = *event.mutable_started();
  started.set_step(report.step);
  started.set_device(report.device);
  if (!report.checkpoint.empty()) started.set_checkpoint("checkpoints/" + report.checkpoint);
  started.set_parameter_count(report.parameter_count);
  started.set_libtorch_version(LibTorchVersion());
  return events_.Append(event, true);
}

absl::Status JobObserver::Step(const StepReport& report) {
  std::fprintf(stderr,
               "step %lld: loss %.5f (similarity %.5f, smoothness %.5f, restoration %.5f)\n",
               static_cast<long long>(report.step), report.losses.total, report.losses.similarity,
               report.losses.smoothness, report.losses.restoration);
  v1::JobEvent event;
  auto& step = *event.mutable_step();
  step.set_step(report.step);
  *step.mutable_losses() = ToProto(report.losses);
  step.set_learning_rate(report.learning_rate);
  step.set_gradient_norm(report.gradient_norm);
  step.set_steps_per_second(report.steps_per_second);
  step.set_data_wait_share(report.data_wait_share);
  step.set_memory_bytes(report.memory_bytes);
  if (absl::Status status = events_.Append(event, false); !status.ok()) return status;
  return tensorboard_.Scalars(report.step, {{"training/total", report.losses.total},
                                            {"training/similarity", report.losses.similarity},
                                            {"training/smoothness", report.losses.smoothness},
                                            {"training/restoration", report.losses.restoration},
                                            {"training/learning_rate", report.learning_rate},
                                            {"training/gradient_norm", report.gradient_norm},
                                            {"speed/steps_per_second", report.steps_per_second},
                                            {"speed/data_wait_share", report.data_wait_share}});
}

absl::Status JobObserver::Validation(const ValidationReport& report) {
  v1::JobEvent event;
  auto& validation = *event.mutable_validation();
  validation.set_step(report.step);
  *validation.mutable_losses() = ToProto(report.losses);
  validation.set_ncc_before(report.ncc_before);
  validation.set_ncc_after(report.ncc_after);
  validation.set_folding_percent(report.folding_percent);
  validation.set_best(report.best);
  if (absl::Status status = events_.Append(event, true); !status.ok()) return status;
  return tensorboard_.Scalars(report.step,
                              {{"validation/total", report.losses.total},
                               {"validation/similarity", report.losses.similarity},
                               {"validation/smoothness", report.losses.smoothness},
                               {"validation/restoration", report.losses.restoration},
                               {"validation/ncc_before", report.ncc_before},
                               {"validation/ncc_after", report.ncc_after},
                               {"validation/folding_percent", report.folding_percent}});
}

absl::Status JobObserver::Checkpoint(const CheckpointReport& report) {
  v1::JobEvent event;
  auto& checkpoint = *event.mutable_checkpoint();
  checkpoint.set_step(report.step);
  checkpoint.set_path("checkpoints/" + report.file);
  checkpoint.set_seconds(report.seconds);
  return events_.Append(event, true);
}

absl::Status JobObserver::Picture(const PictureReport& report) {
  auto picture = Render(report);
  if (!picture.ok()) return picture.status();
  if (absl::Status status = MakeFolders(folder_ + "/pictures"); !status.ok()) return status;
  char name[64];
  std::snprintf(name, sizeof(name), "/pictures/step-%09lld.png",
                static_cast<long long>(report.step));
  if (absl::Status status = WriteWholeFile(folder_ + name, picture->png); !status.ok())
    return status;
  return tensorboard_.Png(report.step, "pair", picture->width, picture->height, picture->png);
}

absl::Status JobObserver::Warning(const std::string& message) {
  std::fprintf(stderr, "warning: %s\n", message.c_str());
  v1::JobEvent event;
  event.mutable_warning()->set_message(message);
  return events_.Append(event, true);
}

}  // namespace gvsl
