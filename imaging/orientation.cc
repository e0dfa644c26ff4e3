#include "imaging/orientation.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "imaging/parallel.h"

namespace gvsl {
namespace {

// Letters of the direction in which an LPS coordinate grows and falls.
constexpr char kPositive[] = "LPS";
constexpr char kNegative[] = "RAI";

struct NearestAxes {
  std::array<int, 3> physical;  // of each index axis: 0 L, 1 P, 2 S
  std::array<bool, 3> positive;
};

// The assignment of index axes to physical axes with the greatest sum of |cosines|: at 45 degrees,
// where the nearest axis of each alone would be ambiguous, it is still one to one.
NearestAxes NearestAxesOf(const Grid& grid) {
  std::array<int, 3> order = {0, 1, 2}, best = order;
  double best_sum = -1;
  do {
    double sum = 0;
    for (int i = 0; i < 3; ++i) sum += std::abs(grid.direction[order[i]][i]);
    if (sum > best_sum + 1e-9) {
      best_sum = sum;
      best = order;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  NearestAxes axes;
  axes.physical = best;
  for (int i = 0; i < 3; ++i) axes.positive[i] = grid.direction[best[i]][i] >= 0;
  return axes;
}

template <typename T>
void CopyReoriented(const Volume& from, const Reorientation& reorientation, Volume& to) {
  const auto& size = from.grid().size;
  const int64_t strides[3] = {1, size[0], size[0] * size[1]};
  int64_t base = 0, step[3];
  for (int i = 0; i < 3; ++i) {
    const int axis = reorientation.source_axis[i];
    step[i] = reorientation.flipped[i] ? -strides[axis] : strides[axis];
    if (reorientation.flipped[i]) base += strides[axis] * (size[axis] - 1);
  }
  const T* source = from.voxels<T>() + base;
  T* target = to.mutable_voxels<T>();
  const auto& out = to.grid().size;
  ParallelFor(out[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      for (int64_t y = 0; y < out[1]; ++y) {
        const T* in = source + z * step[2] + y * step[1];
        T* row = target + (z * out[1] + y) * out[0];
        for (int64_t x = 0; x < out[0]; ++x) row[x] = in[x * step[0]];
      }
    }
  });
}

}  // namespace

std::string OrientationOf(const Grid& grid) {
  const NearestAxes axes = NearestAxesOf(grid);
  std::string codes;
  for (int i = 0; i < 3; ++i) {
    codes += (axes.positive[i] ? kPositive : kNegative)[axes.physical[i]];
  }
  return codes;
}

absl::StatusOr<Reorientation> ReorientationTo(const Grid& grid, const std::string& codes) {
  Reorientation result;
  const NearestAxes axes = NearestAxesOf(grid);
  std::array<bool, 3> seen = {};
  bool good = codes.size() == 3;
  for (size_t i = 0; good && i < 3; ++i) {
    const char* positive = std::strchr(kPositive, codes[i]);
    const char* negative = std::strchr(kNegative, codes[i]);
    // strchr finds the terminator, too.
    good = codes[i] != '\0' && (positive != nullptr || negative != nullptr);
    if (!good) break;
    const int physical =
        static_cast<int>(positive != nullptr ? positive - kPositive : negative - kNegative);
    good = !seen[physical];
    seen[physical] = true;
    for (int axis = 0; axis < 3; ++axis) {
      if (axes.physical[axis] != physical) continue;
      result.source_axis[i] = axis;
      result.flipped[i] = axes.positive[axis] != (positive != nullptr);
    }
  }
  if (!good) {
    return absl::InvalidArgumentError(absl::StrCat(
        "orientation: \"", codes.substr(0, 16),
        "\" is no orientation; it takes one letter of each pair L/R, P/A and S/I, such "
        "as LPS or RAS"));
  }
  return result;
}

Grid ReorientedGrid(const Grid& grid, const Reorientation& reorientation) {
  Grid result;
  Vec3 corner = {0, 0, 0};  // index of the new first voxel in the old grid
  for (int i = 0; i < 3; ++i) {
    const int axis = reorientation.source_axis[i];
    const bool flipped = reorientation.flipped[i];
    result.size[i] = grid.size[axis];
    result.spacing_mm[i] = grid.spacing_mm[axis];
    for (int r = 0; r < 3; ++r) {
      result.direction[r][i] = flipped ? -grid.direction[r][axis] : grid.direction[r][axis];
    }
    if (flipped) corner[axis] = static_cast<double>(grid.size[axis] - 1);
  }
  result.origin_mm = grid.IndexToPhysical(corner);
  return result;
}

absl::StatusOr<Volume> Reorient(const Volume& volume, const std::string& codes) {
  auto reorientation = ReorientationTo(volume.grid(), codes);
  if (!reorientation.ok()) return reorientation.status();
  auto result =
      Volume::Allocate(ReorientedGrid(volume.grid(), *reorientation), volume.type(), volume.kind());
  if (!result.ok()) return result;
  result->set_modality(volume.modality());
  VisitVoxelType(volume.type(), [&](auto zero) {
    CopyReoriented<decltype(zero)>(volume, *reorientation, *result);
  });
  return result;
}

absl::StatusOr<Grid> ModelGrid(const Grid& grid, const std::string& codes, const Vec3& spacing_mm) {
  auto reorientation = ReorientationTo(grid, codes);
  if (!reorientation.ok()) return reorientation.status();
  const Grid source = ReorientedGrid(grid, *reorientation);
  Grid result = source;
  result.spacing_mm = spacing_mm;
  Vec3 first = {0, 0, 0};
  for (int i = 0; i < 3; ++i) {
    const double extent = static_cast<double>(source.size[i]) * source.spacing_mm[i];
    result.size[i] = std::max<int64_t>(1, std::llround(extent / spacing_mm[i]));
    // Index, in source voxels, of the new first voxel when both extents share their centre.
    first[i] = (static_cast<double>(source.size[i] - 1) -
                static_cast<double>(result.size[i] - 1) * spacing_mm[i] / source.spacing_mm[i]) /
               2;
  }
  result.origin_mm = source.IndexToPhysical(first);
  return result;
}

}  // namespace gvsl
