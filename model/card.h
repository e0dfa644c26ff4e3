// ModelCard: all that a network needs to be used rightly. Travels inside the model file, as JSON.
#ifndef GVSL_MODEL_CARD_H_
#define GVSL_MODEL_CARD_H_

#include <array>
#include <cstdint>
#include <numeric>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "imaging/intensity.h"
#include "imaging/volume.h"

namespace gvsl {

enum class Geometry {
  kOfficial,   // the released code's spatial transformers, faults included: parity and imported
               // weights
  kCorrected,  // ours: differentiable, batched, isotropic, exact identity
};

constexpr int64_t kDecoderLevels = 4;

struct ModelCard {
  std::string size = "base";  // base, small, tiny or custom
  std::array<int64_t, 5> widths = {32, 64, 128, 256, 512};
  Geometry geometry = Geometry::kCorrected;
  std::string orientation = "LPS";
  Vec3 spacing_mm = {1, 1, 1};
  IntensityRule ct = {IntensityRule::Method::kWindow, 0, 0,
                      2048};  // the paper's pre-training window
  IntensityRule other = {IntensityRule::Method::kMinMax, 0, 0, 0};
  int64_t crop = 128;
  bool has_heads = true;
  std::string provenance;

  // Of so many levels of the decoder, the last first; 1 to kDecoderLevels.
  int64_t dense_channels(int64_t levels = 1) const {
    return std::accumulate(widths.begin(), widths.begin() + levels, int64_t{0});
  }
  int64_t global_channels() const { return widths[4]; }
};

// Widths of a named size: base 32..512, small 16..256, tiny 8..128. INVALID_ARGUMENT for another
// name.
absl::StatusOr<std::array<int64_t, 5>> WidthsOf(const std::string& size);
// The name of these widths; "custom" if they have none.
std::string SizeOf(const std::array<int64_t, 5>& widths);

// Hidden channels of the deformable and the restoring head of a network with so many dense
// channels: half as many, as published, and never fewer than the published network's 16. With 4,
// the field of `tiny` could not say what its features had learnt (docs/pretraining.md).
int64_t HeadWidth(int64_t dense_channels);

// OK if a network can be built and used by the card. INVALID_ARGUMENT names the field.
absl::Status ValidateCard(const ModelCard& card);

std::string CardToJson(const ModelCard& card);
// INVALID_ARGUMENT names the field. Fields that are absent keep their defaults; unknown ones are
// refused.
absl::StatusOr<ModelCard> CardFromJson(const std::string& json);

// SHA-256 (hexadecimal) over everything in the card that changes the network's input, and nothing
// else: two ways to write one intensity window have one digest.
std::string PreprocessingDigest(const ModelCard& card);
// SHA-256 over architecture, weights digest and preprocessing digest.
std::string Fingerprint(const ModelCard& card, const std::string& weights_sha256);

}  // namespace gvsl

#endif  // GVSL_MODEL_CARD_H_
