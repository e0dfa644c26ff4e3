// A golden set: numbers of the official network on formula weights and volumes, for gvsl-parity.
// Its folder holds set.json (seed, gains, volumes, cases) and a folder a case;
// official_state_dict.tsv stands beside it.
#ifndef GVSL_MODEL_GOLDEN_SET_H_
#define GVSL_MODEL_GOLDEN_SET_H_

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/state.h"

namespace gvsl {

// A volume as base + Gaussian blobs + plane waves over the unit cube, clipped to [0, 1].
struct VolumeFormula {
  double base = 0;
  std::vector<std::array<double, 7>> blobs;  // amplitude, centre z y x, width z y x
  std::vector<std::array<double, 5>> waves;  // amplitude, cycles z y x, phase
};

struct GoldenCase {
  std::string name;
  std::array<int64_t, 3> size;  // D, H, W
};

struct GoldenSet {
  std::string folder;
  uint64_t seed = 0;
  std::vector<std::pair<std::string, double>> gains;  // by name prefix
  VolumeFormula fixed, moving;                        // A and B
  std::vector<GoldenCase> cases;
};

// NOT_FOUND for a missing file, INVALID_ARGUMENT for one that is not a golden set, with the reason.
absl::StatusOr<GoldenSet> ReadGoldenSet(const std::string& folder);

// The official network's tensors, their values computed from the set's seed and gains.
absl::StatusOr<StateDict> FormulaState(const GoldenSet& set);

// [1, 1, D, H, W] float32.
at::Tensor FormulaVolume(const VolumeFormula& formula, const std::array<int64_t, 3>& size);

// A float32 `.npy` array in C order.
absl::StatusOr<at::Tensor> ReadNpy(const std::string& path);

// Lines of tab-separated fields.
absl::StatusOr<std::vector<std::vector<std::string>>> ReadTable(const std::string& path);

absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace gvsl

#endif  // GVSL_MODEL_GOLDEN_SET_H_
