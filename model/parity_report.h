// The table of gvsl-parity: every output's error beside its bound.
#ifndef GVSL_MODEL_PARITY_REPORT_H_
#define GVSL_MODEL_PARITY_REPORT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/golden_set.h"
#include "model/network.h"

namespace gvsl {

struct ParityRow {
  std::string output;
  double error = 0;  // largest absolute difference; relative where `relative`
  double bound = 0;
  bool relative = false;
  // False for NaN too.
  bool within_bound() const { return error <= bound; }
};

using ParityRows = std::vector<ParityRow>;

struct ParityOptions {
  bool training = true;  // gradient norms and Adam trajectories as well
};

// Runs one case with `state` as the weights and appends a row for each golden file. A golden that
// is missing or misshapen is an error, not a row.
absl::Status CheckCase(const GoldenSet& set, const GoldenCase& golden_case, const StateDict& state,
                       const ParityOptions& options, ParityRows& rows);

// Prints the rows as a table; returns how many exceed their bounds.
int PrintParity(const std::string& title, const ParityRows& rows);

}  // namespace gvsl

#endif  // GVSL_MODEL_PARITY_REPORT_H_
