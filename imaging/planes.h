// Planes through a volume's space as pictures: lattices of one slice, and pixels side by side.
#ifndef GVSL_IMAGING_PLANES_H_
#define GVSL_IMAGING_PLANES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "imaging/intensity.h"
#include "imaging/volume.h"

namespace gvsl {

// The central planes axial, coronal and sagittal of a grid of any orientation: one slice each,
// square pixels, the grid's longest side `max_edge` of them. Columns run right and rows down in the
// picture: the patient's right is on its left, as on a radiologist's screen, anterior is up in the
// axial plane, superior up in the others, and anterior on the left in the sagittal one.
absl::StatusOr<std::array<Grid, 3>> CentralPlanes(const Grid& grid, int max_edge);

using Colour = std::array<uint8_t, 3>;

// The window from `low` (black) to `high` (white).
LinearIntensity WindowOf(double low, double high);
Colour Grey(const LinearIntensity& window, float value);

// RGB pixels, rows from the top; black at first.
struct Picture {
  explicit Picture(const Grid& plane)
      : width(static_cast<int>(plane.size[0])),
        height(static_cast<int>(plane.size[1])),
        rgb(3 * static_cast<size_t>(width) * static_cast<size_t>(height)) {}
  void Set(size_t pixel, const Colour& colour) {
    for (size_t c = 0; c < 3; ++c) rgb[3 * pixel + c] = colour[c];
  }
  int width, height;
  std::vector<uint8_t> rgb;
};

// As a PNG file, centred in height.
absl::StatusOr<std::string> EncodeSideBySide(const std::vector<Picture>& pictures);

}  // namespace gvsl

#endif  // GVSL_IMAGING_PLANES_H_
