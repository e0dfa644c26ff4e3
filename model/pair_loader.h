// PairLoader: the images of every training step, read ahead by threads of its own.
//
// Which volumes and which place of them a sample shows is a function of seed, step and place in the
// batch alone. So a run that was stopped goes on with the same samples, and ranks that share a
// batch draw what one rank would.
#ifndef GVSL_MODEL_PAIR_LOADER_H_
#define GVSL_MODEL_PAIR_LOADER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/volume_cache.h"

namespace gvsl {

using VolumeSet = std::vector<std::shared_ptr<const CachedVolume>>;

struct PairLoaderOptions {
  int64_t crop = 128;
  int64_t margin = 0;  // voxels around the crop that are read as well
  uint64_t seed = 0;
  int64_t batch_size = 2;    // of a step, over all ranks and passes
  int64_t pass_size = 2;     // samples of one call of Next
  int64_t first_sample = 0;  // of this rank in a step's batch
  int64_t passes = 1;        // of this rank in a step
  int64_t first_step = 0;
  int64_t ahead = 4;  // passes
  int threads = 2;
  bool pinned = false;  // in memory that CUDA copies from several times as fast
};

struct Pair {
  size_t a, b;                              // indices of volumes, never the same
  std::array<int64_t, 3> a_begin, b_begin;  // first voxel (D, H, W) of the crop; negative: padding
};

// Sample `sample` of step `step`. In every round of as many samples as there are volumes each is A
// once. Crops lie at one relative place of both volumes, so that they show the same anatomy; a
// volume smaller than the crop lies in its middle.
Pair DrawPair(const VolumeSet& volumes, const PairLoaderOptions& options, int64_t step,
              int64_t sample);

// The part of an image that shows the volume, in voxels (D, H, W) of the image; padding surrounds
// it.
struct Content {
  std::array<int64_t, 3> begin, end;
};

struct PairBatch {
  int64_t step = 0;
  int64_t first_sample = 0;  // in the step's batch
  at::Tensor a, b;           // [N, 1, side, side, side] float32 on the host, side = crop + 2 margin
  std::vector<Content> a_content, b_content;  // N each
};

// A batch of step 0 whose images [N, 1, side, side, side] are without padding.
PairBatch WholeBatch(at::Tensor a, at::Tensor b);

// Reads the images of `pair`, with `margin` voxels around the crop, as sample `sample` of `batch`,
// whose tensors are there.
void ReadPair(const VolumeSet& volumes, const Pair& pair, int64_t margin, int64_t sample,
              PairBatch& batch);

// Next is called from one thread.
class PairLoader {
 public:
  // At least two volumes.
  PairLoader(VolumeSet volumes, const PairLoaderOptions& options);
  ~PairLoader();
  // The next pass in order; waits for it. Throws what reading it threw (memory ran out, say).
  PairBatch Next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_PAIR_LOADER_H_
