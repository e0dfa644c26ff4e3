// How two volumes are registered by `gvsl`, and the files of a registration.
#ifndef GVSL_CLIENT_CLI_REGISTRATION_PAIR_H_
#define GVSL_CLIENT_CLI_REGISTRATION_PAIR_H_

#include <optional>
#include <string>
#include <vector>

#include "client/cli/command.h"

namespace gvsl::cli {

struct PairOptions : ImportOptions {
  std::string fixed, moving, model, fixed_mask, moving_mask, initialisation, linear, display_name;
  std::optional<int> refine;
  std::optional<double> smoothness;
  std::vector<double> metric;
  bool no_network = false, no_deformation = false, discrete = false, inverse = false,
       consistency = false;
};
void AddPairOptions(CLI::App* verb, PairOptions& options);
// Uploads what is a file, and registers.
absl::StatusOr<v1::Registration> Register(Context& context, const PairOptions& options);

void PrintRegistration(Context& context, const v1::Registration& registration);
// A registration that FAILED is no success, whatever else was done with it.
absl::Status Judged(const v1::Registration& registration);

// Where the files of a registration go; empty: nowhere.
struct FileOptions {
  std::string warped, affine, field, composed_field, learn2reg, report;
  bool moving_to_fixed = false;
};
void AddFileOptions(CLI::App* verb, FileOptions& files);
absl::Status WriteFiles(Context& context, const v1::Registration& registration,
                        const FileOptions& files);

}  // namespace gvsl::cli

#endif  // GVSL_CLIENT_CLI_REGISTRATION_PAIR_H_
