// How a grid's axes lie in the patient, and volumes with them permuted and flipped, which is exact.
#ifndef GVSL_IMAGING_ORIENTATION_H_
#define GVSL_IMAGING_ORIENTATION_H_

#include <array>
#include <string>

#include "imaging/volume.h"

namespace gvsl {

// Axis codes of a direction in LPS letters: for columns, rows, slices the anatomical direction in
// which the index grows (nearest axis), e.g. "LPS" for the identity, "RAS" for nibabel's canonical
// one.
std::string OrientationOf(const Grid& grid);

// Permutation and flips that bring a grid to the nearest lattice with the given axis codes. Exact.
struct Reorientation {
  std::array<int, 3> source_axis = {0, 1, 2};  // axis i of the result is this axis of the source
  std::array<bool, 3> flipped = {false, false, false};
};
// INVALID_ARGUMENT unless `codes` has one letter of each pair L/R, P/A, S/I.
absl::StatusOr<Reorientation> ReorientationTo(const Grid& grid, const std::string& codes);
Grid ReorientedGrid(const Grid& grid, const Reorientation& reorientation);
absl::StatusOr<Volume> Reorient(const Volume& volume, const std::string& codes);

// The grid of a volume in a model's space: its own axes, permuted and flipped to `codes` (never
// rotated, so that no interpolation depends on how a file happens to store it), with `spacing_mm`,
// covering the same extent, centred: size = max(1, round(old size * old spacing / new spacing)). A
// volume stored in another orientation gives the same grid.
absl::StatusOr<Grid> ModelGrid(const Grid& grid, const std::string& codes, const Vec3& spacing_mm);

}  // namespace gvsl

#endif  // GVSL_IMAGING_ORIENTATION_H_
