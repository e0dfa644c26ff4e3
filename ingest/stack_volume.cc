#include "ingest/stack_volume.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <optional>

#include "imaging/parallel.h"
#include "ingest/frame_reader.h"

namespace gvsl {
namespace {

constexpr double kAirHu = -1024;

bool IsInteger(double value) { return value == std::floor(value) && std::abs(value) < 1e9; }

// Rounded and clamped for integers; `exact` turns false where a value does not fit.
template <typename T>
T Cast(double value, bool& fits) {
  if constexpr (std::is_integral_v<T>) {
    const double rounded = std::floor(value + 0.5);
    if (rounded < std::numeric_limits<T>::min() || rounded > std::numeric_limits<T>::max()) {
      fits = false;
      return 0;
    }
    return static_cast<T>(rounded);
  } else {
    return static_cast<T>(value);
  }
}

class Builder {
 public:
  Builder(const std::vector<DicomInstance>& instances, const SliceStack& stack,
          const StackGeometry& geometry, const StackVolumeOptions& options)
      : instances_(instances),
        stack_(stack),
        geometry_(geometry),
        options_(options),
        is_ct_(First().modality == "CT"),
        outside_(is_ct_ ? kAirHu : 0) {}

  // The least type that the headers allow; int16 also where they would allow a little more, which
  // is then tried.
  VoxelType LikelyType() const {
    double low = 0, high = 0;
    for (const SliceRef& slice : stack_.slices) {
      const DicomFrame& frame = Frame(slice);
      if (!IsInteger(frame.slope) || !IsInteger(frame.intercept)) return VoxelType::kFloat32;
      const PixelFormat& format = instances_[slice.instance].pixels;
      const double span = std::ldexp(1, format.bits_stored);
      const double least = format.is_signed ? -span / 2 : 0;
      const double ends[] = {frame.slope * least + frame.intercept,
                             frame.slope * (least + span - 1) + frame.intercept};
      low = std::min({low, ends[0], ends[1]});
      high = std::max({high, ends[0], ends[1]});
    }
    if (low >= 0 && high > 32767 && high <= 65535) return VoxelType::kUint16;
    return low < -65536 || high > 65536 ? VoxelType::kInt32 : VoxelType::kInt16;
  }

  // False in `fits` where a value does not fit the type.
  absl::StatusOr<StackVolume> Build(VoxelType type, bool* fits) {
    absl::StatusOr<Volume> volume = Volume::Allocate(geometry_.grid, type, VolumeKind::kImage);
    if (!volume.ok()) return volume.status();
    failed_.clear();
    fits_ = true;
    padding_voxels_ = 0;
    const int64_t slices = volume->grid().size[2];
    ParallelFor(slices, options_.threads, [&](int64_t begin, int64_t end) {
      VisitVoxelType(type, [&](auto tag) {
        if (geometry_.resampled) {
          Interpolate<decltype(tag)>(begin, end, *volume);
        } else {
          Copy<decltype(tag)>(begin, end, *volume);
        }
      });
    });
    *fits = fits_;
    if (!failed_.empty()) return failed_.front().status;
    StackVolume result{*std::move(volume), padding_voxels_};
    result.volume.set_modality(First().modality);
    return result;
  }

  // Each slice once, in order.
  std::vector<FailedSlice> TakeFailed() {
    std::sort(failed_.begin(), failed_.end(),
              [](const FailedSlice& a, const FailedSlice& b) { return a.slice < b.slice; });
    failed_.erase(
        std::unique(failed_.begin(), failed_.end(),
                    [](const FailedSlice& a, const FailedSlice& b) { return a.slice == b.slice; }),
        failed_.end());
    return std::move(failed_);
  }

 private:
  const DicomInstance& First() const { return instances_[stack_.slices[0].instance]; }
  const DicomFrame& Frame(const SliceRef& slice) const {
    return instances_[slice.instance].frames[slice.frame];
  }
  FrameReader MakeReader() const {
    return options_.decoder_program.empty() ? FrameReader() : FrameReader(options_.decoder_program);
  }

  // The stored pixels of a slice; noted where it cannot be read.
  absl::StatusOr<std::vector<uint16_t>> Stored(FrameReader& reader, size_t slice) {
    const SliceRef& ref = stack_.slices[slice];
    absl::StatusOr<std::vector<uint16_t>> stored =
        reader.Slice(instances_[ref.instance], Frame(ref));
    if (!stored.ok()) {
      const std::lock_guard<std::mutex> lock(mutex_);
      failed_.push_back({slice, stored.status()});
    }
    return stored;
  }

  // As ForEachValue with Cast, in integers alone, of which the compiler makes vectors: what nearly
  // every slice needs. False where slope, intercept or type are not whole; `fits` as in Cast.
  template <typename T>
  bool CopyWhole(const std::vector<uint16_t>& stored, size_t slice, T* out, bool& fits) {
    const DicomFrame& frame = Frame(stack_.slices[slice]);
    if (!std::is_integral_v<T> || !IsInteger(frame.slope) || !IsInteger(frame.intercept) ||
        std::abs(frame.slope) * 65536 + std::abs(frame.intercept) > 1e9) {
      return false;
    }
    const auto slope = static_cast<int32_t>(frame.slope);
    const auto intercept = static_cast<int32_t>(frame.intercept);
    const PixelFormat& format = instances_[stack_.slices[slice].instance].pixels;
    const int shift = format.high_bit + 1 - format.bits_stored;
    const int32_t mask = (1 << format.bits_stored) - 1;
    const int32_t sign = format.is_signed ? 1 << (format.bits_stored - 1) : 0;
    const auto [first, last] = format.padding.value_or(std::array<int32_t, 2>{1, 0});
    int64_t padded = 0;
    int32_t cut = 0;
    for (size_t i = 0; i < stored.size(); ++i) {
      const int32_t value = (((stored[i] >> shift) & mask) ^ sign) - sign;  // PixelFormat::Value
      const int32_t is_padding = value >= first && value <= last;
      padded += is_padding;
      int32_t scaled = slope * value + intercept;
      if (is_ct_ && is_padding) scaled = static_cast<int32_t>(kAirHu);
      out[i] = static_cast<T>(scaled);
      cut |= scaled ^ static_cast<int32_t>(out[i]);
    }
    padding_voxels_ += padded;
    if (cut != 0) fits = false;
    return true;
  }

  // Calls take(index, value) for every pixel of a slice.
  template <typename Take>
  void ForEachValue(const std::vector<uint16_t>& stored, size_t slice, const Take& take) {
    const DicomFrame& frame = Frame(stack_.slices[slice]);
    const PixelFormat& format = instances_[stack_.slices[slice].instance].pixels;
    int64_t padded = 0;
    for (size_t i = 0; i < stored.size(); ++i) {
      const int32_t value = format.Value(stored[i]);
      if (format.padding && value >= (*format.padding)[0] && value <= (*format.padding)[1]) {
        ++padded;
        if (is_ct_) {
          take(i, kAirHu);
          continue;
        }
      }
      take(i, frame.slope * value + frame.intercept);
    }
    padding_voxels_ += padded;
  }

  bool stopped() const { return !fits_; }

  template <typename T>
  void Copy(int64_t begin, int64_t end, Volume& volume) {
    FrameReader reader = MakeReader();
    const int64_t area = volume.grid().size[0] * volume.grid().size[1];
    bool fits = true;
    for (int64_t z = begin; z < end && !stopped(); ++z) {
      T* out = volume.mutable_voxels<T>() + z * area;
      const auto slice = static_cast<size_t>(z);
      const auto stored = Stored(reader, slice);
      if (!stored.ok()) continue;
      if (!CopyWhole(*stored, slice, out, fits)) {
        ForEachValue(*stored, slice,
                     [&](size_t i, double value) { out[i] = Cast<T>(value, fits); });
      }
      if (!fits) fits_ = false;
    }
  }

  // One slice as values, and where it lies.
  struct Loaded {
    size_t slice = std::numeric_limits<size_t>::max();
    std::vector<float> values;
  };

  const std::vector<float>* Load(FrameReader& reader, size_t slice, Loaded (&loaded)[2]) {
    Loaded& place = loaded[slice % 2];  // neighbours never share one
    if (place.slice != slice) {
      place.slice = std::numeric_limits<size_t>::max();
      const auto stored = Stored(reader, slice);
      if (!stored.ok()) return nullptr;
      place.slice = slice;
      place.values.resize(stored->size());
      ForEachValue(*stored, slice,
                   [&](size_t i, double value) { place.values[i] = static_cast<float>(value); });
    }
    return &place.values;
  }

  // Adds `weight` times the slice, bilinearly at its place, to a slice of the grid.
  void Add(const std::vector<float>& values, const StackGeometry::Placement& placement,
           double weight, std::vector<double>& sum) const {
    const PixelFormat& format = First().pixels;
    const int64_t columns = format.slice_columns, rows = format.slice_rows;
    const auto whole_column = static_cast<int64_t>(std::floor(placement.column));
    const auto whole_row = static_cast<int64_t>(std::floor(placement.row));
    const double part_column = placement.column - static_cast<double>(whole_column);
    const double part_row = placement.row - static_cast<double>(whole_row);
    const auto at = [&](int64_t column, int64_t row) -> double {
      return column < 0 || row < 0 || column >= columns || row >= rows
                 ? outside_
                 : values[static_cast<size_t>(row * columns + column)];
    };
    size_t i = 0;
    for (int64_t y = 0; y < geometry_.grid.size[1]; ++y) {
      for (int64_t x = 0; x < geometry_.grid.size[0]; ++x, ++i) {
        const int64_t column = x - whole_column, row = y - whole_row;
        double value = (1 - part_column) * (1 - part_row) * at(column, row);
        // Only what has a weight is looked at: whole shifts keep the outermost pixels.
        if (part_column > 0) value += part_column * (1 - part_row) * at(column - 1, row);
        if (part_row > 0) value += (1 - part_column) * part_row * at(column, row - 1);
        if (part_column > 0 && part_row > 0) {
          value += part_column * part_row * at(column - 1, row - 1);
        }
        sum[i] += weight * value;
      }
    }
  }

  template <typename T>
  void Interpolate(int64_t begin, int64_t end, Volume& volume) {
    FrameReader reader = MakeReader();
    Loaded loaded[2];
    const int64_t area = volume.grid().size[0] * volume.grid().size[1];
    std::vector<double> sum(static_cast<size_t>(area));
    const auto& placements = geometry_.placements;
    bool fits = true;
    for (int64_t z = begin; z < end && !stopped(); ++z) {
      const double depth_mm = static_cast<double>(z) * geometry_.grid.spacing_mm[2];
      // The slices on both sides; beyond the last, by a rounding, the last.
      const auto behind = std::upper_bound(
          placements.begin(), placements.end(), depth_mm + 1e-9,
          [](double depth, const auto& placement) { return depth < placement.depth_mm; });
      const auto lower = static_cast<size_t>(behind - placements.begin()) - 1;
      double weight = 0;
      if (behind != placements.end()) {
        weight = (depth_mm - placements[lower].depth_mm) /
                 (behind->depth_mm - placements[lower].depth_mm);
        if (weight < 1e-6) weight = 0;
      }
      std::fill(sum.begin(), sum.end(), 0.0);
      for (const size_t slice : {lower, lower + 1}) {
        const double share = slice == lower ? 1 - weight : weight;
        if (share == 0) continue;
        const std::vector<float>* values = Load(reader, slice, loaded);
        if (values != nullptr) Add(*values, placements[slice], share, sum);
      }
      T* out = volume.mutable_voxels<T>() + z * area;
      for (int64_t i = 0; i < area; ++i) out[i] = Cast<T>(sum[static_cast<size_t>(i)], fits);
      if (!fits) fits_ = false;
    }
  }

  const std::vector<DicomInstance>& instances_;
  const SliceStack& stack_;
  const StackGeometry& geometry_;
  const StackVolumeOptions& options_;
  const bool is_ct_;
  const double outside_;
  std::mutex mutex_;
  std::vector<FailedSlice> failed_;  // guarded by mutex_ while threads run
  std::atomic<bool> fits_{true};
  std::atomic<int64_t> padding_voxels_{0};
};

}  // namespace

absl::StatusOr<StackVolume> BuildStackVolume(const std::vector<DicomInstance>& instances,
                                             const SliceStack& stack, const StackGeometry& geometry,
                                             const StackVolumeOptions& options,
                                             std::vector<FailedSlice>* failed) {
  Builder builder(instances, stack, geometry, options);
  bool fits = true;
  absl::StatusOr<StackVolume> result = builder.Build(builder.LikelyType(), &fits);
  // Headers promise more bits than scanners use; where they are used, the wider type is taken.
  if (!fits) result = builder.Build(VoxelType::kInt32, &fits);
  *failed = builder.TakeFailed();
  if (!fits) return absl::FailedPreconditionError("its values do not fit 32 bits");
  return result;
}

}  // namespace gvsl
