// gvsl-parity: shows that the network gives the official numbers.
#include <cstdio>
#include <cstring>
#include <string>

#include "model/extractor.h"
#include "model/golden_set.h"
#include "model/parity_report.h"

namespace {

constexpr char kUsage[] =
    "usage: gvsl-parity GOLDEN_SET_DIR [--checkpoint FILE.pth] [--forward_only]\n"
    "\n"
    "Runs every case of a golden set and prints each output's error beside its bound.\n"
    "  --checkpoint FILE.pth  weights from this file instead of the set's formula\n"
    "  --forward_only         leave out gradient norms and Adam trajectories\n"
    "Exits with 0 if all are within their bounds, 1 if one is not or a file is bad, 2 on bad "
    "usage.\n"
    "\n"
    "example: gvsl-parity golden/public --checkpoint official.pth\n";

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "gvsl-parity: %s\n", std::string(status.message()).c_str());
  return 1;
}

// The status with the file's name in front, where it does not name the file itself.
absl::Status About(const std::string& path, const absl::Status& status) {
  const std::string message(status.message());
  if (message.find(path) != std::string::npos) return status;
  return absl::Status(status.code(), path + ": " + message);
}

absl::StatusOr<gvsl::StateDict> Weights(const gvsl::GoldenSet& set, const std::string& checkpoint) {
  if (checkpoint.empty()) return gvsl::FormulaState(set);
  absl::StatusOr<gvsl::StateDict> read = gvsl::ReadPth(checkpoint);
  if (!read.ok()) return About(checkpoint, read.status());
  absl::StatusOr<gvsl::FittedState> fitted = gvsl::FitState(*read);
  if (!fitted.ok()) return About(checkpoint, fitted.status());
  if (!fitted->has_heads) {
    return absl::InvalidArgumentError(checkpoint +
                                      " is a U-Net alone; the golden set needs the heads");
  }
  return std::move(fitted->state);
}

int Run(const std::string& folder, const std::string& checkpoint,
        const gvsl::ParityOptions& options) {
  const absl::StatusOr<gvsl::GoldenSet> set = gvsl::ReadGoldenSet(folder);
  if (!set.ok()) return Fail(set.status());
  const absl::StatusOr<std::string> device = gvsl::InitializeLibTorch({"cpu", 0});
  if (!device.ok()) return Fail(device.status());
  const absl::StatusOr<gvsl::StateDict> weights = Weights(*set, checkpoint);
  if (!weights.ok()) return Fail(weights.status());

  int exceeded = 0;
  size_t outputs = 0;
  for (const gvsl::GoldenCase& golden_case : set->cases) {
    gvsl::ParityRows rows;
    const absl::Status status = gvsl::CheckCase(*set, golden_case, *weights, options, rows);
    if (!status.ok()) return Fail(status);
    exceeded += gvsl::PrintParity("case " + golden_case.name, rows);
    outputs += rows.size();
  }
  std::printf("\n%zu outputs of %zu cases, %d exceed their bounds\n", outputs, set->cases.size(),
              exceeded);
  return exceeded == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::string folder, checkpoint;
  gvsl::ParityOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(kUsage, stdout);
      return 0;
    }
    if (argument == "--forward_only") {
      options.training = false;
    } else if (argument == "--checkpoint" && i + 1 < argc) {
      checkpoint = argv[++i];
    } else if (argument.rfind("--checkpoint=", 0) == 0) {
      checkpoint = argument.substr(std::strlen("--checkpoint="));
    } else if (argument[0] != '-' && folder.empty()) {
      folder = argument;
    } else {
      std::fprintf(stderr, "gvsl-parity: unexpected argument: %s\n\n%s", argument.c_str(), kUsage);
      return 2;
    }
  }
  if (folder.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  return Run(folder, checkpoint, options);
}
