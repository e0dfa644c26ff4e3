#include "imaging/preview.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "imaging/intensity.h"
#include "imaging/orientation.h"
#include "imaging/png.h"
#include "imaging/resample.h"

namespace gvsl {
namespace {

constexpr int kGapPixels = 4;  // between the planes

struct Plane {
  int width = 0, height = 0;
  std::vector<float> values;  // rows from the top
};

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

// The central plane of `volume` across axis `normal` of the orientation `codes`, resampled to
// square pixels with the longest side `edge`. Columns and rows of the picture run along axes 0 and
// 1 of `codes`.
absl::StatusOr<Plane> CentralPlane(const Volume& volume, const std::string& codes, int edge,
                                   double mm_per_pixel) {
  auto reorientation = ReorientationTo(volume.grid(), codes);
  if (!reorientation.ok()) return reorientation.status();
  const Grid view = ReorientedGrid(volume.grid(), *reorientation);
  Grid target = view;
  Vec3 first = {0, 0, std::floor(static_cast<double>(view.size[2]) / 2)};
  for (int i = 0; i < 2; ++i) {
    const double extent = static_cast<double>(view.size[i]) * view.spacing_mm[i];
    target.size[i] = std::clamp<int64_t>(std::llround(extent / mm_per_pixel), 1, edge);
    target.spacing_mm[i] = extent / static_cast<double>(target.size[i]);
    first[i] = (target.spacing_mm[i] / view.spacing_mm[i] - 1) / 2;
  }
  target.size[2] = 1;
  target.origin_mm = view.IndexToPhysical(first);
  Plane plane;
  plane.width = static_cast<int>(target.size[0]);
  plane.height = static_cast<int>(target.size[1]);
  plane.values.resize(static_cast<size_t>(plane.width) * static_cast<size_t>(plane.height));
  const bool labels = volume.kind() == VolumeKind::kLabels;
  Resampler(volume, target, labels ? Interpolation::kNearest : Interpolation::kLinear, 0)
      .Slices(0, 1, plane.values.data());
  return plane;
}

void Paint(const Plane& plane, int left, int top, int width, bool labels,
           const LinearIntensity& window, std::vector<uint8_t>& rgb) {
  for (int y = 0; y < plane.height; ++y) {
    for (int x = 0; x < plane.width; ++x) {
      const float value = plane.values[static_cast<size_t>(y) * static_cast<size_t>(plane.width) +
                                       static_cast<size_t>(x)];
      uint8_t* pixel = &rgb[3 * (static_cast<size_t>(top + y) * static_cast<size_t>(width) +
                                 static_cast<size_t>(left + x))];
      if (labels) {
        const auto colour = LabelColour(std::llround(value));
        std::copy(colour.begin(), colour.end(), pixel);
      } else {
        const float grey = std::clamp((value - window.offset) * window.scale, 0.0f, 1.0f);
        std::fill(pixel, pixel + 3, static_cast<uint8_t>(std::lround(grey * 255)));
      }
    }
  }
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
  LinearIntensity window;
  window.offset = static_cast<float>(low);
  window.scale = high > low ? static_cast<float>(1 / (high - low)) : 0;

  // One scale for the three planes, by the longest side of all.
  const Grid& grid = volume.grid();
  double longest_mm = 0;
  for (int i = 0; i < 3; ++i) {
    longest_mm = std::max(longest_mm, static_cast<double>(grid.size[i]) * grid.spacing_mm[i]);
  }
  const double mm_per_pixel = longest_mm / options.max_edge;
  // Axes of the pictures: right, down, into the plane. The patient's right is on the left of the
  // picture, as on a radiologist's screen; the sagittal plane shows anterior on the left.
  std::vector<Plane> planes;
  for (const char* codes : {"LPS", "LIP", "PIL"}) {
    auto plane = CentralPlane(volume, codes, options.max_edge, mm_per_pixel);
    if (!plane.ok()) return plane.status();
    planes.push_back(*std::move(plane));
  }
  int width = 0, height = 0;
  for (const Plane& plane : planes) {
    width += plane.width + (width > 0 ? kGapPixels : 0);
    height = std::max(height, plane.height);
  }
  std::vector<uint8_t> rgb(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
  int left = 0;
  for (const Plane& plane : planes) {
    Paint(plane, left, (height - plane.height) / 2, width, labels, window, rgb);
    left += plane.width + kGapPixels;
  }
  return EncodePngRgb(width, height, rgb);
}

}  // namespace gvsl
