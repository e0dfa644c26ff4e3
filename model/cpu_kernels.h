// The arithmetic of UNetEngine on the CPU, and of training's convolutions: plain float arrays, no
// LibTorch, one table a processor family.
//
// Activations are `[voxel][channel]` (channels last), channels padded with zeros to a multiple
// of 16. 3x3x3 convolutions are Winograd's F(2x2x2, 3x3x3) (Winograd 1980; Lavin and Gray, CVPR
// 2016): a 4^3 tile of input and the weights are transformed so that 64 products give 8 outputs,
// where the direct sum takes 216.
#ifndef GVSL_MODEL_CPU_KERNELS_H_
#define GVSL_MODEL_CPU_KERNELS_H_

#include <cstdint>

namespace gvsl {

constexpr int64_t kChannelBlock = 16;
constexpr int64_t kTilePoints = 64;  // 4^3

constexpr int64_t PaddedChannels(int64_t channels) {
  return (channels + kChannelBlock - 1) / kChannelBlock * kChannelBlock;
}

// Size of a volume in voxels.
struct Extent {
  int64_t depth = 0, height = 0, width = 0;
  int64_t voxels() const { return depth * height * width; }
  int64_t tiles() const { return ((depth + 1) / 2) * ((height + 1) / 2) * ((width + 1) / 2); }
};

// One convolution, 3x3x3, zero-padded, from `input` [voxel][input_stride] to `output`
// [voxel][out_channels].
struct Convolution {
  Extent extent;
  int64_t in_channels = 0;   // multiple of kChannelBlock
  int64_t out_channels = 0;  // the same
  int64_t input_stride = 0;  // floats from voxel to voxel, at least in_channels
  const float* input = nullptr;
  const float* weights = nullptr;  // [point 64][out block][in channel][16], transformed
  const float* bias = nullptr;     // [out_channels]
  float* output = nullptr;
};

// The weights' gradient of a 3x3x3 zero-padded convolution of few channels, planar for once:
// training keeps LibTorch's layout. Rows are `stride` floats, a multiple of kGradientRow, zeros
// beyond the width.
struct WeightGradient {
  Extent extent;  // of one channel of the gradient
  int64_t stride = 0;
  int64_t in_channels = 0, out_channels = 0;
  // [in][depth + 2][height + 2][stride + 2], zeros around the volume.
  const float* input = nullptr;
  const float* gradient = nullptr;  // [out][depth][height][stride]
};
constexpr int64_t kGradientRow = 16;

// The weights' gradient of a 3x3x3 zero-padded convolution of many channels, by the transforms of
// input and gradient: products of whole blocks of tiles, summed point by point.
struct WinogradGradient {
  Extent extent;
  int64_t in_channels = 0, out_channels = 0;  // multiples of kChannelBlock
  const float* input = nullptr;               // [voxel][in_channels]
  const float* gradient = nullptr;            // [voxel][out_channels]
  int64_t block = 0;                          // tiles that `scratch` holds
  float* scratch = nullptr;                   // WinogradGradientScratch, its first in_channels zero
  float* sums = nullptr;                      // [point][in][out]
};

struct CpuKernels {
  const char* name;
  // Tiles [first, last) of a convolution. `scratch` holds WinogradScratch floats, its first
  // in_channels zero. Writes to `sums` [2][out_channels] the sum and the sum of squares of the
  // outputs before their bias is added.
  void (*winograd)(const Convolution& convolution, int64_t first, int64_t last, float* scratch,
                   float* sums);
  // Rows [first, last) (z, y) of the convolution of a single channel: `input` [voxel], `weights`
  // [out block][27][16]. `scratch` holds 27 * width floats. `sums` as above.
  void (*first_layer)(const Convolution& convolution, int64_t first, int64_t last, float* scratch,
                      float* sums);
  // to = leaky_relu(from * scale + shift, 0.2) for `voxels`; `from` may be `to`.
  void (*normalise)(const float* from, int64_t voxels, int64_t channels, const float* scale,
                    const float* shift, float* to, int64_t to_stride);
  // The same, transposed: channel c of voxel i goes to to[c * channel_stride + i].
  void (*normalise_planar)(const float* from, int64_t voxels, int64_t channels,
                           int64_t real_channels, const float* scale, const float* shift, float* to,
                           int64_t channel_stride);
  // 2x2x2 maxima: output rows [first, last) of an input of `extent`; output [voxel][channels].
  void (*max_pool)(const float* from, int64_t from_stride, Extent extent, int64_t channels,
                   int64_t first, int64_t last, float* to);
  // Trilinear doubling, corners aligned: output rows [first, last). `from` [voxel][channels] of
  // `extent`. `scratch` holds width * channels floats.
  void (*upsample)(const float* from, Extent extent, int64_t channels, int64_t first, int64_t last,
                   float* scratch, float* to, int64_t to_stride);
  // Adds what slices [first, last) give to `sums` [out][in][27]. `scratch` holds
  // WeightGradientScratch floats.
  void (*weight_gradient)(const WeightGradient& task, int64_t first, int64_t last, float* scratch,
                          float* sums);
  // Transforms tiles [begin, end) of the block that starts at tile `first`.
  void (*winograd_gradient_tiles)(const WinogradGradient& task, int64_t first, int64_t begin,
                                  int64_t end);
  // Adds to the sums of points [begin, end) the products of a block's first `tiles` tiles.
  void (*winograd_gradient_points)(const WinogradGradient& task, int64_t tiles, int64_t begin,
                                   int64_t end);
  // [channel][channel_stride] to [voxel][padded], zeros behind the channels.
  void (*to_channels_last)(const float* from, int64_t channel_stride, int64_t voxels,
                           int64_t channels, int64_t padded, float* to);
  // And back.
  void (*to_planar)(const float* from, int64_t voxels, int64_t channels, int64_t padded, float* to,
                    int64_t channel_stride);
};

inline int64_t WeightGradientScratch(int64_t in_channels, int64_t out_channels) {
  return in_channels * out_channels * 27 * kGradientRow;
}

// Floats of scratch for blocks of `tiles` tiles.
int64_t WinogradScratch(int64_t in_channels, int64_t out_channels, int64_t tiles);

// Tiles a block: so many that its transformed inputs and products stay in the caches, and the
// weights, which every block reads once, are shared by many tiles; but a block for every thread.
int64_t WinogradBlock(int64_t in_channels, int64_t out_channels, int64_t tiles, int64_t threads);

// Floats of scratch of a WinogradGradient.
int64_t WinogradGradientScratch(int64_t in_channels, int64_t out_channels, int64_t block);

// The fastest table that this processor runs.
const CpuKernels& BestCpuKernels();

// For tests: every table that this processor runs, slowest first; ends with nullptr.
const CpuKernels* const* AllCpuKernels();

}  // namespace gvsl

#endif  // GVSL_MODEL_CPU_KERNELS_H_
