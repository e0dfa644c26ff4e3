// CpuUNet: the U-Net's forward pass on the CPU, on the kernels of model/cpu_kernels.h.
//
// Between layers everything stays channels-last; group norm's statistics are taken while a
// convolution writes its outputs, the norm and the activation are one pass, and the joined input of
// an up step is never copied: its two halves are written in place.
#ifndef GVSL_MODEL_CPU_UNET_H_
#define GVSL_MODEL_CPU_UNET_H_

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/state.h"

namespace gvsl {

class CpuUNet {
 public:
  // `state` in StateLayout's order; only the U-Net's tensors are read.
  CpuUNet(const StateDict& state, const std::array<int64_t, 5>& widths,
          const CpuKernels& kernels = BestCpuKernels());

  // One image [D, H, W], sides multiples of 16, contiguous. Writes global [widths[4], D/16, H/16,
  // W/16] and, for each pointer of `levels`, the decoder's level [widths[l], D, H, W >> l], finest
  // first; without any the up path is not computed. Thread-safe; at::get_num_threads threads work.
  void Forward(const float* image, const Extent& extent, const std::vector<float*>& levels,
               float* global) const;

  // Of the transformed weights: 64/27 of the network's own, and padding.
  int64_t weight_bytes() const;

 private:
  // A convolution with its group norm.
  struct Layer {
    int64_t in = 0, out = 0, real_out = 0;  // channels; in and out padded
    at::Tensor weights, bias, gamma, beta;
  };
  // Pieces of a channel axis: real channels, each padded up to a multiple of kChannelBlock.
  using Pieces = std::vector<int64_t>;

  Layer MakeLayer(const StateDict& state, size_t first_tensor, const Pieces& in) const;
  // The layer's raw output [voxel][out], and the scale and shift [2][out] of its norm.
  struct Raw {
    at::Tensor values, norm;
  };
  Raw Convolve(const Layer& layer, const Extent& extent, const float* input, int64_t stride) const;
  // `sums` [blocks][2][out] as the kernels write them.
  at::Tensor NormOf(const Layer& layer, const at::Tensor& sums, int64_t voxels) const;
  void Activate(const Raw& raw, const Layer& layer, int64_t voxels, float* to,
                int64_t stride) const;
  void ActivatePlanar(const Raw& raw, const Layer& layer, int64_t voxels, float* to) const;
  // Both convolutions of a block; the second is left raw.
  Raw Block(size_t first_layer, const Extent& extent, const float* input, int64_t stride) const;

  const CpuKernels& kernels_;
  std::array<int64_t, 5> padded_;  // widths
  std::vector<Layer> layers_;      // 18, in StateLayout's order
};

}  // namespace gvsl

#endif  // GVSL_MODEL_CPU_UNET_H_
