#include "model/cpu_unet.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "model/winograd.h"

namespace gvsl {
namespace {

constexpr int64_t kTaps = 27;
constexpr int64_t kChannelsPerGroup = 8;
constexpr double kNormEpsilon = 1e-5;
constexpr size_t kTensorsPerLayer = 4;  // convolution weight and bias, norm weight and bias

float* Floats(const at::Tensor& tensor) { return tensor.data_ptr<float>(); }

}  // namespace

CpuUNet::CpuUNet(const StateDict& state, const std::array<int64_t, 5>& widths,
                 const CpuKernels& kernels)
    : kernels_(kernels) {
  const auto add = [&](const Pieces& in) {
    layers_.push_back(MakeLayer(state, layers_.size() * kTensorsPerLayer, in));
  };
  for (int level = 0; level < 5; ++level) {
    padded_[level] = PaddedChannels(widths[level]);
    add({level == 0 ? 1 : widths[level - 1]});
    add({widths[level]});
  }
  for (int level = 3; level >= 0; --level) {
    add({widths[level], widths[level + 1]});
    add({widths[level]});
  }
}

CpuUNet::Layer CpuUNet::MakeLayer(const StateDict& state, size_t first_tensor,
                                  const Pieces& in) const {
  const at::Tensor weight = state.at(first_tensor).second.to(at::kCPU, at::kFloat).contiguous();
  Layer layer;
  layer.real_out = weight.size(0);
  layer.out = PaddedChannels(layer.real_out);
  layer.bias = PaddedVector(state.at(first_tensor + 1).second);
  layer.gamma = PaddedVector(state.at(first_tensor + 2).second);
  layer.beta = PaddedVector(state.at(first_tensor + 3).second);
  if (weight.size(1) == 1) {
    layer.in = 1;
    const at::Tensor padded = at::constant_pad_nd(weight.view({layer.real_out, kTaps}),
                                                  {0, 0, 0, layer.out - layer.real_out}, 0);
    // [out block][tap][16], the order in which a product reads its columns.
    layer.weights = padded.view({layer.out / kChannelBlock, kChannelBlock, kTaps})
                        .permute({0, 2, 1})
                        .contiguous();
    return layer;
  }
  std::vector<at::Tensor> pieces;
  int64_t begin = 0;
  for (const int64_t channels : in) {
    const at::Tensor piece = weight.narrow(1, begin, channels);
    pieces.push_back(at::constant_pad_nd(
        piece,
        {0, 0, 0, 0, 0, 0, 0, PaddedChannels(channels) - channels, 0, layer.out - layer.real_out},
        0));
    begin += channels;
  }
  const at::Tensor joined = at::cat(pieces, 1);
  layer.in = joined.size(1);
  layer.weights = WinogradWeights(joined, /*turned=*/false);
  return layer;
}

int64_t CpuUNet::weight_bytes() const {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) {
    for (const at::Tensor* tensor : {&layer.weights, &layer.bias, &layer.gamma, &layer.beta}) {
      bytes += static_cast<int64_t>(tensor->nbytes());
    }
  }
  return bytes;
}

at::Tensor CpuUNet::NormOf(const Layer& layer, const at::Tensor& sums, int64_t voxels) const {
  const int64_t blocks = sums.size(0);
  std::vector<double> sum(2 * layer.out, 0.0);
  const float* part = Floats(sums);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t i = 0; i < 2 * layer.out; ++i) sum[i] += *part++;
  }
  at::Tensor norm = at::zeros({2, layer.out}, at::kFloat);
  float *scale = Floats(norm), *shift = scale + layer.out;
  const float *gamma = Floats(layer.gamma), *beta = Floats(layer.beta);
  const float* bias = Floats(layer.bias);
  const double count = static_cast<double>(voxels);
  for (int64_t group = 0; group < layer.real_out; group += kChannelsPerGroup) {
    // Each channel's variance by itself, without its bias, and then the channels' means: where an
    // image is nearly constant the biases are all that differs, and a variance from the sum of
    // squares of the whole group would be the rounding of their squares.
    const auto mean_of = [&](int64_t c) { return sum[c] / count + bias[c]; };
    double mean = 0, variance = 0;
    for (int64_t c = group; c < group + kChannelsPerGroup; ++c) {
      mean += mean_of(c) / kChannelsPerGroup;
    }
    for (int64_t c = group; c < group + kChannelsPerGroup; ++c) {
      const double inner = sum[layer.out + c] / count - sum[c] / count * (sum[c] / count);
      const double outer = mean_of(c) - mean;
      variance += (std::max(0.0, inner) + outer * outer) / kChannelsPerGroup;
    }
    const double inverse = 1 / std::sqrt(variance + kNormEpsilon);
    for (int64_t c = group; c < group + kChannelsPerGroup; ++c) {
      scale[c] = static_cast<float>(gamma[c] * inverse);
      shift[c] = static_cast<float>(beta[c] - mean * gamma[c] * inverse);
    }
  }
  return norm;
}

CpuUNet::Raw CpuUNet::Convolve(const Layer& layer, const Extent& extent, const float* input,
                               int64_t stride) const {
  const bool first_layer = layer.in == 1;
  const int64_t work = first_layer ? extent.depth * extent.height : extent.tiles();
  // Few rows a block: a float sum over a whole plane would lose four digits where the image is
  // constant, as air is.
  constexpr int64_t kRowsPerBlock = 4;
  const int64_t block =
      first_layer ? kRowsPerBlock : WinogradBlock(layer.in, layer.out, work, at::get_num_threads());
  const int64_t blocks = (work + block - 1) / block;
  const int64_t scratch_size =
      first_layer ? kTaps * extent.width : WinogradScratch(layer.in, layer.out, block);
  Raw raw;
  raw.values = at::empty({extent.voxels(), layer.out}, at::kFloat);
  const at::Tensor sums = at::empty({blocks, 2, layer.out}, at::kFloat);
  Convolution convolution{extent,
                          layer.in,
                          layer.out,
                          stride,
                          input,
                          Floats(layer.weights),
                          Floats(layer.bias),
                          Floats(raw.values)};
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch = at::empty({scratch_size}, at::kFloat);
    std::fill_n(Floats(scratch), layer.in, 0.0f);
    const auto kernel = first_layer ? kernels_.first_layer : kernels_.winograd;
    for (int64_t b = begin; b < end; ++b) {
      kernel(convolution, b * block, std::min(work, (b + 1) * block), Floats(scratch),
             Floats(sums) + b * 2 * layer.out);
    }
  });
  raw.norm = NormOf(layer, sums, extent.voxels());
  return raw;
}

void CpuUNet::Activate(const Raw& raw, const Layer& layer, int64_t voxels, float* to,
                       int64_t stride) const {
  const float *from = Floats(raw.values), *norm = Floats(raw.norm);
  at::parallel_for(0, voxels, 512, [&](int64_t begin, int64_t end) {
    kernels_.normalise(from + begin * layer.out, end - begin, layer.out, norm, norm + layer.out,
                       to + begin * stride, stride);
  });
}

void CpuUNet::ActivatePlanar(const Raw& raw, const Layer& layer, int64_t voxels, float* to) const {
  const float *from = Floats(raw.values), *norm = Floats(raw.norm);
  at::parallel_for(0, voxels, 512, [&](int64_t begin, int64_t end) {
    kernels_.normalise_planar(from + begin * layer.out, end - begin, layer.out, layer.real_out,
                              norm, norm + layer.out, to + begin, voxels);
  });
}

CpuUNet::Raw CpuUNet::Block(size_t first_layer, const Extent& extent, const float* input,
                            int64_t stride) const {
  const Layer& layer = layers_[first_layer];
  const Raw hidden = Convolve(layer, extent, input, stride);
  Activate(hidden, layer, extent.voxels(), Floats(hidden.values), layer.out);
  return Convolve(layers_[first_layer + 1], extent, Floats(hidden.values), layer.out);
}

void CpuUNet::Forward(const float* image, const Extent& extent, const std::vector<float*>& levels,
                      float* global) const {
  const bool decodes = !levels.empty();
  // joined[level] [voxel][skip channels, doubled channels]: the input of the level's up step.
  std::array<at::Tensor, 4> joined;
  std::array<Extent, 5> extents;
  at::Tensor current;  // the level's input, [voxel][channels]
  const float* input = image;
  int64_t stride = 1;
  for (int level = 0; level < 5; ++level) {
    const int shrink = 1 << level;
    extents[level] = {extent.depth / shrink, extent.height / shrink, extent.width / shrink};
    const Extent& here = extents[level];
    const size_t first_layer = 2 * level;
    const Layer& second = layers_[first_layer + 1];
    const Raw raw = Block(first_layer, here, input, stride);
    if (level == 4) {
      ActivatePlanar(raw, second, here.voxels(), global);
      if (!decodes) return;
      Activate(raw, second, here.voxels(), Floats(raw.values), second.out);
      current = raw.values;
      break;
    }
    const int64_t skip_stride = second.out + (decodes ? padded_[level + 1] : 0);
    const at::Tensor skip =
        decodes ? at::empty({here.voxels(), skip_stride}, at::kFloat) : raw.values;
    Activate(raw, second, here.voxels(), Floats(skip), skip_stride);
    if (decodes) joined[level] = skip;
    current = at::empty({here.voxels() / 8, second.out}, at::kFloat);
    at::parallel_for(0, here.depth / 2 * (here.height / 2), 1, [&](int64_t begin, int64_t end) {
      kernels_.max_pool(Floats(skip), skip_stride, here, second.out, begin, end, Floats(current));
    });
    input = Floats(current);
    stride = second.out;
  }
  for (int level = 3; level >= 0; --level) {
    const Extent &here = extents[level], &below = extents[level + 1];
    const size_t first_layer = 10 + 2 * (3 - level);
    const Layer& second = layers_[first_layer + 1];
    const int64_t low_channels = padded_[level + 1], join_stride = padded_[level] + low_channels;
    float* doubled = Floats(joined[level]) + padded_[level];
    at::parallel_for(0, here.depth * here.height, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = at::empty({below.width * low_channels}, at::kFloat);
      kernels_.upsample(Floats(current), below, low_channels, begin, end, Floats(scratch), doubled,
                        join_stride);
    });
    current = at::Tensor();
    Raw raw = Block(first_layer, here, Floats(joined[level]), join_stride);
    joined[level] = at::Tensor();
    if (level < static_cast<int>(levels.size())) {
      ActivatePlanar(raw, second, here.voxels(), levels[level]);
    }
    if (level > 0) {
      Activate(raw, second, here.voxels(), Floats(raw.values), second.out);
      current = raw.values;
    }
  }
}

}  // namespace gvsl
