#include "imaging/warp_volume.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "imaging/correlation.h"
#include "imaging/parallel.h"

namespace gvsl {
namespace {

// Slices of the target that are in memory as float32 or int32 at a time.
constexpr int64_t kSlab = 8;
constexpr int kNeighbourhood = 9;  // voxels a side that SimilarityAt compares

// The eight voxels around a point and the share of the upper one along each axis.
struct Cell {
  int64_t base = 0;
  int64_t step[3];
  double upper[3];

  int64_t offset(int corner) const {
    return base + (corner & 1 ? step[0] : 0) + (corner & 2 ? step[1] : 0) +
           (corner & 4 ? step[2] : 0);
  }
  double weight(int corner) const {
    double product = 1;
    for (int i = 0; i < 3; ++i) product *= corner >> i & 1 ? upper[i] : 1 - upper[i];
    return product;
  }
};

// False more than half a voxel outside.
bool FindCell(const std::array<int64_t, 3>& size, const Vec3& index, Cell& cell) {
  const int64_t stride[3] = {1, size[0], size[0] * size[1]};
  cell.base = 0;
  for (int i = 0; i < 3; ++i) {
    const double last = static_cast<double>(size[i] - 1);
    if (!(index[i] >= -0.5 && index[i] <= last + 0.5)) return false;
    const double at = std::clamp(index[i], 0.0, last);
    const int64_t low = std::min(static_cast<int64_t>(at), size[i] - 2);
    cell.base += low * stride[i];
    cell.step[i] = stride[i];
    cell.upper[i] = at - static_cast<double>(low);
  }
  return true;
}

template <typename T>
int32_t LabelIn(const T* voxels, const Cell& cell, LabelRule rule) {
  if (rule == LabelRule::kNearest) {
    int corner = 0;
    for (int i = 0; i < 3; ++i) corner |= (cell.upper[i] >= 0.5 ? 1 : 0) << i;
    return static_cast<int32_t>(voxels[cell.offset(corner)]);
  }
  int32_t labels[8];
  double weights[8];
  int distinct = 0;
  for (int corner = 0; corner < 8; ++corner) {
    const auto label = static_cast<int32_t>(voxels[cell.offset(corner)]);
    const int known = static_cast<int>(std::find(labels, labels + distinct, label) - labels);
    if (known == distinct) {
      labels[distinct] = label;
      weights[distinct++] = 0;
    }
    weights[known] += cell.weight(corner);
  }
  int best = 0;
  for (int k = 1; k < distinct; ++k) {
    if (weights[k] > weights[best] || (weights[k] == weights[best] && labels[k] < labels[best])) {
      best = k;
    }
  }
  return labels[best];
}

// The image at an index, linear; nothing outside.
std::optional<double> ValueAt(const Volume& volume, const Vec3& index) {
  Cell cell;
  if (!FindCell(volume.grid().size, index, cell)) return std::nullopt;
  return VisitVoxelType(volume.type(), [&](auto zero) {
    const auto* voxels = volume.voxels<decltype(zero)>();
    double sum = 0;
    for (int corner = 0; corner < 8; ++corner)
      sum += cell.weight(corner) * static_cast<double>(voxels[cell.offset(corner)]);
    return std::optional<double>(sum);
  });
}

// The values of a slab in the volume's own type.
template <typename T, typename From>
void Store(const std::vector<From>& values, int64_t count, T* out) {
  ParallelFor(count, 0, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const From value = values[static_cast<size_t>(i)];
      if constexpr (std::is_floating_point_v<T> || std::is_same_v<T, From>) {
        out[i] = static_cast<T>(value);
      } else {
        out[i] = static_cast<T>(std::clamp(std::round(static_cast<double>(value)),
                                           static_cast<double>(std::numeric_limits<T>::min()),
                                           static_cast<double>(std::numeric_limits<T>::max())));
      }
    }
  });
}

}  // namespace

Warper::Warper(const Volume& moving, const SpatialMap& fixed_to_moving, const Grid& target)
    : moving_(moving), fixed_to_moving_(fixed_to_moving), target_(target) {}

// visit(voxel of the part, cell of the moving volume or null).
template <typename Visit>
void Warper::ForEachVoxel(int64_t z_begin, int64_t z_end, const Visit& visit) const {
  const PointMapper mapper(fixed_to_moving_);
  const AffineMap to_physical = IndexToPhysicalMap(target_);
  const AffineMap to_index = PhysicalToIndexMap(moving_.grid());
  const auto& size = target_.size;
  ParallelFor((z_end - z_begin) * size[1], 0, [&](int64_t begin, int64_t end) {
    Cell cell;
    for (int64_t row = begin; row < end; ++row) {
      Vec3 index = {0, static_cast<double>(row % size[1]),
                    static_cast<double>(z_begin + row / size[1])};
      for (int64_t x = 0; x < size[0]; ++x) {
        index[0] = static_cast<double>(x);
        const Vec3 at = to_index.Apply(mapper(to_physical.Apply(index)));
        visit(row * size[0] + x, FindCell(moving_.grid().size, at, cell) ? &cell : nullptr);
      }
    }
  });
}

void Warper::Linear(int64_t z_begin, int64_t z_end, float outside, float* out) const {
  VisitVoxelType(moving_.type(), [&](auto zero) {
    const auto* voxels = moving_.voxels<decltype(zero)>();
    ForEachVoxel(z_begin, z_end, [&](int64_t i, const Cell* cell) {
      double sum = 0;
      for (int corner = 0; cell != nullptr && corner < 8; ++corner) {
        sum += cell->weight(corner) * static_cast<double>(voxels[cell->offset(corner)]);
      }
      out[i] = cell == nullptr ? outside : static_cast<float>(sum);
    });
  });
}

void Warper::Labels(int64_t z_begin, int64_t z_end, LabelRule rule, int32_t* out) const {
  VisitVoxelType(moving_.type(), [&](auto zero) {
    const auto* voxels = moving_.voxels<decltype(zero)>();
    ForEachVoxel(z_begin, z_end, [&](int64_t i, const Cell* cell) {
      out[i] = cell == nullptr ? 0 : LabelIn(voxels, *cell, rule);
    });
  });
}

absl::Status WarpSlabs(const Volume& moving, const SpatialMap& fixed_to_moving, const Grid& target,
                       LabelRule rule, float outside, const SlabFunction& slab) {
  const Warper warper(moving, fixed_to_moving, target);
  const int64_t plane = target.size[0] * target.size[1];
  const size_t most = static_cast<size_t>(kSlab * plane);
  const bool labels = moving.kind() == VolumeKind::kLabels;
  std::vector<float> values(labels ? 0 : most);
  std::vector<int32_t> numbers(labels ? most : 0);
  return VisitVoxelType(moving.type(), [&](auto zero) -> absl::Status {
    std::vector<decltype(zero)> voxels(most);
    for (int64_t z = 0; z < target.size[2]; z += kSlab) {
      const int64_t end = std::min(z + kSlab, target.size[2]), count = (end - z) * plane;
      if (labels) {
        warper.Labels(z, end, rule, numbers.data());
        Store(numbers, count, voxels.data());
      } else {
        warper.Linear(z, end, outside, values.data());
        Store(values, count, voxels.data());
      }
      absl::Status status = slab(reinterpret_cast<const uint8_t*>(voxels.data()),
                                 static_cast<size_t>(count) * sizeof(zero));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Volume> WarpVolume(const Volume& moving, const SpatialMap& fixed_to_moving,
                                  const Grid& target, LabelRule rule, float outside) {
  auto result = Volume::Allocate(target, moving.type(), moving.kind());
  if (!result.ok()) return result;
  result->set_modality(moving.modality());
  uint8_t* out = result->mutable_bytes();
  absl::Status status = WarpSlabs(moving, fixed_to_moving, target, rule, outside,
                                  [&](const uint8_t* bytes, size_t count) {
                                    out = std::copy(bytes, bytes + count, out);
                                    return absl::OkStatus();
                                  });
  if (!status.ok()) return status;
  return result;
}

std::vector<Vec3> MapPoints(const SpatialMap& fixed_to_moving, const std::vector<Vec3>& points_mm) {
  const PointMapper mapper(fixed_to_moving);
  std::vector<Vec3> mapped;
  mapped.reserve(points_mm.size());
  for (const Vec3& point : points_mm) mapped.push_back(mapper(point));
  return mapped;
}

std::vector<std::optional<double>> SimilarityAt(const Volume& fixed, const Volume& moving,
                                                const SpatialMap& fixed_to_moving,
                                                const std::vector<Vec3>& points_mm) {
  const PointMapper mapper(fixed_to_moving);
  const AffineMap to_physical = IndexToPhysicalMap(fixed.grid()),
                  to_fixed = PhysicalToIndexMap(fixed.grid()),
                  to_moving = PhysicalToIndexMap(moving.grid());
  std::vector<std::optional<double>> similarity(points_mm.size());
  ParallelFor(static_cast<int64_t>(points_mm.size()), 0, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Vec3 centre = to_fixed.Apply(points_mm[static_cast<size_t>(i)]);
      Correlation correlation;
      for (int offset = 0; offset < kNeighbourhood * kNeighbourhood * kNeighbourhood; ++offset) {
        const Vec3 index = {
            centre[0] + offset % kNeighbourhood - kNeighbourhood / 2,
            centre[1] + offset / kNeighbourhood % kNeighbourhood - kNeighbourhood / 2,
            centre[2] + offset / (kNeighbourhood * kNeighbourhood) - kNeighbourhood / 2};
        const auto a = ValueAt(fixed, index);
        if (!a) continue;
        const auto b = ValueAt(moving, to_moving.Apply(mapper(to_physical.Apply(index))));
        if (b) correlation.Add(*a, *b);
      }
      similarity[static_cast<size_t>(i)] = correlation.Value();
    }
  });
  return similarity;
}

}  // namespace gvsl
