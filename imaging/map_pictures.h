// Pictures that show people whether a registration is right.
#ifndef GVSL_IMAGING_MAP_PICTURES_H_
#define GVSL_IMAGING_MAP_PICTURES_H_

#include <string>

#include "absl/status/statusor.h"
#include "imaging/spatial_map.h"
#include "imaging/volume.h"

namespace gvsl {

// PNG files, each with the three central planes of the fixed volume (CentralPlanes).
struct MapPictures {
  std::string fixed;
  std::string moving_before, moving_after;  // as the scanner has it, and through the map
  // Squares of fixed and moving by turns.
  std::string checkerboard_before, checkerboard_after;
  // Fixed in green, moving in magenta: grey where both agree.
  std::string overlay_before, overlay_after;
  // Lines of equal LPS coordinates of moving space, `line_mm` apart, where the map puts them.
  std::string warped_grid;
  double line_mm = 0;
  // The map's change of volume: blue halves it, white keeps it, red doubles it, black folds.
  std::string jacobian;
};

// `max_edge`: pixels of the fixed volume's longest side, 16..512. Both are images.
absl::StatusOr<MapPictures> DrawMap(const Volume& fixed, const Volume& moving,
                                    const SpatialMap& fixed_to_moving, int max_edge);

}  // namespace gvsl

#endif  // GVSL_IMAGING_MAP_PICTURES_H_
