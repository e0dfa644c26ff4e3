#include "imaging/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/axis_taps.h"

namespace gvsl {
namespace {

// Axes are parallel when their cosine differs from 1 by less than this: 0.05 degrees, half a voxel
// over 500 voxels is 0.06 degrees.
constexpr double kParallelCosine = 1 - 4e-7;
// Coordinates of the separable path are rounded to this share of a voxel, so that the last bits of
// an origin, which depend on how the source is stored, do not reach the result.
constexpr double kCoordinateStep = 1.0 / (1 << 20);
// The separable path keeps at most this many source slices as float32.
constexpr int64_t kMaxSourceSlices = 64;
constexpr int64_t kMaxBlockSlices = 16;

// The source as seen along the target's axes: axis i of the view runs along source axis `axis[i]`.
struct AlignedView {
  std::array<int64_t, 3> size;
  std::array<int64_t, 3> stride;  // in voxels; negative where the source runs the other way
  int64_t base = 0;               // voxel of the view's index (0, 0, 0)
  std::array<double, 3> first;    // view coordinate of the target's first sample
  std::array<double, 3> ratio;    // view coordinates from one target sample to the next
};

bool MakeAlignedView(const Grid& source, const Grid& target, AlignedView& view) {
  const std::array<int64_t, 3> strides = {1, source.size[0], source.size[0] * source.size[1]};
  const Vec3 first = source.PhysicalToIndex(target.origin_mm);
  std::array<bool, 3> used = {};
  for (int i = 0; i < 3; ++i) {
    int axis = -1;
    double cosine = 0;
    for (int j = 0; j < 3; ++j) {
      double dot = 0;
      for (int r = 0; r < 3; ++r) dot += source.direction[r][j] * target.direction[r][i];
      if (std::abs(dot) > kParallelCosine && !used[j]) {
        axis = j;
        cosine = dot;
      }
    }
    if (axis < 0) return false;
    used[axis] = true;
    view.size[i] = source.size[axis];
    view.ratio[i] = target.spacing_mm[i] / source.spacing_mm[axis];
    view.stride[i] = strides[axis];
    view.first[i] = first[axis];
    if (cosine < 0) {
      view.base += strides[axis] * (source.size[axis] - 1);
      view.stride[i] = -strides[axis];
      view.first[i] = static_cast<double>(source.size[axis] - 1) - first[axis];
    }
    view.first[i] = std::round(view.first[i] / kCoordinateStep) * kCoordinateStep;
  }
  return true;
}

// Slices [begin, end) of the view as float32 `[slice][row][column]`, read along the source's own
// rows.
template <typename T>
void Gather(const T* source, const AlignedView& view, int64_t begin, int64_t end, int threads,
            float* out) {
  const int64_t rows = view.size[1], columns = view.size[0], slices = end - begin;
  if (std::abs(view.stride[2]) == 1) {
    // The view's slices lie along the source's rows: whole runs of them are read at each place.
    ParallelFor(rows, threads, [&](int64_t row_begin, int64_t row_end) {
      for (int64_t y = row_begin; y < row_end; ++y) {
        for (int64_t x = 0; x < columns; ++x) {
          const T* in = source + view.base + y * view.stride[1] + x * view.stride[0];
          for (int64_t z = 0; z < slices; ++z) {
            out[(z * rows + y) * columns + x] =
                static_cast<float>(in[(begin + z) * view.stride[2]]);
          }
        }
      }
    });
    return;
  }
  const bool along_columns = std::abs(view.stride[0]) == 1;
  ParallelFor(slices, threads, [&](int64_t slice_begin, int64_t slice_end) {
    for (int64_t z = slice_begin; z < slice_end; ++z) {
      const T* in = source + view.base + (begin + z) * view.stride[2];
      float* plane = out + z * rows * columns;
      if (along_columns) {
        for (int64_t y = 0; y < rows; ++y) {
          for (int64_t x = 0; x < columns; ++x) {
            plane[y * columns + x] =
                static_cast<float>(in[y * view.stride[1] + x * view.stride[0]]);
          }
        }
      } else {
        for (int64_t x = 0; x < columns; ++x) {
          for (int64_t y = 0; y < rows; ++y) {
            plane[y * columns + x] =
                static_cast<float>(in[y * view.stride[1] + x * view.stride[0]]);
          }
        }
      }
    }
  });
}

// out += weight * in.
void AddScaled(const float* in, float weight, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] += weight * in[i];
}

}  // namespace

struct Resampler::Impl {
  const Volume& volume;
  const Grid target;
  const Interpolation interpolation;
  const float outside;
  bool separable = false;
  AlignedView view;
  std::array<std::vector<Taps>, 3> taps;  // separable: of every target index along each axis
  std::vector<AxisFilter> filters;        // oblique: of each source axis
  Vec3 index_origin = {0, 0, 0};          // oblique: source index of the target's first voxel,
  std::array<Vec3, 3> index_step = {};    // and from each to the next along a target axis

  Impl(const Volume& v, const Grid& t, Interpolation i, float o)
      : volume(v), target(t), interpolation(i), outside(o) {
    const Grid& source = volume.grid();
    separable = MakeAlignedView(source, target, view);
    if (separable) {
      for (int axis = 0; axis < 3; ++axis) {
        const AxisFilter filter(view.size[axis], view.ratio[axis], interpolation);
        taps[axis].resize(static_cast<size_t>(target.size[axis]));
        for (int64_t n = 0; n < target.size[axis]; ++n) {
          filter.At(view.first[axis] + static_cast<double>(n) * view.ratio[axis],
                    taps[axis][static_cast<size_t>(n)]);
        }
      }
      CropView();
      return;
    }
    index_origin = source.PhysicalToIndex(target.origin_mm);
    for (int axis = 0; axis < 3; ++axis) {
      Vec3 next = {0, 0, 0};
      next[axis] = 1;
      const Vec3 index = source.PhysicalToIndex(target.IndexToPhysical(next));
      for (int r = 0; r < 3; ++r) index_step[axis][r] = index[r] - index_origin[r];
    }
    for (int axis = 0; axis < 3; ++axis) {
      const double ratio = std::max({std::abs(index_step[0][axis]), std::abs(index_step[1][axis]),
                                     std::abs(index_step[2][axis])});
      filters.emplace_back(source.size[axis], ratio, interpolation);
    }
  }

  // Leaves the rows and columns of the source out that no sample needs: a small target reads
  // little.
  void CropView() {
    for (size_t axis = 0; axis < 2; ++axis) {
      int64_t low = view.size[axis], high = 0;
      for (const Taps& t : taps[axis]) {
        if (t.outside) continue;
        low = std::min(low, t.first);
        high = std::max(high, t.first + static_cast<int64_t>(t.weights.size()));
      }
      view.size[axis] = std::max<int64_t>(high - low, 0);
      view.base += low * view.stride[axis];
      for (Taps& t : taps[axis]) t.first -= low;
    }
  }

  // Source slices of the view that target slices [begin, end) need.
  std::pair<int64_t, int64_t> SourceRange(int64_t begin, int64_t end) const {
    int64_t low = view.size[2], high = 0;
    for (int64_t z = begin; z < end; ++z) {
      const Taps& t = taps[2][static_cast<size_t>(z)];
      if (t.outside) continue;
      low = std::min(low, t.first);
      high = std::max(high, t.first + static_cast<int64_t>(t.weights.size()));
    }
    return {low, std::max(low, high)};
  }

  template <typename T>
  void Separable(int64_t z_begin, int64_t z_end, float* out, int threads) const {
    const int64_t plane = target.size[0] * target.size[1];
    std::vector<float> source;
    for (int64_t z = z_begin; z < z_end;) {
      int64_t end = z + 1;
      std::pair<int64_t, int64_t> range = SourceRange(z, end);
      while (end < z_end && end - z < kMaxBlockSlices) {
        const auto wider = SourceRange(z, end + 1);
        if (wider.second - wider.first > kMaxSourceSlices) break;
        range = wider;
        ++end;
      }
      source.resize(
          static_cast<size_t>((range.second - range.first) * view.size[0] * view.size[1]));
      Gather(volume.voxels<T>(), view, range.first, range.second, threads, source.data());
      ParallelFor(end - z, threads, [&](int64_t begin, int64_t stop) {
        std::vector<float> slice, rows;
        for (int64_t n = begin; n < stop; ++n) {
          OneSlice(source.data(), range.first, z + n, slice, rows, out + (z + n - z_begin) * plane);
        }
      });
      z = end;
    }
  }

  // Along slices, then rows, then columns: always in the target's order of axes.
  void OneSlice(const float* source, int64_t source_first, int64_t z, std::vector<float>& slice,
                std::vector<float>& row, float* out) const {
    const int64_t columns = view.size[0], source_plane = columns * view.size[1];
    const Taps& tz = taps[2][static_cast<size_t>(z)];
    if (tz.outside) {
      std::fill(out, out + target.size[0] * target.size[1], outside);
      return;
    }
    const float* first = source + (tz.first - source_first) * source_plane;
    const float* flat = first;  // one tap: no copy
    if (tz.weights.size() > 1) {
      slice.assign(static_cast<size_t>(source_plane), 0);
      for (size_t k = 0; k < tz.weights.size(); ++k) {
        AddScaled(first + static_cast<int64_t>(k) * source_plane, tz.weights[k], source_plane,
                  slice.data());
      }
      flat = slice.data();
    }
    for (int64_t y = 0; y < target.size[1]; ++y) {
      float* line = out + y * target.size[0];
      const Taps& ty = taps[1][static_cast<size_t>(y)];
      if (ty.outside) {
        std::fill(line, line + target.size[0], outside);
        continue;
      }
      row.assign(static_cast<size_t>(columns), 0);
      for (size_t k = 0; k < ty.weights.size(); ++k) {
        AddScaled(flat + (ty.first + static_cast<int64_t>(k)) * columns, ty.weights[k], columns,
                  row.data());
      }
      for (int64_t x = 0; x < target.size[0]; ++x) {
        const Taps& tx = taps[0][static_cast<size_t>(x)];
        float sum = 0;
        for (size_t k = 0; k < tx.weights.size(); ++k) {
          sum += tx.weights[k] * row[static_cast<size_t>(tx.first) + k];
        }
        line[x] = tx.outside ? outside : sum;
      }
    }
  }

  template <typename T>
  void Oblique(int64_t z_begin, int64_t z_end, float* out, int threads) const {
    const T* voxels = volume.voxels<T>();
    const int64_t rows = target.size[1];
    ParallelFor((z_end - z_begin) * rows, threads, [&](int64_t begin, int64_t end) {
      Taps t[3];
      for (int64_t line = begin; line < end; ++line) {
        const double y = static_cast<double>(line % rows);
        const double z = static_cast<double>(z_begin + line / rows);
        float* values = out + line * target.size[0];
        for (int64_t x = 0; x < target.size[0]; ++x) {
          bool out_of_source = false;
          for (int r = 0; r < 3 && !out_of_source; ++r) {
            filters[static_cast<size_t>(r)].At(index_origin[r] +
                                                   index_step[0][r] * static_cast<double>(x) +
                                                   index_step[1][r] * y + index_step[2][r] * z,
                                               t[r]);
            out_of_source = t[r].outside;
          }
          values[x] = out_of_source ? outside : Product(voxels, t);
        }
      }
    });
  }

  template <typename T>
  float Product(const T* voxels, const Taps (&t)[3]) const {
    const auto& size = volume.grid().size;
    float sum = 0;
    for (size_t k = 0; k < t[2].weights.size(); ++k) {
      for (size_t j = 0; j < t[1].weights.size(); ++j) {
        const int64_t row =
            (t[2].first + static_cast<int64_t>(k)) * size[1] + t[1].first + static_cast<int64_t>(j);
        const T* in = voxels + row * size[0] + t[0].first;
        float part = 0;
        for (size_t i = 0; i < t[0].weights.size(); ++i)
          part += t[0].weights[i] * static_cast<float>(in[i]);
        sum += t[2].weights[k] * t[1].weights[j] * part;
      }
    }
    return sum;
  }
};

Resampler::Resampler(const Volume& volume, const Grid& target, Interpolation interpolation,
                     float outside)
    : impl_(std::make_unique<Impl>(volume, target, interpolation, outside)) {}
Resampler::~Resampler() = default;

const Grid& Resampler::target() const { return impl_->target; }

void Resampler::Slices(int64_t z_begin, int64_t z_end, float* out, int threads) const {
  VisitVoxelType(impl_->volume.type(), [&](auto zero) {
    using T = decltype(zero);
    if (impl_->separable) {
      impl_->Separable<T>(z_begin, z_end, out, threads);
    } else {
      impl_->Oblique<T>(z_begin, z_end, out, threads);
    }
  });
}

namespace {

template <typename T>
T Saturated(double value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(std::clamp(std::round(value),
                                     static_cast<double>(std::numeric_limits<T>::min()),
                                     static_cast<double>(std::numeric_limits<T>::max())));
  } else {
    return static_cast<T>(value);
  }
}

}  // namespace

absl::StatusOr<Volume> Resample(const Volume& volume, const Grid& target,
                                Interpolation interpolation, VoxelType type, float outside) {
  auto result = Volume::Allocate(target, type, volume.kind());
  if (!result.ok()) return result;
  result->set_modality(volume.modality());
  if (volume.kind() == VolumeKind::kLabels) interpolation = Interpolation::kNearest;
  const Resampler resampler(volume, target, interpolation, outside);
  const int64_t plane = target.size[0] * target.size[1];
  std::vector<float> slab(static_cast<size_t>(std::min(kMaxBlockSlices, target.size[2]) * plane));
  for (int64_t z = 0; z < target.size[2]; z += kMaxBlockSlices) {
    const int64_t end = std::min(z + kMaxBlockSlices, target.size[2]);
    resampler.Slices(z, end, slab.data());
    VisitVoxelType(type, [&](auto zero) {
      using T = decltype(zero);
      T* out = result->mutable_voxels<T>() + z * plane;
      for (int64_t i = 0; i < (end - z) * plane; ++i)
        out[i] = Saturated<T>(slab[static_cast<size_t>(i)]);
    });
  }
  return result;
}

absl::StatusOr<Volume> CropOrPad(const Volume& volume, const std::array<int64_t, 3>& begin,
                                 const std::array<int64_t, 3>& size, double outside) {
  const Grid& source = volume.grid();
  Grid grid = source;
  grid.size = size;
  grid.origin_mm =
      source.IndexToPhysical({static_cast<double>(begin[0]), static_cast<double>(begin[1]),
                              static_cast<double>(begin[2])});
  auto result = Volume::Allocate(grid, volume.type(), volume.kind());
  if (!result.ok()) return result;
  result->set_modality(volume.modality());
  VisitVoxelType(volume.type(), [&](auto zero) {
    using T = decltype(zero);
    const T fill = Saturated<T>(outside);
    const int64_t x_begin = std::clamp<int64_t>(-begin[0], 0, size[0]);
    const int64_t x_end = std::clamp<int64_t>(source.size[0] - begin[0], x_begin, size[0]);
    T* out = result->mutable_voxels<T>();
    for (int64_t z = 0; z < size[2]; ++z) {
      for (int64_t y = 0; y < size[1]; ++y, out += size[0]) {
        const int64_t sz = z + begin[2], sy = y + begin[1];
        if (sz < 0 || sz >= source.size[2] || sy < 0 || sy >= source.size[1]) {
          std::fill(out, out + size[0], fill);
          continue;
        }
        const T* in = volume.voxels<T>() + (sz * source.size[1] + sy) * source.size[0];
        std::fill(out, out + x_begin, fill);
        std::copy(in + begin[0] + x_begin, in + begin[0] + x_end, out + x_begin);
        std::fill(out + x_end, out + size[0], fill);
      }
    }
  });
  return result;
}

}  // namespace gvsl
