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
    at::Tensor dense;   // [N, widths[0], D, H, W] float32; undefined if not wanted
    at::Tensor global;  // [N, widths[4], D/16, H/16, W/16] float32
  };
  // [N, 1, D, H, W] float32 on the device, sides multiples of 16. Without `want_dense` the up path
  // is not computed at all.
  Output Forward(const at::Tensor& image, bool want_dense) const;

  // Of the prepared weights, on the host or the device.
  int64_t weight_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_UNET_ENGINE_H_
