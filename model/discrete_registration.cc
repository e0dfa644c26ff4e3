#include "model/discrete_registration.h"

#include <algorithm>
#include <vector>

#include "imaging/parallel.h"

namespace gvsl {
namespace {

constexpr int64_t kCell = 4;   // voxels along an axis
constexpr int64_t kReach = 4;  // cells
constexpr int64_t kSide = 2 * kReach + 1;
constexpr int64_t kCandidates = kSide * kSide * kSide;
// Of the squared distance (in cells) between a candidate and the smoothed field, from round to
// round: the field is free at first, and bound in the end.
constexpr float kCoupling[] = {0.003f, 0.01f, 0.03f, 0.1f, 0.3f, 1};

// Means of descriptors over cells; cells without a voxel in view are marked.
struct Cells {
  std::array<int64_t, 3> size;
  int64_t channels;
  std::vector<float> means;  // [cell][channel]
  std::vector<uint8_t> seen;
};

// The cells of `lattice`, whose voxels lie at affine(x) in the image.
Cells Pooled(const LevelImage& image, const Grid& lattice, const AffineMap& affine) {
  Cells cells;
  cells.channels = image.channels;
  for (int i = 0; i < 3; ++i) cells.size[i] = (lattice.size[i] + kCell - 1) / kCell;
  const int64_t plane = cells.size[0] * cells.size[1];
  const auto count = static_cast<size_t>(plane * cells.size[2]);
  cells.means.assign(count * static_cast<size_t>(image.channels), 0.0f);
  cells.seen.assign(count, 0);
  const std::vector<uint8_t> usable = CountedCells(image);
  const AffineMap index =
      Composed(PhysicalToIndexMap(image.grid), Composed(affine, IndexToPhysicalMap(lattice)));
  const int64_t channels = image.channels;
  const int64_t step[3] = {channels, channels * image.grid.size[0],
                           channels * image.grid.size[0] * image.grid.size[1]};
  ParallelFor(cells.size[2], 0, [&](int64_t begin, int64_t end) {
    std::vector<float> voxels(static_cast<size_t>(plane));
    for (int64_t cz = begin; cz < end; ++cz) {
      std::fill(voxels.begin(), voxels.end(), 0.0f);
      for (int64_t z = cz * kCell; z < std::min((cz + 1) * kCell, lattice.size[2]); ++z) {
        for (int64_t y = 0; y < lattice.size[1]; ++y) {
          for (int64_t x = 0; x < lattice.size[0]; ++x) {
            const Vec3 at = index.Apply(
                {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)});
            SampleCell corner;
            if (!FindSampleCell(image.grid.size, static_cast<float>(at[0]),
                                static_cast<float>(at[1]), static_cast<float>(at[2]), corner) ||
                usable[corner.base] == 0) {
              continue;
            }
            const int64_t in_plane = y / kCell * cells.size[0] + x / kCell;
            float* mean = cells.means.data() + (cz * plane + in_plane) * channels;
            voxels[in_plane] += 1;
            for (int k = 0; k < 8; ++k) {
              float weight = 1;
              const float* from = image.values.data() + corner.base * channels;
              for (int i = 0; i < 3; ++i) {
                weight *= k >> i & 1 ? corner.upper[i] : 1 - corner.upper[i];
                from += k >> i & 1 ? step[i] : 0;
              }
              for (int64_t c = 0; c < channels; ++c) mean[c] += weight * from[c];
            }
          }
        }
      }
      for (int64_t i = 0; i < plane; ++i) {
        if (voxels[i] == 0) continue;
        cells.seen[cz * plane + i] = 1;
        float* mean = cells.means.data() + (cz * plane + i) * channels;
        for (int64_t c = 0; c < channels; ++c) mean[c] /= voxels[i];
      }
    }
  });
  return cells;
}

// Mean of three neighbours along each axis, the border repeated; `values` is [cell][width].
void Smooth(const std::array<int64_t, 3>& size, int64_t width, std::vector<float>& values) {
  const int64_t strides[3] = {width, width * size[0], width * size[0] * size[1]};
  std::vector<float> plain;
  for (int axis = 0; axis < 3; ++axis) {
    plain = values;
    ParallelFor(size[0] * size[1] * size[2], 0, [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell) {
        const int64_t at = cell * width / strides[axis] % size[axis];
        const float* here = plain.data() + cell * width;
        const float* below = at > 0 ? here - strides[axis] : here;
        const float* above = at + 1 < size[axis] ? here + strides[axis] : here;
        float* out = values.data() + cell * width;
        for (int64_t k = 0; k < width; ++k) out[k] = (below[k] + here[k] + above[k]) / 3;
      }
    });
  }
}

// The candidate's displacement in cells, (column, row, slice).
std::array<float, 3> Candidate(int64_t k) {
  return {static_cast<float>(k % kSide - kReach), static_cast<float>(k / kSide % kSide - kReach),
          static_cast<float>(k / (kSide * kSide) - kReach)};
}

// [cell][candidate]: mean squared difference of the descriptors.
std::vector<float> Costs(const Cells& fixed, const Cells& moving) {
  const int64_t plane = fixed.size[0] * fixed.size[1], cells = plane * fixed.size[2];
  std::vector<float> costs(static_cast<size_t>(cells * kCandidates));
  // What is not seen costs as much as descriptors that have little in common.
  constexpr float kUnseen = 0.25f;
  ParallelFor(cells, 0, [&](int64_t begin, int64_t end) {
    for (int64_t cell = begin; cell < end; ++cell) {
      const float* a = fixed.means.data() + cell * fixed.channels;
      for (int64_t k = 0; k < kCandidates; ++k) {
        const int64_t x = cell % fixed.size[0] + k % kSide;
        const int64_t y = cell / fixed.size[0] % fixed.size[1] + k / kSide % kSide;
        const int64_t z = cell / plane + k / (kSide * kSide);
        const int64_t other = (z * moving.size[1] + y) * moving.size[0] + x;
        float cost = fixed.seen[cell] == 0 ? 0 : kUnseen;
        if (fixed.seen[cell] != 0 && moving.seen[other] != 0) {
          const float* b = moving.means.data() + other * moving.channels;
          cost = 0;
          for (int64_t c = 0; c < fixed.channels; ++c) cost += (a[c] - b[c]) * (a[c] - b[c]);
          cost /= static_cast<float>(fixed.channels);
        }
        costs[cell * kCandidates + k] = cost;
      }
    }
  });
  return costs;
}

// The best candidate of every cell, where `coupling` binds it to `field` [cell][3].
void Choose(const std::vector<float>& costs, float coupling, std::vector<float>& field) {
  ParallelFor(static_cast<int64_t>(field.size()) / 3, 0, [&](int64_t begin, int64_t end) {
    for (int64_t cell = begin; cell < end; ++cell) {
      const float* cost = costs.data() + cell * kCandidates;
      float* at = field.data() + cell * 3;
      float least = 1e30f;
      std::array<float, 3> best = {0, 0, 0};
      for (int64_t k = 0; k < kCandidates; ++k) {
        const std::array<float, 3> candidate = Candidate(k);
        float sum = cost[k];
        for (int i = 0; i < 3; ++i) {
          sum += coupling * (candidate[i] - at[i]) * (candidate[i] - at[i]);
        }
        if (sum >= least) continue;
        least = sum;
        best = candidate;
      }
      std::copy(best.begin(), best.end(), at);
    }
  });
}

}  // namespace

DisplacementField DiscreteDisplacement(const LevelImage& fixed, const LevelImage& moving,
                                       const AffineMap& affine) {
  const Cells fixed_cells = Pooled(fixed, fixed.grid, AffineMap());
  Grid extended = fixed.grid;
  const double first = -static_cast<double>(kReach * kCell);
  extended.origin_mm = fixed.grid.IndexToPhysical({first, first, first});
  for (int i = 0; i < 3; ++i) extended.size[i] = (fixed_cells.size[i] + 2 * kReach) * kCell;
  std::vector<float> costs = Costs(fixed_cells, Pooled(moving, extended, affine));
  Smooth(fixed_cells.size, kCandidates, costs);
  const int64_t cells = fixed_cells.size[0] * fixed_cells.size[1] * fixed_cells.size[2];
  std::vector<float> field(static_cast<size_t>(cells * 3), 0.0f);
  Choose(costs, 0, field);
  Smooth(fixed_cells.size, 3, field);
  for (float coupling : kCoupling) {
    Choose(costs, coupling, field);
    Smooth(fixed_cells.size, 3, field);
  }
  DisplacementField result;
  result.grid = fixed.grid;
  constexpr double kMiddle = (kCell - 1) / 2.0;
  result.grid.origin_mm = fixed.grid.IndexToPhysical({kMiddle, kMiddle, kMiddle});
  result.grid.size = fixed_cells.size;
  for (double& spacing : result.grid.spacing_mm) spacing *= kCell;
  const Mat3 to_mm = IndexToPhysicalMap(result.grid).matrix;
  result.values_mm.resize(static_cast<size_t>(3 * cells));
  for (int64_t cell = 0; cell < cells; ++cell) {
    for (int c = 0; c < 3; ++c) {
      double mm = 0;
      for (int i = 0; i < 3; ++i) mm += to_mm[c][i] * field[cell * 3 + i];
      result.values_mm[c * cells + cell] = static_cast<float>(mm);
    }
  }
  return result;
}

}  // namespace gvsl
