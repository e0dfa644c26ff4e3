// What a job tells, in words: one line an event, for people and for logs.
#ifndef GVSL_CLIENT_JOB_TEXT_H_
#define GVSL_CLIENT_JOB_TEXT_H_

#include <cstdint>
#include <string>

#include "gvsl/v1/jobs.pb.h"

namespace gvsl {

// Succeeded, failed or cancelled: nothing more comes unless somebody resumes it.
bool HasEnded(v1::Job::State state);

// The state in small letters: `queued`, `running`, ...
std::string StateText(v1::Job::State state);

// `0.8512 (similarity 0.7, smoothness 0.05, restoration 0.1)`: the total and its parts.
std::string LossesText(const v1::JobLosses& losses);

// `0:07`, `2:05`, `1:02:05`, `3 d 4 h`.
std::string DurationText(double seconds);

// `step 10 of 200  loss ...  2.1 steps/s  1:30 left`. Without a speed, or at the last step, no time
// is named.
std::string StepText(const v1::JobEvent::Step& step, int64_t total_steps);

// Any event on one line, without a line end.
std::string EventText(const v1::JobEvent& event, int64_t total_steps);

// `jobs/3f2a is running`, `jobs/3f2a has failed: ...`: the state, and what it leads to.
std::string JobText(const v1::Job& job);

}  // namespace gvsl

#endif  // GVSL_CLIENT_JOB_TEXT_H_
