#include "client/job_text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace gvsl {
namespace {

// A person's or a library's words on one line.
std::string OneLine(const std::string& text) {
  return absl::StrReplaceAll(absl::StripAsciiWhitespace(text), {{"\r", ""}, {"\n", " / "}});
}

std::string ValidationText(const v1::JobEvent::Validation& validation) {
  return absl::StrFormat(
      "validation at step %d  loss %s  correlation %.4g to %.4g  folding %.3g %%%s",
      validation.step(), LossesText(validation.losses()), validation.ncc_before(),
      validation.ncc_after(), validation.folding_percent(), validation.best() ? "  best" : "");
}

std::string StartedText(const v1::JobEvent::Started& started) {
  if (!started.checkpoint().empty())
    return absl::StrCat("goes on from step ", started.step(), " on ", started.device(), "  ",
                        started.checkpoint());
  return absl::StrCat("begins on ", started.device(), "  ", started.parameter_count(), " values");
}

std::string EndedText(const v1::JobEvent::Ended& ended) {
  const char* outcome = ended.outcome() == v1::JobEvent::Ended::SUCCEEDED ? "done"
                        : ended.outcome() == v1::JobEvent::Ended::STOPPED ? "stopped"
                                                                          : "failed";
  return absl::StrCat(outcome, " at step ", ended.step(), ended.message().empty() ? "" : "  ",
                      OneLine(ended.message()));
}

}  // namespace

bool HasEnded(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

std::string StateText(v1::Job::State state) {
  const std::string& name = v1::Job::State_Name(state);
  return name.empty() ? absl::StrCat("state ", static_cast<int>(state))  // of a newer server
                      : absl::AsciiStrToLower(name);
}

std::string LossesText(const v1::JobLosses& losses) {
  return absl::StrFormat("%.4g (similarity %.4g, smoothness %.4g, restoration %.4g)",
                         losses.total(), losses.similarity(), losses.smoothness(),
                         losses.restoration());
}

std::string DurationText(double seconds) {
  // A thousand years bound what a speed near zero makes of it.
  const int64_t s = std::isfinite(seconds)
                        ? static_cast<int64_t>(std::lround(std::clamp(seconds, 0.0, 3.2e10)))
                        : 0;
  if (s < 3600) return absl::StrFormat("%d:%02d", s / 60, s % 60);
  if (s < 86400) return absl::StrFormat("%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
  return absl::StrFormat("%d d %d h", s / 86400, s / 3600 % 24);
}

std::string StepText(const v1::JobEvent::Step& step, int64_t total_steps) {
  std::string text =
      absl::StrCat("step ", step.step(), " of ", total_steps, "  loss ", LossesText(step.losses()));
  if (step.steps_per_second() > 0) {
    absl::StrAppendFormat(&text, "  %.3g steps/s", step.steps_per_second());
    if (step.step() < total_steps)
      absl::StrAppend(
          &text, "  ",
          DurationText(static_cast<double>(total_steps - step.step()) / step.steps_per_second()),
          " left");
  }
  return text;
}

std::string EventText(const v1::JobEvent& event, int64_t total_steps) {
  switch (event.event_case()) {
    case v1::JobEvent::kStarted:
      return StartedText(event.started());
    case v1::JobEvent::kStep:
      return StepText(event.step(), total_steps);
    case v1::JobEvent::kValidation:
      return ValidationText(event.validation());
    case v1::JobEvent::kCheckpoint:
      return absl::StrCat("checkpoint at step ", event.checkpoint().step(), "  ",
                          event.checkpoint().path());
    case v1::JobEvent::kWarning:
      return absl::StrCat("warning: ", OneLine(event.warning().message()));
    case v1::JobEvent::kEnded:
      return EndedText(event.ended());
    case v1::JobEvent::EVENT_NOT_SET:
      break;
  }
  return absl::StrCat("event ", event.sequence(), " of a kind that this gvsl does not know");
}

std::string JobText(const v1::Job& job) {
  switch (job.state()) {
    case v1::Job::SUCCEEDED:
      return absl::StrCat(job.name(), " has succeeded: ", job.model());
    case v1::Job::FAILED:
      return absl::StrCat(job.name(), " has failed: ", OneLine(job.failure()));
    case v1::Job::CANCELLED:
      return absl::StrCat(job.name(), " is cancelled at step ", job.step(), " of ",
                          job.total_steps(), "; gvsl jobs resume ", job.name(), " goes on");
    default:
      return absl::StrCat(job.name(), " is ", StateText(job.state()),
                          job.restarts() > 0 ? absl::StrCat(", restart ", job.restarts()) : "");
  }
}

}  // namespace gvsl
