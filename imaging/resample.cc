#include "imaging/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/axis_taps.h"
#include "imaging/parallel.h"

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

Vec3 AxisLengths(const Grid& grid) {
  Vec3 length;
  for (int i = 0; i < 3; ++i) {
    length[i] = std::hypot(grid.direction[0][i], grid.direction[1][i], grid.direction[2][i]);
  }
  return length;
}

bool MakeAlignedView(const Grid& source, const Grid& target, AlignedView& view) {
  const std::array<int64_t, 3> strides = {1, source.size[0], source.size[0] * source.size[1]};
  const Vec3 first = source.PhysicalToIndex(target.origin_mm);
  // Columns of a direction are unit vectors only within a tolerance.
  const Vec3 source_length = AxisLengths(source), target_length = AxisLengths(target);
  std::array<bool, 3> used = {};
  for (int i = 0; i < 3; ++i) {
    int axis = -1;
    double cosine = 0;
    for (int j = 0; j < 3; ++j) {
      double dot = 0;
      for (int r = 0; r < 3; ++r) dot += source.direction[r][j] * target.direction[r][i];
      dot /= source_length[j] * target_length[i];
      if (std::abs(dot) > kParallelCosine && !used[j]) {
        axis = j;
        cosine = dot;
      }
    }
    if (axis < 0) return false;
    used[axis] = true;
    view.size[i] = source.size[axis];
    view.ratio[i] =
        target.spacing_mm[i] * target_length[i] / (source.spacing_mm[axis] * source_length[axis]);
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

// out = the weighted sum of `taps` runs of `count` values, `stride` apart.
void Blend(const float* in, int64_t stride, const float* weights, int64_t taps, int64_t count,
           float* out) {
  if (taps == 2) {
    const float first = weights[0], second = weights[1];
    for (int64_t i = 0; i < count; ++i) out[i] = first * in[i] + second * in[i + stride];
    return;
  }
  std::fill(out, out + count, 0.0f);
  for (int64_t k = 0; k < taps; ++k) AddScaled(in + k * stride, weights[k], count, out);
}

template <typename To, typename From>
To Saturated(From value) {
  if constexpr (std::is_same_v<To, From> || std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else {
    return static_cast<To>(std::clamp(std::round(static_cast<double>(value)),
                                      static_cast<double>(std::numeric_limits<To>::min()),
                                      static_cast<double>(std::numeric_limits<To>::max())));
  }
}

// The taps of every sample along one axis, in one piece of memory.
class TapTable {
 public:
  TapTable() = default;
  TapTable(const AxisFilter& filter, double first, double ratio, int64_t count) {
    Taps taps;
    for (int64_t n = 0; n < count; ++n) {
      filter.At(first + static_cast<double>(n) * ratio, taps);
      first_.push_back(taps.first);
      weights_.insert(weights_.end(), taps.weights.begin(), taps.weights.end());
      begin_.push_back(weights_.size());
    }
  }
  // Source index of the first tap of sample n, and how many there are: none outside the source.
  int64_t first(int64_t n) const { return first_[static_cast<size_t>(n)]; }
  int64_t count(int64_t n) const {
    return static_cast<int64_t>(begin_[static_cast<size_t>(n) + 1] -
                                begin_[static_cast<size_t>(n)]);
  }
  const float* weights(int64_t n) const { return weights_.data() + begin_[static_cast<size_t>(n)]; }
  // First source index that samples [begin, end) need, and the one behind the last.
  std::pair<int64_t, int64_t> Range(int64_t begin, int64_t end) const {
    int64_t low = std::numeric_limits<int64_t>::max(), high = 0;
    for (int64_t n = begin; n < end; ++n) {
      if (count(n) == 0) continue;
      low = std::min(low, first(n));
      high = std::max(high, first(n) + count(n));
    }
    return {std::min(low, high), high};
  }
  void Shift(int64_t by) {
    for (int64_t& first : first_) first -= by;
  }

 private:
  std::vector<int64_t> first_;
  std::vector<size_t> begin_ = {0};
  std::vector<float> weights_;
};

}  // namespace

struct Resampler::Impl {
  const Volume& volume;
  const Grid target;
  const Interpolation interpolation;
  const float outside;
  bool separable = false;
  AlignedView view;
  std::array<TapTable, 3> taps;         // separable: of the target along each axis
  std::vector<AxisFilter> filters;      // oblique: of each source axis
  bool anti_aliased = false;            // oblique: more than two taps along an axis
  Vec3 index_origin = {0, 0, 0};        // oblique: source index of the target's first voxel,
  std::array<Vec3, 3> index_step = {};  // and from each to the next along a target axis

  Impl(const Volume& v, const Grid& t, Interpolation i, float o)
      : volume(v), target(t), interpolation(i), outside(o) {
    const Grid& source = volume.grid();
    separable = MakeAlignedView(source, target, view);
    if (separable) {
      for (size_t axis = 0; axis < 3; ++axis) {
        taps[axis] = TapTable(AxisFilter(view.size[axis], view.ratio[axis], interpolation),
                              view.first[axis], view.ratio[axis], target.size[axis]);
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
      anti_aliased |= filters.back().anti_aliased();
    }
  }

  // Leaves the rows and columns of the source out that no sample needs: a small target reads
  // little.
  void CropView() {
    for (size_t axis = 0; axis < 2; ++axis) {
      const auto [low, high] = taps[axis].Range(0, target.size[axis]);
      view.size[axis] = high - low;
      view.base += low * view.stride[axis];
      taps[axis].Shift(low);
    }
  }

  template <typename T>
  void Separable(int64_t z_begin, int64_t z_end, float* out, int threads) const {
    const int64_t plane = target.size[0] * target.size[1];
    const int64_t source_plane = view.size[0] * view.size[1];
    std::vector<float> source, slice;
    for (int64_t z = z_begin; z < z_end;) {
      int64_t end = z + 1;
      std::pair<int64_t, int64_t> range = taps[2].Range(z, end);
      if (range.second - range.first > kMaxSourceSlices) {
        ManySlices<T>(z, threads, source, slice);
        std::vector<float> row;
        OnePlane(slice.data(), row, out + (z - z_begin) * plane);
        z = end;
        continue;
      }
      while (end < z_end && end - z < kMaxBlockSlices) {
        const auto wider = taps[2].Range(z, end + 1);
        if (wider.second - wider.first > kMaxSourceSlices) break;
        range = wider;
        ++end;
      }
      source.resize(static_cast<size_t>((range.second - range.first) * source_plane));
      Gather(volume.voxels<T>(), view, range.first, range.second, threads, source.data());
      ParallelFor(end - z, threads, [&](int64_t begin, int64_t stop) {
        std::vector<float> blend, row;
        for (int64_t n = z + begin; n < z + stop; ++n) {
          OneSlice(source.data(), range.first, n, blend, row, out + (n - z_begin) * plane);
        }
      });
      z = end;
    }
  }

  // The source slices of target slice z, blended: few of them in memory at a time.
  template <typename T>
  void ManySlices(int64_t z, int threads, std::vector<float>& source,
                  std::vector<float>& blend) const {
    const int64_t source_plane = view.size[0] * view.size[1];
    const int64_t first = taps[2].first(z), count = taps[2].count(z);
    blend.assign(static_cast<size_t>(source_plane), 0);
    source.resize(static_cast<size_t>(std::min(count, kMaxSourceSlices) * source_plane));
    for (int64_t done = 0; done < count; done += kMaxSourceSlices) {
      const int64_t part = std::min(count - done, kMaxSourceSlices);
      Gather(volume.voxels<T>(), view, first + done, first + done + part, threads, source.data());
      for (int64_t k = 0; k < part; ++k) {
        AddScaled(source.data() + k * source_plane, taps[2].weights(z)[done + k], source_plane,
                  blend.data());
      }
    }
  }

  // Along slices, then rows, then columns: always in the target's order of axes.
  void OneSlice(const float* source, int64_t source_first, int64_t z, std::vector<float>& blend,
                std::vector<float>& row, float* out) const {
    const int64_t source_plane = view.size[0] * view.size[1];
    const int64_t count = taps[2].count(z);
    if (count == 0) {
      std::fill(out, out + target.size[0] * target.size[1], outside);
      return;
    }
    const float* first = source + (taps[2].first(z) - source_first) * source_plane;
    blend.resize(static_cast<size_t>(source_plane));
    Blend(first, source_plane, taps[2].weights(z), count, source_plane, blend.data());
    OnePlane(blend.data(), row, out);
  }

  // One slice of the target from its blended source slices.
  void OnePlane(const float* blend, std::vector<float>& row, float* out) const {
    const int64_t columns = view.size[0];
    row.resize(static_cast<size_t>(columns));
    for (int64_t y = 0; y < target.size[1]; ++y) {
      float* line = out + y * target.size[0];
      if (taps[1].count(y) == 0) {
        std::fill(line, line + target.size[0], outside);
        continue;
      }
      Blend(blend + taps[1].first(y) * columns, columns, taps[1].weights(y), taps[1].count(y),
            columns, row.data());
      for (int64_t x = 0; x < target.size[0]; ++x) {
        const int64_t count = taps[0].count(x);
        const float* in = row.data() + taps[0].first(x);
        const float* weights = taps[0].weights(x);
        float sum = 0;
        for (int64_t k = 0; k < count; ++k) sum += weights[k] * in[k];
        line[x] = count == 0 ? outside : sum;
      }
    }
  }

  // Nearest voxels, exactly as they are where T is Out.
  template <typename T, typename Out>
  void Nearest(int64_t z_begin, int64_t z_end, Out* out, int threads) const {
    const Out fill = Saturated<Out>(outside);
    const int64_t rows = target.size[1];
    ParallelFor((z_end - z_begin) * rows, threads, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const int64_t y = line % rows, z = z_begin + line / rows;
        Out* values = out + line * target.size[0];
        if (separable) {
          NearestAligned<T>(y, z, fill, values);
        } else {
          NearestOblique<T>(y, z, fill, values);
        }
      }
    });
  }

  template <typename T, typename Out>
  void NearestAligned(int64_t y, int64_t z, Out fill, Out* values) const {
    if (taps[1].count(y) == 0 || taps[2].count(z) == 0) {
      std::fill(values, values + target.size[0], fill);
      return;
    }
    const T* in = volume.voxels<T>() + view.base + taps[1].first(y) * view.stride[1] +
                  taps[2].first(z) * view.stride[2];
    for (int64_t x = 0; x < target.size[0]; ++x) {
      values[x] =
          taps[0].count(x) == 0 ? fill : Saturated<Out>(in[taps[0].first(x) * view.stride[0]]);
    }
  }

  template <typename T, typename Out>
  void NearestOblique(int64_t y, int64_t z, Out fill, Out* values) const {
    const auto& size = volume.grid().size;
    const Vec3 start = LineStart(y, z);
    for (int64_t x = 0; x < target.size[0]; ++x) {
      std::array<int64_t, 3> index;
      bool inside = true;
      for (int r = 0; r < 3; ++r) {
        const double at = start[r] + index_step[0][r] * static_cast<double>(x);
        const double last = static_cast<double>(size[r] - 1);
        inside = inside && at >= -0.5 && at <= last + 0.5;
        index[r] = inside ? static_cast<int64_t>(std::clamp(at, 0.0, last) + 0.5) : 0;
      }
      values[x] =
          inside ? Saturated<Out>(
                       volume.voxels<T>()[(index[2] * size[1] + index[1]) * size[0] + index[0]])
                 : fill;
    }
  }

  // Source index of the first voxel of a row of the target.
  Vec3 LineStart(int64_t y, int64_t z) const {
    Vec3 start;
    for (int r = 0; r < 3; ++r) {
      start[r] = index_origin[r] + index_step[1][r] * static_cast<double>(y) +
                 index_step[2][r] * static_cast<double>(z);
    }
    return start;
  }

  template <typename T>
  void Oblique(int64_t z_begin, int64_t z_end, float* out, int threads) const {
    const int64_t rows = target.size[1];
    ParallelFor((z_end - z_begin) * rows, threads, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const Vec3 start = LineStart(line % rows, z_begin + line / rows);
        float* values = out + line * target.size[0];
        if (anti_aliased) {
          FilteredLine<T>(start, values);
        } else {
          LinearLine<T>(start, values);
        }
      }
    });
  }

  // Eight neighbours of every voxel.
  template <typename T>
  void LinearLine(const Vec3& start, float* values) const {
    const auto& size = volume.grid().size;
    const T* voxels = volume.voxels<T>();
    const double last[3] = {static_cast<double>(size[0] - 1), static_cast<double>(size[1] - 1),
                            static_cast<double>(size[2] - 1)};
    const int64_t row = size[0], plane = size[0] * size[1];
    for (int64_t x = 0; x < target.size[0]; ++x) {
      int64_t low[3];
      float fraction[3];
      bool inside = true;
      for (int r = 0; r < 3; ++r) {
        double at = start[r] + index_step[0][r] * static_cast<double>(x);
        inside = inside && at >= -0.5 && at <= last[r] + 0.5;
        at = inside ? std::clamp(at, 0.0, last[r]) : 0;
        low[r] = std::min(static_cast<int64_t>(at), size[r] - 2);
        fraction[r] = static_cast<float>(at - static_cast<double>(low[r]));
      }
      if (!inside) {
        values[x] = outside;
        continue;
      }
      const T* in = voxels + low[2] * plane + low[1] * row + low[0];
      const auto along_row = [&](const T* pair) {
        const float first = static_cast<float>(pair[0]), second = static_cast<float>(pair[1]);
        return first + fraction[0] * (second - first);
      };
      const float near_first = along_row(in), near_second = along_row(in + row);
      const float far_first = along_row(in + plane), far_second = along_row(in + plane + row);
      const float near = near_first + fraction[1] * (near_second - near_first);
      const float far = far_first + fraction[1] * (far_second - far_first);
      values[x] = near + fraction[2] * (far - near);
    }
  }

  template <typename T>
  void FilteredLine(const Vec3& start, float* values) const {
    const T* voxels = volume.voxels<T>();
    Taps t[3];
    for (int64_t x = 0; x < target.size[0]; ++x) {
      bool out_of_source = false;
      for (int r = 0; r < 3 && !out_of_source; ++r) {
        filters[static_cast<size_t>(r)].At(start[r] + index_step[0][r] * static_cast<double>(x),
                                           t[r]);
        out_of_source = t[r].outside;
      }
      values[x] = out_of_source ? outside : Product(voxels, t);
    }
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

void Resampler::Slices(int64_t z_begin, int64_t z_end, float* out, int threads) const {
  VisitVoxelType(impl_->volume.type(), [&](auto zero) {
    using T = decltype(zero);
    if (impl_->interpolation == Interpolation::kNearest) {
      impl_->Nearest<T>(z_begin, z_end, out, threads);
    } else if (impl_->separable) {
      impl_->Separable<T>(z_begin, z_end, out, threads);
    } else {
      impl_->Oblique<T>(z_begin, z_end, out, threads);
    }
  });
}

void Resampler::Labels(int64_t z_begin, int64_t z_end, int32_t* out, int threads) const {
  VisitVoxelType(impl_->volume.type(),
                 [&](auto zero) { impl_->Nearest<decltype(zero)>(z_begin, z_end, out, threads); });
}

absl::StatusOr<Volume> Resample(const Volume& volume, const Grid& target,
                                Interpolation interpolation, VoxelType type, float outside) {
  auto result = Volume::Allocate(target, type, volume.kind());
  if (!result.ok()) return result;
  result->set_modality(volume.modality());
  if (volume.kind() == VolumeKind::kLabels) interpolation = Interpolation::kNearest;
  const Resampler resampler(volume, target, interpolation, outside);
  if (interpolation == Interpolation::kNearest) {
    VisitVoxelType(volume.type(), [&](auto from) {
      VisitVoxelType(type, [&](auto to) {
        resampler.impl_->Nearest<decltype(from)>(0, target.size[2],
                                                 result->mutable_voxels<decltype(to)>(), 0);
      });
    });
    return result;
  }
  if (type == VoxelType::kFloat32) {
    resampler.Slices(0, target.size[2], result->mutable_voxels<float>());
    return result;
  }
  const int64_t plane = target.size[0] * target.size[1];
  std::vector<float> slab(static_cast<size_t>(std::min(kMaxBlockSlices, target.size[2]) * plane));
  for (int64_t z = 0; z < target.size[2]; z += kMaxBlockSlices) {
    const int64_t end = std::min(z + kMaxBlockSlices, target.size[2]);
    resampler.Slices(z, end, slab.data());
    VisitVoxelType(type, [&](auto to) {
      using T = decltype(to);
      T* out = result->mutable_voxels<T>() + z * plane;
      ParallelFor((end - z) * plane, 0, [&](int64_t from, int64_t stop) {
        for (int64_t i = from; i < stop; ++i) out[i] = Saturated<T>(slab[static_cast<size_t>(i)]);
      });
    });
  }
  return result;
}

absl::StatusOr<Volume> CropOrPad(const Volume& volume, const std::array<int64_t, 3>& begin,
                                 const std::array<int64_t, 3>& size, double outside) {
  constexpr int64_t kFarthest = int64_t{1} << 20;
  for (int i = 0; i < 3; ++i) {
    if (begin[i] < -kFarthest || begin[i] > kFarthest) {
      return absl::InvalidArgumentError(
          absl::StrCat("begin[", i, "]: ", begin[i], " voxels; it lies far from any volume"));
    }
  }
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
