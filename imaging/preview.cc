#include "imaging/preview.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "imaging/intensity.h"
#include "imaging/planes.h"
#include "imaging/resample.h"

namespace gvsl {
namespace {

// A colour for a label: hues by the golden ratio, so that neighbours in number differ; 0 is black.
std::array<uint8_t, 3> LabelColour(int64_t label) {
  if (label == 0) return {0, 0, 0};
  const double hue = std::fmod(static_cast<double>(label) * 0.6180339887498949, 1.0) * 6;
  std::array<uint8_t, 3> rgb;
  for (int c = 0; c < 3; ++c) {
    // Each channel is a trapezium over the circle of hues, a third of it apart.
    const double distance = std::abs(std::fmod(hue - 2 * c + 9, 6.0) - 3);
    rgb[c] = static_cast<uint8_t>(55 + 200 * std::clamp(2 - distance, 0.0, 1.0));
  }
  return rgb;
}

Picture Paint(const Volume& volume, const Grid& plane, const LinearIntensity& window) {
  const bool labels = volume.kind() == VolumeKind::kLabels;
  Picture picture(plane);
  std::vector<float> values(static_cast<size_t>(plane.voxel_count()));
  Resampler(volume, plane, labels ? Interpolation::kNearest : Interpolation::kLinear, 0)
      .Slices(0, 1, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    picture.Set(i, labels ? LabelColour(std::llround(values[i])) : Grey(window, values[i]));
  }
  return picture;
}

}  // namespace

absl::StatusOr<std::string> PreviewPng(const Volume& volume, const PreviewOptions& options) {
  if (options.max_edge < 16 || options.max_edge > 512) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_edge: ", options.max_edge, " pixels; it must lie in 16 to 512"));
  }
  if (!std::isfinite(options.window_min) || !std::isfinite(options.window_max) ||
      options.window_min > options.window_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window_min: ", options.window_min, " must be below window_max, ", options.window_max));
  }
  double low = options.window_min, high = options.window_max;
  const bool labels = volume.kind() == VolumeKind::kLabels;
  if (!labels && low == high) {
    if (low != 0)
      return absl::InvalidArgumentError("window_min: equal to window_max; the window is empty");
    low = PercentileOf(volume, 0.5);
    high = PercentileOf(volume, 99.5);
  }
  const LinearIntensity window = WindowOf(low, high);
  auto planes = CentralPlanes(volume.grid(), options.max_edge);
  if (!planes.ok()) return planes.status();
  std::vector<Picture> pictures;
  for (const Grid& plane : *planes) pictures.push_back(Paint(volume, plane, window));
  return EncodeSideBySide(pictures);
}

}  // namespace gvsl
