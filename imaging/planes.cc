#include "imaging/planes.h"

#include <algorithm>
#include <cmath>

#include "imaging/orientation.h"
#include "imaging/png.h"

namespace gvsl {
namespace {

constexpr int kGapPixels = 4;
// Axes of the pictures: right, down, into the plane.
constexpr const char* kPlanes[] = {"LPS", "LIP", "PIL"};

}  // namespace

absl::StatusOr<std::array<Grid, 3>> CentralPlanes(const Grid& grid, int max_edge) {
  double longest_mm = 0;
  for (int i = 0; i < 3; ++i)
    longest_mm = std::max(longest_mm, static_cast<double>(grid.size[i]) * grid.spacing_mm[i]);
  const double mm_per_pixel = longest_mm / max_edge;
  std::array<Grid, 3> planes;
  for (size_t p = 0; p < 3; ++p) {
    auto reorientation = ReorientationTo(grid, kPlanes[p]);
    if (!reorientation.ok()) return reorientation.status();
    const Grid view = ReorientedGrid(grid, *reorientation);
    Grid& plane = planes[p];
    plane = view;
    Vec3 first = {0, 0, std::floor(static_cast<double>(view.size[2]) / 2)};
    for (int i = 0; i < 2; ++i) {
      const double extent = static_cast<double>(view.size[i]) * view.spacing_mm[i];
      plane.size[i] = std::clamp<int64_t>(std::llround(extent / mm_per_pixel), 1, max_edge);
      plane.spacing_mm[i] = extent / static_cast<double>(plane.size[i]);
      first[i] = (plane.spacing_mm[i] / view.spacing_mm[i] - 1) / 2;
    }
    plane.size[2] = 1;
    plane.origin_mm = view.IndexToPhysical(first);
  }
  return planes;
}

LinearIntensity WindowOf(double low, double high) {
  LinearIntensity window;
  window.offset = static_cast<float>(low);
  window.scale = high > low ? static_cast<float>(1 / (high - low)) : 0;
  return window;
}

Colour Grey(const LinearIntensity& window, float value) {
  const float grey = std::clamp((value - window.offset) * window.scale, 0.0f, 1.0f);
  const auto level = static_cast<uint8_t>(std::lround(grey * 255));
  return {level, level, level};
}

absl::StatusOr<std::string> EncodeSideBySide(const std::vector<Picture>& pictures) {
  int width = 0, height = 0;
  for (const Picture& picture : pictures) {
    width += picture.width + (width > 0 ? kGapPixels : 0);
    height = std::max(height, picture.height);
  }
  std::vector<uint8_t> rgb(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
  int left = 0;
  for (const Picture& picture : pictures) {
    const int top = (height - picture.height) / 2;
    for (int y = 0; y < picture.height; ++y) {
      const auto row = picture.rgb.begin() + std::ptrdiff_t{3} * y * picture.width;
      std::copy(row, row + std::ptrdiff_t{3} * picture.width,
                rgb.begin() + std::ptrdiff_t{3} * (std::ptrdiff_t{width} * (top + y) + left));
    }
    left += picture.width + kGapPixels;
  }
  return EncodePngRgb(width, height, rgb);
}

}  // namespace gvsl
