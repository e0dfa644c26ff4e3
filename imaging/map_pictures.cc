#include "imaging/map_pictures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/intensity.h"
#include "imaging/planes.h"
#include "imaging/warp_volume.h"

namespace gvsl {
namespace {

constexpr int kSquares = 8;    // of a checkerboard along the longest side
constexpr double kLines = 12;  // of the grid along it, or so
constexpr Colour kLine = {255, 210, 60};

// Shades of one volume on a plane, 0 to 255.
struct Shades {
  const Volume& volume;
  const LinearIntensity window;

  explicit Shades(const Volume& image)
      : volume(image), window(WindowOf(PercentileOf(image, 0.5), PercentileOf(image, 99.5))) {}
  std::vector<uint8_t> On(const Grid& plane, const SpatialMap& map) const {
    std::vector<float> values(static_cast<size_t>(plane.voxel_count()));
    Warper(volume, map, plane).Linear(0, 1, window.offset, values.data());
    std::vector<uint8_t> shades;
    for (float value : values) shades.push_back(Grey(window, value)[0]);
    return shades;
  }
};

// The colour of each pixel of a plane.
template <typename ColourOf>
Picture Drawn(const Grid& plane, const ColourOf& colour_of) {
  Picture picture(plane);
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x) {
      const size_t pixel =
          static_cast<size_t>(y) * static_cast<size_t>(picture.width) + static_cast<size_t>(x);
      picture.Set(pixel, colour_of(pixel, x, y));
    }
  }
  return picture;
}

Picture Plain(const Grid& plane, const std::vector<uint8_t>& shades) {
  return Drawn(plane, [&](size_t i, int, int) { return Colour{shades[i], shades[i], shades[i]}; });
}

Picture Checkerboard(const Grid& plane, const std::vector<uint8_t>& fixed,
                     const std::vector<uint8_t>& moving, int square) {
  return Drawn(plane, [&](size_t i, int x, int y) {
    const uint8_t shade = (x / square + y / square) % 2 == 0 ? fixed[i] : moving[i];
    return Colour{shade, shade, shade};
  });
}

Picture Overlay(const Grid& plane, const std::vector<uint8_t>& fixed,
                const std::vector<uint8_t>& moving) {
  return Drawn(plane, [&](size_t i, int, int) { return Colour{moving[i], fixed[i], moving[i]}; });
}

// 1, 2 or 5 times a power of ten.
double RoundLength(double mm) {
  const double power = std::pow(10, std::floor(std::log10(mm)));
  return power * (mm < 1.5 * power ? 1 : mm < 3.5 * power ? 2 : mm < 7.5 * power ? 5 : 10);
}

// Pixels behind which one of two coordinates of moving space passes a line.
Picture WarpedGrid(const Grid& plane, const std::vector<uint8_t>& shades, const PointMapper& mapper,
                   const std::array<int, 2>& axes, double line_mm) {
  const auto cell = [&](int x, int y) {
    const Vec3 point =
        mapper(plane.IndexToPhysical({static_cast<double>(x), static_cast<double>(y), 0}));
    return std::array<double, 2>{std::floor(point[static_cast<size_t>(axes[0])] / line_mm),
                                 std::floor(point[static_cast<size_t>(axes[1])] / line_mm)};
  };
  return Drawn(plane, [&](size_t i, int x, int y) {
    const auto here = cell(x, y);
    if (here != cell(x + 1, y) || here != cell(x, y + 1)) return kLine;
    const auto shade = static_cast<uint8_t>(shades[i] / 2);
    return Colour{shade, shade, shade};
  });
}

Colour JacobianColour(double determinant) {
  if (!(determinant > 0)) return {0, 0, 0};
  const double octaves = std::clamp(std::log2(determinant), -1.0, 1.0);
  const auto pale = static_cast<uint8_t>(std::lround(255 * (1 - std::abs(octaves))));
  return octaves < 0 ? Colour{pale, pale, 255} : Colour{255, pale, pale};
}

Picture JacobianPicture(const Grid& plane, const PointMapper& mapper) {
  const double step = plane.spacing_mm[0];
  return Drawn(plane, [&](size_t, int x, int y) {
    const Vec3 centre = plane.IndexToPhysical({static_cast<double>(x), static_cast<double>(y), 0});
    Mat3 slopes;
    for (size_t i = 0; i < 3; ++i) {
      Vec3 before = centre, after = centre;
      before[i] -= step;
      after[i] += step;
      const Vec3 a = mapper(before), b = mapper(after);
      for (size_t r = 0; r < 3; ++r) slopes[r][i] = (b[r] - a[r]) / (2 * step);
    }
    return JacobianColour(Determinant(slopes));
  });
}

}  // namespace

absl::StatusOr<MapPictures> DrawMap(const Volume& fixed, const Volume& moving,
                                    const SpatialMap& fixed_to_moving, int max_edge) {
  if (max_edge < 16 || max_edge > 512) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_edge: ", max_edge, " pixels; it must lie in 16 to 512"));
  }
  auto planes = CentralPlanes(fixed.grid(), max_edge);
  if (!planes.ok()) return planes.status();
  const Shades fixed_shades(fixed), moving_shades(moving);
  const PointMapper mapper(fixed_to_moving);
  MapPictures result;
  double longest_mm = 0;
  for (int i = 0; i < 3; ++i) {
    longest_mm = std::max(longest_mm,
                          static_cast<double>(fixed.grid().size[i]) * fixed.grid().spacing_mm[i]);
  }
  result.line_mm = RoundLength(longest_mm / kLines);
  // The patient's axes along which the columns and rows of each plane run.
  constexpr std::array<std::array<int, 2>, 3> kAxes = {{{0, 1}, {0, 2}, {1, 2}}};
  const int square = std::max(1, max_edge / kSquares);
  std::vector<Picture> plain, before, after, checks_before, checks_after, over_before, over_after,
      lines, volumes;
  for (size_t p = 0; p < 3; ++p) {
    const Grid& plane = (*planes)[p];
    const auto a = fixed_shades.On(plane, {}), b = moving_shades.On(plane, {}),
               c = moving_shades.On(plane, fixed_to_moving);
    plain.push_back(Plain(plane, a));
    before.push_back(Plain(plane, b));
    after.push_back(Plain(plane, c));
    checks_before.push_back(Checkerboard(plane, a, b, square));
    checks_after.push_back(Checkerboard(plane, a, c, square));
    over_before.push_back(Overlay(plane, a, b));
    over_after.push_back(Overlay(plane, a, c));
    lines.push_back(WarpedGrid(plane, a, mapper, kAxes[p], result.line_mm));
    volumes.push_back(JacobianPicture(plane, mapper));
  }
  for (const auto& [pictures, png] :
       {std::pair(&plain, &result.fixed), std::pair(&before, &result.moving_before),
        std::pair(&after, &result.moving_after),
        std::pair(&checks_before, &result.checkerboard_before),
        std::pair(&checks_after, &result.checkerboard_after),
        std::pair(&over_before, &result.overlay_before),
        std::pair(&over_after, &result.overlay_after), std::pair(&lines, &result.warped_grid),
        std::pair(&volumes, &result.jacobian)}) {
    auto encoded = EncodeSideBySide(*pictures);
    if (!encoded.ok()) return encoded.status();
    *png = *std::move(encoded);
  }
  return result;
}

}  // namespace gvsl
