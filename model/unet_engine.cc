#include "model/unet_engine.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <vector>

#include "model/cpu_unet.h"
#include "model/trained_layers.h"

namespace gvsl {
namespace {

constexpr double kLeak = 0.2;
constexpr double kNormEpsilon = 1e-5;
constexpr int64_t kChannelsPerGroup = 8;
constexpr size_t kLayers = 18;

// Channels of the joined levels: level l has [begin[l], begin[l + 1]).
std::vector<int64_t> ChannelsBefore(const std::array<int64_t, 5>& widths, int64_t levels) {
  std::vector<int64_t> begin = {0};
  for (int64_t level = 0; level < levels; ++level) begin.push_back(begin.back() + widths[level]);
  return begin;
}

// Writes a coarser level [C, d, h, w] into its channels of the joined ones [C, D, H, W]. Not by the
// corners, as the network doubles: that would move what was pooled by up to half a coarse voxel.
void Enlarge(const at::Tensor& coarse, at::Tensor joined) {
  at::Tensor out = joined.unsqueeze(0);
  at::upsample_trilinear3d_out(out, coarse.unsqueeze(0), joined.sizes().slice(1),
                               /*align_corners=*/false);
}

// The network on LibTorch's own operators, for GPUs. Channels first: cuDNN's tensor-core
// convolutions want them last and turn them there and back themselves, which costs less than what
// everything between the convolutions loses by that layout (docs/performance.md).
class AtenUNet {
 public:
  AtenUNet(const StateDict& state, const std::array<int64_t, 5>& widths, at::Device device,
           at::ScalarType type)
      : widths_(widths), type_(type) {
    for (size_t i = 0; i < 4 * kLayers; ++i) {
      tensors_.push_back(state.at(i).second.to(device, type));
    }
  }

  UNetEngine::Output Forward(const at::Tensor& image, int64_t levels) const {
    std::array<at::Tensor, 5> encoded;
    encoded[0] = Block(0, image.to(type_));
    for (size_t level = 1; level < 5; ++level) {
      encoded[level] = Block(2 * level, at::max_pool3d(encoded[level - 1], {2, 2, 2}));
    }
    UNetEngine::Output output;
    output.global = encoded[4].to(at::kFloat).contiguous();
    if (levels == 0) return output;
    const std::vector<int64_t> begin = ChannelsBefore(widths_, levels);
    if (levels > 1) {
      output.dense =
          at::empty({image.size(0), begin.back(), image.size(2), image.size(3), image.size(4)},
                    image.options());
    }
    at::Tensor decoded = encoded[4];
    for (size_t level = 4; level-- > 0;) {
      const at::Tensor doubled = at::upsample_trilinear3d(decoded, encoded[level].sizes().slice(2),
                                                          /*align_corners=*/true);
      decoded = Block(10 + 2 * (3 - level), at::cat({encoded[level], doubled}, 1));
      encoded[level] = at::Tensor();
      if (levels == 1 || static_cast<int64_t>(level) >= levels) continue;
      const at::Tensor values = decoded.to(at::kFloat);
      for (int64_t n = 0; n < image.size(0); ++n) {
        Enlarge(values[n], output.dense[n].slice(0, begin[level], begin[level + 1]));
      }
    }
    if (levels == 1) output.dense = decoded.to(at::kFloat).contiguous();
    return output;
  }

  int64_t weight_bytes() const {
    int64_t bytes = 0;
    for (const at::Tensor& tensor : tensors_) bytes += static_cast<int64_t>(tensor.nbytes());
    return bytes;
  }

 private:
  at::Tensor Layer(size_t layer, const at::Tensor& x) const {
    const at::Tensor* tensor = &tensors_[4 * layer];
    const at::Tensor raw = at::conv3d(x, tensor[0], tensor[1], 1, 1);
    at::Tensor normed = GroupNormByReductions(raw, raw.size(1) / kChannelsPerGroup, tensor[2],
                                              tensor[3], kNormEpsilon);
    return at::leaky_relu_(normed, kLeak);
  }
  at::Tensor Block(size_t layer, const at::Tensor& x) const {
    return Layer(layer + 1, Layer(layer, x));
  }

  std::vector<at::Tensor> tensors_;
  std::array<int64_t, 5> widths_;
  at::ScalarType type_;
};

}  // namespace

struct UNetEngine::Impl {
  std::array<int64_t, 5> widths;
  std::unique_ptr<CpuUNet> cpu;
  std::unique_ptr<AtenUNet> aten;
};

UNetEngine::UNetEngine(const StateDict& state, const std::array<int64_t, 5>& widths,
                       at::Device device, at::ScalarType compute_type)
    : impl_(std::make_unique<Impl>()) {
  const c10::InferenceMode inference;
  impl_->widths = widths;
  if (device.is_cpu() && compute_type == at::kFloat) {
    impl_->cpu = std::make_unique<CpuUNet>(state, widths);
  } else {
    impl_->aten = std::make_unique<AtenUNet>(state, widths, device, compute_type);
  }
}

UNetEngine::~UNetEngine() = default;

int64_t UNetEngine::weight_bytes() const {
  return impl_->cpu != nullptr ? impl_->cpu->weight_bytes() : impl_->aten->weight_bytes();
}

UNetEngine::Output UNetEngine::Forward(const at::Tensor& image, int64_t levels) const {
  const c10::InferenceMode inference;
  if (impl_->aten != nullptr) return impl_->aten->Forward(image, levels);
  const at::Tensor input = image.contiguous();
  const int64_t batch = input.size(0);
  const Extent extent{input.size(2), input.size(3), input.size(4)};
  Output output;
  const std::vector<int64_t> begin = ChannelsBefore(impl_->widths, levels);
  std::vector<at::Tensor> coarse(static_cast<size_t>(levels));  // [C, d, h, w]; of level 0 none
  if (levels > 0) {
    output.dense =
        at::empty({batch, begin.back(), extent.depth, extent.height, extent.width}, at::kFloat);
  }
  for (int64_t level = 1; level < levels; ++level) {
    coarse[level] = at::empty({impl_->widths[level], extent.depth >> level, extent.height >> level,
                               extent.width >> level},
                              at::kFloat);
  }
  output.global =
      at::empty({batch, impl_->widths[4], extent.depth / 16, extent.height / 16, extent.width / 16},
                at::kFloat);
  for (int64_t n = 0; n < batch; ++n) {
    std::vector<float*> places;
    for (int64_t level = 0; level < levels; ++level) {
      const at::Tensor& place = level == 0 ? output.dense[n] : coarse[level];
      places.push_back(place.data_ptr<float>());
    }
    impl_->cpu->Forward(input[n].data_ptr<float>(), extent, places,
                        output.global[n].data_ptr<float>());
    for (int64_t level = 1; level < levels; ++level) {
      Enlarge(coarse[level], output.dense[n].slice(0, begin[level], begin[level + 1]));
    }
  }
  return output;
}

}  // namespace gvsl
