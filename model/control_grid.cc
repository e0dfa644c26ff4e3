#include "model/control_grid.h"

#include <algorithm>

#include "imaging/parallel.h"

namespace gvsl {
namespace {

// The cubic B-spline's four weights at the fraction t of a cell.
std::array<float, 4> Weights(double t) {
  const double s = 1 - t;
  return {
      static_cast<float>(s * s * s / 6), static_cast<float>((3 * t * t * t - 6 * t * t + 4) / 6),
      static_cast<float>((3 * s * s * s - 6 * s * s + 4) / 6), static_cast<float>(t * t * t / 6)};
}

}  // namespace

ControlGrid::ControlGrid(const Grid& lattice, int64_t stride) : lattice_(lattice), stride_(stride) {
  for (int i = 0; i < 3; ++i) {
    const auto voxels = static_cast<size_t>(lattice.size[i]);
    count_[i] = (lattice.size[i] - 1) / stride + 4;
    for (size_t v = 0; v < voxels; ++v) {
      const auto cell = static_cast<int64_t>(v) / stride;
      axes_[i].first.push_back(cell);
      axes_[i].weights.push_back(
          Weights(static_cast<double>(static_cast<int64_t>(v) - cell * stride) /
                  static_cast<double>(stride)));
    }
  }
  for (auto& values : coefficients_) values.assign(static_cast<size_t>(size()), 0.0f);
}

void ControlGrid::Fit(const DisplacementField& field) {
  SpatialMap map;
  map.displacement = field;
  const PointMapper mapper(map);
  // At the control points, then sharpened along each axis, since the spline smooths by 1/6, 4/6,
  // 1/6 there: (-1/6, 8/6, -1/6) undoes that up to the fourth order.
  ParallelFor(count_[2], 0, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      for (int64_t y = 0; y < count_[1]; ++y) {
        for (int64_t x = 0; x < count_[0]; ++x) {
          const Vec3 u = mapper.Displacement(lattice_.IndexToPhysical(
              {static_cast<double>((x - 1) * stride_), static_cast<double>((y - 1) * stride_),
               static_cast<double>((z - 1) * stride_)}));
          const auto at = static_cast<size_t>((z * count_[1] + y) * count_[0] + x);
          for (int c = 0; c < 3; ++c) coefficients_[c][at] = static_cast<float>(u[c]);
        }
      }
    }
  });
  const int64_t stride[3] = {1, count_[0], count_[0] * count_[1]};
  for (auto& values : coefficients_) {
    for (int axis = 0; axis < 3; ++axis) {
      const std::vector<float> plain = values;
      for (int64_t i = 0; i < size(); ++i) {
        const int64_t at = i / stride[axis] % count_[axis];
        if (at == 0 || at == count_[axis] - 1) continue;
        values[i] = (8 * plain[i] - plain[i - stride[axis]] - plain[i + stride[axis]]) / 6;
      }
    }
  }
}

void ControlGrid::Evaluate(VectorArrays& displacement) const {
  const auto& size = lattice_.size;
  const int64_t plane = size[0] * size[1], control_plane = count_[0] * count_[1];
  for (auto& values : displacement) values.resize(static_cast<size_t>(lattice_.voxel_count()));
  ParallelFor(size[2], 0, [&](int64_t begin, int64_t end) {
    std::vector<float> slice(static_cast<size_t>(control_plane));
    std::vector<float> row(static_cast<size_t>(count_[0]));
    for (int64_t z = begin; z < end; ++z) {
      for (int c = 0; c < 3; ++c) {
        const auto& wz = axes_[2].weights[z];
        const float* in = coefficients_[c].data() + axes_[2].first[z] * control_plane;
        for (int64_t i = 0; i < control_plane; ++i) {
          slice[i] = wz[0] * in[i] + wz[1] * in[i + control_plane] +
                     wz[2] * in[i + 2 * control_plane] + wz[3] * in[i + 3 * control_plane];
        }
        for (int64_t y = 0; y < size[1]; ++y) {
          const auto& wy = axes_[1].weights[y];
          const float* line = slice.data() + axes_[1].first[y] * count_[0];
          for (int64_t x = 0; x < count_[0]; ++x) {
            row[x] = wy[0] * line[x] + wy[1] * line[x + count_[0]] +
                     wy[2] * line[x + 2 * count_[0]] + wy[3] * line[x + 3 * count_[0]];
          }
          float* out = displacement[c].data() + z * plane + y * size[0];
          for (int64_t x = 0; x < size[0]; ++x) {
            const auto& wx = axes_[0].weights[x];
            const float* at = row.data() + axes_[0].first[x];
            out[x] = wx[0] * at[0] + wx[1] * at[1] + wx[2] * at[2] + wx[3] * at[3];
          }
        }
      }
    }
  });
}

void ControlGrid::Gather(const VectorArrays& by_displacement, VectorArrays& by_coefficient) const {
  const auto& size = lattice_.size;
  const int64_t plane = size[0] * size[1], control_plane = count_[0] * count_[1];
  // Slices onto the control points within them, then across slices.
  std::vector<float> slices(static_cast<size_t>(size[2] * control_plane));
  for (int c = 0; c < 3; ++c) {
    ParallelFor(size[2], 0, [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(count_[0]));
      for (int64_t z = begin; z < end; ++z) {
        float* slice = slices.data() + z * control_plane;
        std::fill(slice, slice + control_plane, 0.0f);
        for (int64_t y = 0; y < size[1]; ++y) {
          std::fill(row.begin(), row.end(), 0.0f);
          const float* in = by_displacement[c].data() + z * plane + y * size[0];
          for (int64_t x = 0; x < size[0]; ++x) {
            const auto& wx = axes_[0].weights[x];
            float* at = row.data() + axes_[0].first[x];
            for (int k = 0; k < 4; ++k) at[k] += wx[k] * in[x];
          }
          const auto& wy = axes_[1].weights[y];
          for (int k = 0; k < 4; ++k) {
            float* line = slice + (axes_[1].first[y] + k) * count_[0];
            for (int64_t x = 0; x < count_[0]; ++x) line[x] += wy[k] * row[x];
          }
        }
      }
    });
    std::vector<float>& out = by_coefficient[c];
    out.assign(static_cast<size_t>(this->size()), 0.0f);
    for (int64_t z = 0; z < size[2]; ++z) {
      const float* in = slices.data() + z * control_plane;
      for (int k = 0; k < 4; ++k) {
        const float weight = axes_[2].weights[z][k];
        float* to = out.data() + (axes_[2].first[z] + k) * control_plane;
        for (int64_t i = 0; i < control_plane; ++i) to[i] += weight * in[i];
      }
    }
  }
}

double ControlGrid::Smoothness(double weight, VectorArrays& gradient) const {
  const int64_t stride[3] = {1, count_[0], count_[0] * count_[1]};
  double sum = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const double distance = lattice_.spacing_mm[axis] * static_cast<double>(stride_);
    // Means over the control points and the nine parts.
    const double share = 1 / (9 * static_cast<double>(size()) * distance * distance);
    const auto by_difference = static_cast<float>(2 * weight * share);
    for (int c = 0; c < 3; ++c) {
      const std::vector<float>& values = coefficients_[c];
      std::vector<float>& out = gradient[c];
      double squares = 0;
      for (int64_t i = 0; i + stride[axis] < size(); ++i) {
        if (i / stride[axis] % count_[axis] == count_[axis] - 1) continue;
        const float difference = values[i + stride[axis]] - values[i];
        squares += difference * difference;
        out[i] -= by_difference * difference;
        out[i + stride[axis]] += by_difference * difference;
      }
      sum += squares * share;
    }
  }
  return sum;
}

}  // namespace gvsl
