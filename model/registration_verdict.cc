#include "model/registration_verdict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/correlation.h"
#include "imaging/parallel.h"
#include "model/instance_optimisation.h"

namespace gvsl {
namespace {

// What decides (docs/registration.md tells how they were found).
constexpr double kFailedOverlapPercent = 10, kDoubtfulOverlapPercent = 50;
constexpr double kFailedLocalNcc = 0.12, kDoubtfulLocalNcc = 0.25;
// Of a deformation that climbed the local correlation: it finds some in any two images.
constexpr double kFailedClimbedNcc = 0.5, kDoubtfulClimbedNcc = 0.55;
constexpr double kFailedFoldingPercent = 5, kDoubtfulFoldingPercent = 1;
constexpr double kFailedScale = 3, kDoubtfulScale = 1.7;  // of volume, either way
constexpr double kFailedLoss = 0.02;                      // of local NCC against before
constexpr double kDoubtfulConsistencyMm = 3;
// Neighbours that differ by less, in units of the card's window, show nothing.
constexpr float kFlat = 1e-3F;
constexpr int64_t kWindowRadius = 4;

std::string Shown(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g", value);
  return text;
}

// Calls shown(i, a, b) for each fixed voxel that counts and that the moving image shows, with both
// values. Returns how many fixed voxels count.
template <typename Shown>
int64_t ForEachShown(const LevelImage& fixed, const LevelImage& moving, const Points& points,
                     const Shown& shown) {
  const std::vector<uint8_t> cells = CountedCells(moving);
  int64_t counted = 0;
  const int64_t sy = moving.grid.size[0], sz = sy * moving.grid.size[1];
  for (int64_t i = 0; i < fixed.grid.voxel_count(); ++i) {
    if (fixed.counted[i] == 0) continue;
    ++counted;
    SampleCell cell;
    if (!FindSampleCell(moving.grid.size, points[0][i], points[1][i], points[2][i], cell) ||
        cells[cell.base] == 0) {
      continue;
    }
    double b = 0;
    for (int corner = 0; corner < 8; ++corner) {
      double weight = 1;
      for (int k = 0; k < 3; ++k) weight *= corner >> k & 1 ? cell.upper[k] : 1 - cell.upper[k];
      b += weight *
           moving.values[cell.base + (corner & 1) + (corner >> 1 & 1) * sy + (corner >> 2) * sz];
    }
    shown(i, fixed.values[i], b);
  }
  return counted;
}

// The image without the voxels whose window is flat: a masked or clipped background correlates
// with nothing, and would pull the local correlation down however well the rest fits.
LevelImage WithoutFlatParts(const LevelImage& image) {
  const auto& size = image.grid.size;
  const int64_t stride[3] = {1, size[0], size[0] * size[1]};
  const int64_t voxels = image.grid.voxel_count();
  std::vector<uint8_t> told(static_cast<size_t>(voxels), 0), shows(told), wider(told);
  for (int axis = 0; axis < 3; ++axis) {
    // Voxels that differ from the next one along the axis; then all whose window has both.
    for (int64_t i = 0; i < voxels; ++i) {
      shows[i] = i / stride[axis] % size[axis] < size[axis] - 1 && image.counted[i] != 0 &&
                 image.counted[i + stride[axis]] != 0 &&
                 std::abs(image.values[i] - image.values[i + stride[axis]]) >= kFlat;
    }
    for (int along = 0; along < 3; ++along) {
      std::fill(wider.begin(), wider.end(), 0);
      for (int64_t i = 0; i < voxels; ++i) {
        if (shows[i] == 0) continue;
        const int64_t at = i / stride[along] % size[along];
        const int64_t low = std::max(at - kWindowRadius + (along == axis), int64_t{0}),
                      high = std::min(at + kWindowRadius, size[along] - 1);
        for (int64_t k = low; k <= high; ++k) wider[i + (k - at) * stride[along]] = 1;
      }
      shows.swap(wider);
    }
    for (int64_t i = 0; i < voxels; ++i) told[i] |= shows[i];
  }
  LevelImage result = image;
  for (int64_t i = 0; i < voxels; ++i) result.counted[i] &= told[i];
  return result;
}

}  // namespace

const char* QualityName(RegistrationQuality quality) {
  switch (quality) {
    case RegistrationQuality::kGood:
      return "GOOD";
    case RegistrationQuality::kDoubtful:
      return "DOUBTFUL";
    case RegistrationQuality::kFailed:
      break;
  }
  return "FAILED";
}

AlignmentFigures FiguresOf(const LevelImage& fixed, const LevelImage& moving,
                           const SpatialMap& fixed_to_moving) {
  const Points points = MappedPoints(fixed.grid, moving.grid, fixed_to_moving);
  Correlation correlation;
  const int64_t counted = ForEachShown(fixed, moving, points,
                                       [&](int64_t, double a, double b) { correlation.Add(a, b); });
  AlignmentFigures figures;
  if (correlation.count() == 0) return figures;
  figures.overlap_percent =
      100 * static_cast<double>(correlation.count()) / static_cast<double>(counted);
  figures.ncc = correlation.Value().value_or(0);
  Points gradient;
  for (auto& axis : gradient) axis.assign(points[0].size(), 0.0f);
  const LevelImage told = WithoutFlatParts(fixed);
  figures.local_ncc = MakeLocalCorrelationMetric(told, moving)->Evaluate(points, 0, gradient);
  return figures;
}

RegionSimilarity RegionsOf(const LevelImage& fixed, const LevelImage& moving,
                           const SpatialMap& fixed_to_moving, int regions) {
  RegionSimilarity result;
  result.grid = fixed.grid;
  const auto& size = fixed.grid.size;
  Vec3 centre;
  int64_t side[3];
  for (int i = 0; i < 3; ++i) {
    side[i] = (size[i] + regions - 1) / regions;
    result.grid.size[i] = (size[i] + side[i] - 1) / side[i];
    result.grid.spacing_mm[i] *= static_cast<double>(side[i]);
    centre[i] = static_cast<double>(side[i] - 1) / 2;
  }
  result.grid.origin_mm = fixed.grid.IndexToPhysical(centre);
  std::vector<Correlation> correlations(static_cast<size_t>(result.grid.voxel_count()));
  const auto& parts = result.grid.size;
  ForEachShown(fixed, moving, MappedPoints(fixed.grid, moving.grid, fixed_to_moving),
               [&](int64_t i, double a, double b) {
                 const int64_t x = i % size[0] / side[0], y = i / size[0] % size[1] / side[1],
                               z = i / (size[0] * size[1]) / side[2];
                 correlations[(z * parts[1] + y) * parts[0] + x].Add(a, b);
               });
  for (const Correlation& correlation : correlations) {
    result.ncc.push_back(
        static_cast<float>(correlation.Value().value_or(std::numeric_limits<double>::quiet_NaN())));
  }
  return result;
}

double FeatureResidual(const LevelImage& fixed, const LevelImage& moving,
                       const SpatialMap& fixed_to_moving) {
  const Points points = MappedPoints(fixed.grid, moving.grid, fixed_to_moving);
  Points gradient;
  for (auto& axis : gradient) axis.assign(points[0].size(), 0.0f);
  return 2 * (1 - MakeDescriptorMetric(fixed, moving)->Evaluate(points, 0, gradient));
}

double InverseConsistencyMm(const Grid& fixed, const Grid& moving,
                            const SpatialMap& fixed_to_moving, const SpatialMap& moving_to_fixed) {
  const PointMapper forth(fixed_to_moving), back(moving_to_fixed);
  const AffineMap to_physical = IndexToPhysicalMap(fixed), to_index = PhysicalToIndexMap(moving);
  std::vector<std::array<double, 2>> slices(static_cast<size_t>(fixed.size[2]));
  ParallelFor(fixed.size[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      auto& [sum, count] = slices[z];
      for (int64_t i = 0; i < fixed.size[0] * fixed.size[1]; ++i) {
        const Vec3 start =
            to_physical.Apply({static_cast<double>(i % fixed.size[0]),
                               static_cast<double>(i / fixed.size[0]), static_cast<double>(z)});
        const Vec3 there = forth(start), index = to_index.Apply(there);
        bool shown = true;
        for (int r = 0; r < 3; ++r) {
          shown = shown && index[r] >= 0 && index[r] <= static_cast<double>(moving.size[r] - 1);
        }
        if (!shown) continue;
        const Vec3 end_mm = back(there);
        sum += std::hypot(end_mm[0] - start[0], end_mm[1] - start[1], end_mm[2] - start[2]);
        ++count;
      }
    }
  });
  double sum = 0, count = 0;
  for (const auto& slice : slices) {
    sum += slice[0];
    count += slice[1];
  }
  return sum / std::max(1.0, count);
}

void Judge(const AffineMap& fixed_to_moving, bool climbed, RegistrationVerdict& verdict) {
  const double failed_ncc = climbed ? kFailedClimbedNcc : kFailedLocalNcc;
  const double doubtful_ncc = climbed ? kDoubtfulClimbedNcc : kDoubtfulLocalNcc;
  const double scale = Determinant(fixed_to_moving.matrix);
  const double change = scale > 0 ? std::max(scale, 1 / scale) : 1e9;
  const auto is = [&](RegistrationQuality quality, const std::string& reason) {
    verdict.quality = quality;
    verdict.reason = reason;
  };
  const std::string overlap = absl::StrCat("only ", Shown(verdict.overlap_percent),
                                           " % of the fixed volume is shown in "
                                           "the moving one");
  const std::string local =
      absl::StrCat("local correlation after alignment is ", Shown(verdict.local_ncc_after));
  const std::string folds = absl::StrCat(
      "the map folds at ", Shown(verdict.jacobian.non_positive_percent), " % of voxels");
  const std::string size =
      absl::StrCat("the affine part changes volumes by a factor of ", Shown(scale));
  const auto failed = RegistrationQuality::kFailed, doubtful = RegistrationQuality::kDoubtful;
  if (verdict.overlap_percent < kFailedOverlapPercent) return is(failed, overlap);
  if (verdict.local_ncc_after < failed_ncc) {
    return is(failed, absl::StrCat(local, "; below ", failed_ncc,
                                   " the images do not show "
                                   "the same"));
  }
  if (verdict.local_ncc_after < verdict.local_ncc_before - kFailedLoss) {
    return is(failed,
              absl::StrCat(local, ", less than before (", Shown(verdict.local_ncc_before), ")"));
  }
  if (verdict.jacobian.non_positive_percent > kFailedFoldingPercent) return is(failed, folds);
  if (change > kFailedScale) return is(failed, size);
  if (verdict.overlap_percent < kDoubtfulOverlapPercent) return is(doubtful, overlap);
  if (verdict.local_ncc_after < doubtful_ncc) {
    return is(doubtful, absl::StrCat(local, ", below ", doubtful_ncc));
  }
  if (verdict.jacobian.non_positive_percent > kDoubtfulFoldingPercent) return is(doubtful, folds);
  if (change > kDoubtfulScale) return is(doubtful, size);
  if (verdict.inverse_consistency_mm.value_or(0) > kDoubtfulConsistencyMm) {
    return is(doubtful, absl::StrCat("forth and back ends ", Shown(*verdict.inverse_consistency_mm),
                                     " mm off on average"));
  }
  is(RegistrationQuality::kGood,
     absl::StrCat(local, " (", Shown(verdict.local_ncc_before), " before), ",
                  Shown(verdict.jacobian.non_positive_percent), " % folding, ",
                  Shown(verdict.overlap_percent), " % overlap"));
}

}  // namespace gvsl
