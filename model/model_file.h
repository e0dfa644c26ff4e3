// Model files: ours (safetensors with the card inside) and the official code's (.pth of
// torch.save).
//
// No LibTorch type appears here, so that the server includes it cheaply; model/state.h has the
// tensors.
#ifndef GVSL_MODEL_MODEL_FILE_H_
#define GVSL_MODEL_MODEL_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/card.h"

namespace gvsl {

struct LoadedModel;  // model/state.h

// What is known of a model file without running it.
struct ModelInfo {
  ModelCard card;
  std::string weights_sha256;  // over names, shapes and float32 values in the official order
  std::string preprocessing_sha256;
  std::string fingerprint;
  int64_t parameter_count = 0;
};

// Reads `input` (safetensors with a card, or a .pth of either format) and writes `output` as
// safetensors, fsynced. `.pth` files carry no card: `card` says the preprocessing; its widths are
// taken from the tensors. A U-Net alone gets seeded random heads and has_heads = false.
// INVALID_ARGUMENT: not a model file; a pickle that names anything but tensors (the name is told);
// or tensors that do not fit, with every missing, unexpected or misshapen one named.
// RESOURCE_EXHAUSTED (MODEL_TOO_LARGE) before the tensors take more than `memory_bytes` (0: not
// looked at). Thread-safe; one import of the process runs at a time, so that the limit holds for
// all.
absl::StatusOr<ModelInfo> ImportModelFile(const std::string& input, const ModelCard& card,
                                          const std::string& output, int64_t memory_bytes = 0);

// True for a safetensors file, which carries its own card.
bool CarriesCard(const std::string& path);

// An untrained network with seeded weights (He-uniform convolutions, unit norms, flow and affine
// heads near the identity), the same on every machine; written as safetensors, fsynced.
absl::StatusOr<ModelInfo> CreateModelFile(const ModelCard& card, uint64_t seed,
                                          const std::string& output);

ModelInfo InfoOf(const LoadedModel& model);
// The card and digests of a safetensors file of ours. DATA_LOSS (CHECKSUM_MISMATCH) where it is
// damaged.
absl::StatusOr<ModelInfo> ReadModelInfo(const std::string& path);

// Writes a safetensors model as a `.pth` that the official layout loads strictly.
absl::Status ExportPth(const std::string& input, const std::string& output);

}  // namespace gvsl

#endif  // GVSL_MODEL_MODEL_FILE_H_
