// Gaps and grids of a stack; declared in ingest/slice_stack.h.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "ingest/slice_stack.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

constexpr double kGapSteps = 1.5, kGapThicknesses = 1.25;
constexpr double kEvenShare = 0.01, kEvenMm = 0.05;  // of a step; and at most
constexpr double kAlignedPixels = 0.05;
constexpr double kOrthogonal = 9e-4;  // sine; within the tolerance of ValidateGrid

const DicomFrame& FrameOf(const std::vector<DicomInstance>& instances, const SliceRef& slice) {
  return instances[slice.instance].frames[slice.frame];
}

Vec3 NormalOf(const DicomFrame& frame) {
  return Cross(frame.row_direction, frame.column_direction);
}

// The distances between neighbours along the normal.
std::vector<double> StepsOf(const std::vector<DicomInstance>& instances, const SliceStack& stack) {
  const Vec3 normal = NormalOf(FrameOf(instances, stack.slices[0]));
  std::vector<double> steps;
  for (size_t i = 1; i < stack.slices.size(); ++i) {
    steps.push_back(Dot(normal, FrameOf(instances, stack.slices[i]).position_mm -
                                    FrameOf(instances, stack.slices[i - 1]).position_mm));
  }
  return steps;
}

double Quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

}  // namespace

std::vector<size_t> FindGaps(const std::vector<DicomInstance>& instances, const SliceStack& stack) {
  std::vector<size_t> gaps;
  if (stack.slices.size() < 3) return gaps;
  const std::vector<double> steps = StepsOf(instances, stack);
  const double median = Quantile(steps, 0.5);
  for (size_t i = 0; i < steps.size(); ++i) {
    const double thickness = std::max(FrameOf(instances, stack.slices[i]).slice_thickness_mm,
                                      FrameOf(instances, stack.slices[i + 1]).slice_thickness_mm);
    if (steps[i] > kGapSteps * median && steps[i] > kGapThicknesses * thickness) {
      gaps.push_back(i + 1);
    }
  }
  return gaps;
}

absl::StatusOr<StackGeometry> PlanStack(const std::vector<DicomInstance>& instances,
                                        const SliceStack& stack) {
  const size_t count = stack.slices.size();
  const DicomFrame& first = FrameOf(instances, stack.slices[0]);
  const PixelFormat& format = instances[stack.slices[0].instance].pixels;
  if (count < 2) return absl::FailedPreconditionError("a single slice is no volume");
  const Vec3 normal = NormalOf(first);
  const std::vector<double> steps = StepsOf(instances, stack);
  StackGeometry geometry;
  geometry.min_step_mm = *std::min_element(steps.begin(), steps.end());
  geometry.max_step_mm = *std::max_element(steps.begin(), steps.end());

  const Vec3 line = FrameOf(instances, stack.slices.back()).position_mm - first.position_mm;
  const double depth_mm = Dot(line, normal);
  const double mean_step_mm = depth_mm / static_cast<double>(count - 1);
  const double sine = Length(Cross(line, normal)) / Length(line);
  geometry.tilt_degrees = std::asin(std::min(1.0, sine)) * 180 / M_PI;

  // Where the slices lie, and how far from an even lattice along their line.
  double uneven_mm = 0, astray_pixels = 0;
  for (size_t i = 0; i < count; ++i) {
    const Vec3 offset = FrameOf(instances, stack.slices[i]).position_mm - first.position_mm;
    geometry.placements.push_back({Dot(offset, first.row_direction) / first.column_spacing_mm,
                                   Dot(offset, first.column_direction) / first.row_spacing_mm,
                                   Dot(offset, normal)});
    const Vec3 astray = offset - (static_cast<double>(i) / static_cast<double>(count - 1)) * line;
    uneven_mm = std::max(uneven_mm, std::abs(Dot(astray, normal)));
    astray_pixels = std::max(
        {astray_pixels, std::abs(Dot(astray, first.row_direction)) / first.column_spacing_mm,
         std::abs(Dot(astray, first.column_direction)) / first.row_spacing_mm});
    geometry.max_displacement_mm = std::max(geometry.max_displacement_mm, Length(astray));
  }
  const bool even = uneven_mm <= std::min(kEvenShare * mean_step_mm, kEvenMm);
  const bool upright = sine <= kOrthogonal && astray_pixels <= kAlignedPixels;

  Grid& grid = geometry.grid;
  grid.size = {format.slice_columns, format.slice_rows, static_cast<int64_t>(count)};
  grid.spacing_mm = {first.column_spacing_mm, first.row_spacing_mm, mean_step_mm};
  grid.origin_mm = first.position_mm;
  Vec3 through = normal;
  if (even && upright) {
    // The line itself: every slice then lies where its header says.
    through = (1 / Length(line)) * line;
    grid.spacing_mm[2] = Length(line) / static_cast<double>(count - 1);
  } else {
    geometry.resampled = true;
    geometry.max_displacement_mm = 0;
    if (even) {
      // Slice onto slice: nothing is blended along the normal.
      for (size_t i = 0; i < count; ++i) {
        geometry.placements[i].depth_mm = static_cast<double>(i) * mean_step_mm;
      }
    } else {
      grid.spacing_mm[2] = Quantile(steps, 0.25);
      grid.size[2] = static_cast<int64_t>(depth_mm / grid.spacing_mm[2] + 1e-6) + 1;
    }
    if (!upright) {
      double begin[2] = {0, 0}, end[2] = {0, 0};
      for (const StackGeometry::Placement& placement : geometry.placements) {
        const double at[2] = {placement.column, placement.row};
        for (int axis = 0; axis < 2; ++axis) {
          begin[axis] = std::min(begin[axis], std::floor(at[axis] + 1e-6));
          end[axis] = std::max(end[axis], std::ceil(at[axis] - 1e-6));
        }
      }
      for (int axis = 0; axis < 2; ++axis) {
        const double longest = 1e5;  // beyond what a grid may have; keeps the conversion defined
        grid.size[axis] += static_cast<int64_t>(std::min(longest, end[axis] - begin[axis]));
      }
      grid.origin_mm = first.position_mm +
                       begin[0] * first.column_spacing_mm * first.row_direction +
                       begin[1] * first.row_spacing_mm * first.column_direction;
      for (StackGeometry::Placement& placement : geometry.placements) {
        placement.column -= begin[0];
        placement.row -= begin[1];
      }
    } else {
      for (StackGeometry::Placement& placement : geometry.placements) {
        placement.column = placement.row = 0;
      }
    }
  }
  for (int axis = 0; axis < 3; ++axis) {
    grid.direction[axis] = {first.row_direction[axis], first.column_direction[axis], through[axis]};
  }
  if (absl::Status status = ValidateGrid(grid); !status.ok()) {
    return absl::FailedPreconditionError(status.message());
  }
  return geometry;
}

}  // namespace gvsl
