// A picture of a job's losses over its steps.
#ifndef GVSL_CLIENT_LOSS_PLOT_H_
#define GVSL_CLIENT_LOSS_PLOT_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"

namespace gvsl {

// One curve, as the legend names it. Colours can be told apart without seeing red or green (Okabe
// and Ito, Color Universal Design, 2008).
struct LossCurve {
  const char* name;
  std::array<uint8_t, 3> rgb;
  double (v1::JobLosses::*value)() const;
};
inline constexpr LossCurve kLossCurves[] = {
    {"total", {0, 114, 178}, &v1::JobLosses::total},
    {"similarity", {230, 159, 0}, &v1::JobLosses::similarity},
    {"smoothness", {0, 158, 115}, &v1::JobLosses::smoothness},
    {"restoration", {204, 121, 167}, &v1::JobLosses::restoration},
};

struct LossPlotOptions {
  std::string title;
  bool log_scale = false;  // of the losses; values that are not above 0 are left out
  int width = 1200, height = 720;
};

// A PNG: a curve for each loss of the steps, a ring for each of a validation (filled for the best
// one), axes, legend. Steps that a process told again after a crash are drawn once.
// FAILED_PRECONDITION while there is nothing to draw.
absl::StatusOr<std::string> LossPlotPng(const std::vector<v1::JobEvent>& events,
                                        const LossPlotOptions& options);

}  // namespace gvsl

#endif  // GVSL_CLIENT_LOSS_PLOT_H_
