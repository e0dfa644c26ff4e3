// The tensors of a model: reading, checking and writing them. Includes LibTorch.
#ifndef GVSL_MODEL_STATE_H_
#define GVSL_MODEL_STATE_H_

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/card.h"

namespace gvsl {

// Named tensors in order, as in a Python state_dict.
using StateDict = std::vector<std::pair<std::string, at::Tensor>>;

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
};
// The 104 tensors of the whole network in the official order (`unet.` prefix, then the heads); the
// first 72, those with the prefix, are the U-Net.
std::vector<TensorSpec> StateLayout(const std::array<int64_t, 5>& widths);

// Seeded weights of an untrained network, whole StateLayout: He-uniform convolutions, unit norms,
// flow and affine heads near the identity; the same on every machine.
StateDict InitialState(const std::array<int64_t, 5>& widths, uint64_t seed);

// Reads a Python `torch.save` file of tensors: the zip format and the one before PyTorch 1.6; an
// OrderedDict (with or without _metadata) or a plain dict; fp32, fp16, bf16, fp64 (turned to fp32);
// any storage location. Runs nothing: opcodes and names outside a short list are refused by name. A
// dict that holds the state_dict under `state_dict` or `model` is understood. RESOURCE_EXHAUSTED
// (MODEL_TOO_LARGE) before more than `memory_bytes` are allocated; 0: not looked at.
absl::StatusOr<StateDict> ReadPth(const std::string& path, int64_t memory_bytes = 0);
// Writes the zip format with an OrderedDict, readable by Python's torch.load(weights_only=True).
absl::Status WritePth(const StateDict& state, const std::string& path);

struct SafetensorsFile {
  StateDict state;
  std::vector<std::pair<std::string, std::string>> metadata;
};
// The format of github.com/huggingface/safetensors: u64 header length, JSON header, data. Every
// offset is checked. Tensors of aligned float32 are mapped from the file; the others are copied, in
// `memory_bytes` as ReadPth.
absl::StatusOr<SafetensorsFile> ReadSafetensors(const std::string& path, int64_t memory_bytes = 0);
absl::Status WriteSafetensors(const SafetensorsFile& file, const std::string& path);

// Brings tensors into StateLayout's order and float32, accepting names with and without `unet.`,
// `module.` and a U-Net alone (`has_heads` becomes false, heads are absent from the result). Widths
// are taken from the tensors. INVALID_ARGUMENT names every missing, unexpected and misshapen
// tensor.
struct FittedState {
  StateDict state;
  std::array<int64_t, 5> widths;
  bool has_heads = true;
};
absl::StatusOr<FittedState> FitState(const StateDict& state);

std::string WeightsDigest(const StateDict& state);

// A model file of ours, loaded.
struct LoadedModel {
  ModelCard card;
  StateDict state;             // whole StateLayout
  std::string weights_sha256;  // WeightsDigest(state)
};
// DATA_LOSS (CHECKSUM_MISMATCH) when the weights are not those that the file's own digest names.
absl::StatusOr<LoadedModel> LoadModel(const std::string& safetensors_path,
                                      int64_t memory_bytes = 0);
absl::Status SaveModel(const LoadedModel& model, const std::string& safetensors_path);

}  // namespace gvsl

#endif  // GVSL_MODEL_STATE_H_
