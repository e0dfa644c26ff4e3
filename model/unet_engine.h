// UNetEngine: the U-Net's forward pass as fast as the machine allows, for serving. No gradients.
// Same weights and results (to rounding) as UNet in model/network.h.
#ifndef GVSL_MODEL_UNET_ENGINE_H_
#define GVSL_MODEL_UNET_ENGINE_H_

#include <ATen/ATen.h>

#include <array>
#include <memory>

#include "model/state.h"

namespace gvsl {

class UNetEngine {
 public:
  // Prepares the weights for `device`, once.
  UNetEngine(const StateDict& state, const std::array<int64_t, 5>& widths, at::Device device,
             at::ScalarType compute_type);
  ~UNetEngine();

  struct Output {
    at::Tensor dense;  // [N, widths[0] + .. widths[levels - 1], D, H, W] float32; undefined of none
    at::Tensor global;  // [N, widths[4], D/16, H/16, W/16] float32
  };
  // [N, 1, D, H, W] float32 on the device, sides multiples of 16. The dense output joins so many
  // levels of the decoder, 0 to 4, the last first; a coarser one's voxels lie at the centres of
  // what they were pooled from, and are interpolated linearly. Without any the up path is not
  // computed.
  Output Forward(const at::Tensor& image, int64_t levels) const;

  // Of the prepared weights, on the host or the device.
  int64_t weight_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_UNET_ENGINE_H_
