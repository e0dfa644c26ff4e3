#include "model/winograd.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "model/cpu_kernels.h"

namespace gvsl {
namespace {

constexpr int64_t kTaps = 27;

float* Floats(const at::Tensor& tensor) { return tensor.data_ptr<float>(); }

Extent ExtentOf(const at::Tensor& x) { return {x.size(2), x.size(3), x.size(4)}; }

// One sample [C, D, H, W] as [voxel][channel], padded.
at::Tensor ChannelsLast(const at::Tensor& sample, const CpuKernels& kernels) {
  const int64_t channels = sample.size(0), padded = PaddedChannels(channels);
  const int64_t voxels = sample.numel() / channels;
  const at::Tensor planar = sample.contiguous(), result = at::empty({voxels, padded}, at::kFloat);
  at::parallel_for(0, voxels, 4096, [&](int64_t begin, int64_t end) {
    kernels.to_channels_last(Floats(planar) + begin, voxels, end - begin, channels, padded,
                             Floats(result) + begin * padded);
  });
  return result;
}

// The other way, into a sample [C, D, H, W].
void ToPlanar(const at::Tensor& values, const at::Tensor& sample, const CpuKernels& kernels) {
  const int64_t voxels = values.size(0), padded = values.size(1), channels = sample.size(0);
  at::parallel_for(0, voxels, 4096, [&](int64_t begin, int64_t end) {
    kernels.to_planar(Floats(values) + begin * padded, end - begin, channels, padded,
                      Floats(sample) + begin, voxels);
  });
}

// [voxel][out] from [voxel][in] and what WinogradWeights gives.
at::Tensor Convolve(const at::Tensor& input, const Extent& extent, const at::Tensor& weights,
                    const at::Tensor& bias, const CpuKernels& kernels) {
  const int64_t in = input.size(1), out = bias.size(0);
  const at::Tensor output = at::empty({extent.voxels(), out}, at::kFloat);
  const Convolution convolution{extent,          in,           out,           in, Floats(input),
                                Floats(weights), Floats(bias), Floats(output)};
  const int64_t tiles = extent.tiles(),
                block = WinogradBlock(in, out, tiles, at::get_num_threads());
  at::parallel_for(0, (tiles + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch = at::empty({WinogradScratch(in, out, block) + 2 * out}, at::kFloat);
    std::fill_n(Floats(scratch), in, 0.0f);
    float* sums = Floats(scratch) + WinogradScratch(in, out, block);
    for (int64_t b = begin; b < end; ++b) {
      kernels.winograd(convolution, b * block, std::min(tiles, (b + 1) * block), Floats(scratch),
                       sums);
    }
  });
  return output;
}

// Adds a sample's share to `sums` [point][in][out]: blocks of tiles one after the other, their
// tiles and then the points shared among the threads.
void AddWeightGradient(const at::Tensor& input, const at::Tensor& gradient, const Extent& extent,
                       const at::Tensor& sums, const CpuKernels& kernels) {
  constexpr int64_t kFloatsNear = 1 << 21;  // 8 MiB of the last cache
  const int64_t in = input.size(1), out = gradient.size(1), tiles = extent.tiles();
  const int64_t block =
      std::min(tiles, std::clamp<int64_t>(kFloatsNear / (kTilePoints * (in + out)), 128, 1024));
  WinogradGradient task;
  task.extent = extent;
  task.in_channels = in;
  task.out_channels = out;
  task.input = Floats(input);
  task.gradient = Floats(gradient);
  task.block = block;
  task.sums = Floats(sums);
  const at::Tensor scratch = at::empty({WinogradGradientScratch(in, out, block)}, at::kFloat);
  task.scratch = Floats(scratch);
  std::fill_n(task.scratch, in, 0.0f);
  for (int64_t first = 0; first < tiles; first += block) {
    const int64_t last = std::min(tiles, first + block);
    at::parallel_for(first, last, 8, [&](int64_t begin, int64_t end) {
      kernels.winograd_gradient_tiles(task, first, begin, end);
    });
    at::parallel_for(0, kTilePoints, 1, [&](int64_t begin, int64_t end) {
      kernels.winograd_gradient_points(task, last - first, begin, end);
    });
  }
}

// From four points of the weights' transform to three taps: what is the transform's transpose.
void PointsToTaps(const float* from, int64_t step, float* to, int64_t to_step) {
  for (int64_t lane = 0; lane < kChannelBlock; ++lane) {
    const float p0 = from[lane], p1 = from[step + lane], p2 = from[2 * step + lane];
    const float half_sum = 0.5f * (p1 + p2), half_difference = 0.5f * (p1 - p2);
    to[lane] = p0 + half_sum;
    to[to_step + lane] = half_difference;
    to[2 * to_step + lane] = half_sum + from[3 * step + lane];
  }
}

// The transform: three taps to four points (G of Lavin and Gray).
void TapsToPoints(const float* from, int64_t step, float* to, int64_t to_step) {
  for (int64_t lane = 0; lane < kChannelBlock; ++lane) {
    const float t0 = from[lane], t1 = from[step + lane], t2 = from[2 * step + lane];
    to[lane] = t0;
    to[to_step + lane] = 0.5f * (t0 + t1 + t2);
    to[2 * to_step + lane] = 0.5f * (t0 - t1 + t2);
    to[3 * to_step + lane] = t2;
  }
}

// [out, in, 3, 3, 3] from sums [point][in][out], padded.
at::Tensor WeightsOf(const at::Tensor& sums, int64_t out, int64_t in) {
  const int64_t padded_in = sums.size(1), padded_out = sums.size(2);
  const int64_t point = padded_in * padded_out;
  const at::Tensor weight = at::empty({out, in, 3, 3, 3}, at::kFloat);
  at::parallel_for(0, in, 4, [&](int64_t begin, int64_t end) {
    float z[3 * 16 * kChannelBlock], y[3 * 3 * 4 * kChannelBlock], taps[kTaps * kChannelBlock];
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t block = 0; block < padded_out; block += kChannelBlock) {
        const float* from = Floats(sums) + i * padded_out + block;
        for (int64_t p = 0; p < 16; ++p) {
          PointsToTaps(from + p * point, 16 * point, z + p * kChannelBlock, 16 * kChannelBlock);
        }
        for (int64_t p = 0; p < 12; ++p) {
          const int64_t k = p / 4, x = p % 4;
          PointsToTaps(z + (k * 16 + x) * kChannelBlock, 4 * kChannelBlock,
                       y + (k * 12 + x) * kChannelBlock, 4 * kChannelBlock);
        }
        for (int64_t p = 0; p < 9; ++p) {
          PointsToTaps(y + p * 4 * kChannelBlock, kChannelBlock, taps + p * 3 * kChannelBlock,
                       kChannelBlock);
        }
        for (int64_t lane = 0; lane < std::min(kChannelBlock, out - block); ++lane) {
          float* to = Floats(weight) + ((block + lane) * in + i) * kTaps;
          for (int64_t tap = 0; tap < kTaps; ++tap) to[tap] = taps[tap * kChannelBlock + lane];
        }
      }
    }
  });
  return weight;
}

}  // namespace

at::Tensor PaddedVector(const at::Tensor& vector) {
  const int64_t missing = PaddedChannels(vector.numel()) - vector.numel();
  return at::constant_pad_nd(vector.to(at::kFloat), {0, missing}).contiguous();
}

at::Tensor WinogradWeights(const at::Tensor& weight, bool turned) {
  const at::Tensor plain = weight.to(at::kFloat).contiguous();
  const int64_t out = weight.size(turned ? 1 : 0), in = weight.size(turned ? 0 : 1);
  const int64_t out_step = turned ? kTaps : in * kTaps, in_step = turned ? out * kTaps : kTaps;
  const int64_t padded_in = PaddedChannels(in), blocks = PaddedChannels(out) / kChannelBlock;
  const at::Tensor result = at::empty({kTilePoints, blocks, padded_in, kChannelBlock}, at::kFloat);
  const int64_t point = result.stride(0);
  at::parallel_for(0, blocks * padded_in, 16, [&](int64_t begin, int64_t end) {
    float taps[kTaps * kChannelBlock], x[9 * 4 * kChannelBlock], y[3 * 16 * kChannelBlock];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item / padded_in * kChannelBlock, i = item % padded_in;
      for (int64_t lane = 0; lane < kChannelBlock; ++lane) {
        const bool real = i < in && first + lane < out;
        const float* from =
            real ? Floats(plain) + (first + lane) * out_step + i * in_step : nullptr;
        for (int64_t tap = 0; tap < kTaps; ++tap) {
          taps[tap * kChannelBlock + lane] = real ? from[turned ? kTaps - 1 - tap : tap] : 0.0f;
        }
      }
      for (int64_t p = 0; p < 9; ++p) {
        TapsToPoints(taps + p * 3 * kChannelBlock, kChannelBlock, x + p * 4 * kChannelBlock,
                     kChannelBlock);
      }
      for (int64_t p = 0; p < 12; ++p) {
        const int64_t k = p / 4, at = p % 4;
        TapsToPoints(x + (k * 12 + at) * kChannelBlock, 4 * kChannelBlock,
                     y + (k * 16 + at) * kChannelBlock, 4 * kChannelBlock);
      }
      float* to = Floats(result) + item * kChannelBlock;
      for (int64_t p = 0; p < 16; ++p) {
        TapsToPoints(y + p * kChannelBlock, 16 * kChannelBlock, to + p * point, 16 * point);
      }
    }
  });
  return result;
}

at::Tensor WinogradConvolution(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias, const CpuKernels& kernels) {
  const at::Tensor weights = WinogradWeights(weight, false), padded_bias = PaddedVector(bias);
  const at::Tensor result =
      at::empty({x.size(0), weight.size(0), x.size(2), x.size(3), x.size(4)}, at::kFloat);
  for (int64_t n = 0; n < x.size(0); ++n) {
    const at::Tensor values =
        Convolve(ChannelsLast(x[n], kernels), ExtentOf(x), weights, padded_bias, kernels);
    ToPlanar(values, result[n], kernels);
  }
  return result;
}

std::pair<at::Tensor, at::Tensor> WinogradGradients(const at::Tensor& gradient, const at::Tensor& x,
                                                    const at::Tensor& weight, bool wants_x,
                                                    const CpuKernels& kernels) {
  const int64_t out = weight.size(0), in = weight.size(1);
  const at::Tensor sums =
      at::zeros({kTilePoints, PaddedChannels(in), PaddedChannels(out)}, at::kFloat);
  at::Tensor of_x, turned, none;
  if (wants_x) {
    of_x = at::empty(x.sizes(), at::kFloat);
    turned = WinogradWeights(weight, true);
    none = at::zeros({PaddedChannels(in)}, at::kFloat);
  }
  for (int64_t n = 0; n < x.size(0); ++n) {
    const at::Tensor upstream = ChannelsLast(gradient[n], kernels);
    if (wants_x) {
      ToPlanar(Convolve(upstream, ExtentOf(x), turned, none, kernels), of_x[n], kernels);
    }
    AddWeightGradient(ChannelsLast(x[n], kernels), upstream, ExtentOf(x), sums, kernels);
  }
  return {of_x, WeightsOf(sums, out, in)};
}

}  // namespace gvsl
