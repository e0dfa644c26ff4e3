// Where the windows of a sliding-window pass lie, and how they are blended. Pure geometry, no
// LibTorch.
#ifndef GVSL_MODEL_SLIDING_WINDOW_H_
#define GVSL_MODEL_SLIDING_WINDOW_H_

#include <array>
#include <cstdint>
#include <vector>

namespace gvsl {

// The windows along one axis. Together they cover every voxel, and their weights sum to one at
// each.
//
// An axis longer than the window has windows every `window * (1 - overlap)` voxels, the last flush
// with the end. A shorter axis has one window of its own length rounded up to 16, zero-padded by
// half of what is missing before (rounded down) and the rest behind, as the official network pads
// its input.
class WindowAxis {
 public:
  WindowAxis(int64_t size, int64_t window, double overlap, bool gaussian);

  int64_t side() const { return side_; }  // a multiple of 16
  int64_t count() const { return static_cast<int64_t>(starts_.size()); }
  // Voxel of the volume at the window's first; negative where the window is padded.
  int64_t start(int64_t k) const { return starts_[static_cast<size_t>(k)]; }
  // The part of window k inside the volume, in voxels of the volume.
  int64_t begin(int64_t k) const { return start(k) < 0 ? 0 : start(k); }
  int64_t end(int64_t k) const { return start(k) + side_ < size_ ? start(k) + side_ : size_; }
  // Blending weight of window k at voxel `v` of the volume, begin(k) <= v < end(k).
  float weight(int64_t k, int64_t v) const {
    return weights_[static_cast<size_t>(k)][static_cast<size_t>(v - begin(k))];
  }

 private:
  int64_t size_;
  int64_t side_;
  std::vector<int64_t> starts_;
  std::vector<std::vector<float>> weights_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_SLIDING_WINDOW_H_
