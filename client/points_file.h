// What people write down about places: points in physical space as CSV, regions of voxels.
#ifndef GVSL_CLIENT_POINTS_FILE_H_
#define GVSL_CLIENT_POINTS_FILE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "imaging/volume.h"

namespace gvsl {

// LPS positions in mm, one a line: `x,y,z`, after which more columns may follow and are ignored. A
// first line that begins with a letter is a heading; empty lines and lines that begin with `#` are
// skipped. `source` names the text in messages. INVALID_ARGUMENT: which line is wrong, or that
// there is no point.
absl::StatusOr<std::vector<Vec3>> ParsePoints(const std::string& text, const std::string& source);

// The same from a file. NOT_FOUND if it cannot be read.
absl::StatusOr<std::vector<Vec3>> ReadPoints(const std::string& path);

// A box of voxels (column, row, slice); ends exclusive.
struct Region {
  std::array<int64_t, 3> begin = {0, 0, 0};
  std::array<int64_t, 3> end = {0, 0, 0};
};

// `i0:i1,j0:j1,k0:k1`. INVALID_ARGUMENT unless every range has 0 <= first < end.
absl::StatusOr<Region> ParseRegion(const std::string& text);

}  // namespace gvsl

#endif  // GVSL_CLIENT_POINTS_FILE_H_
