#include "model/cpu_kernels.h"

#include <algorithm>
#include <array>

namespace gvsl {

extern const CpuKernels kGenericKernels;
#ifdef GVSL_X86_KERNELS
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

int64_t WinogradScratch(int64_t in_channels, int64_t out_channels, int64_t tiles) {
  const int64_t input = tiles * (in_channels + kChannelBlock) + kChannelBlock;
  const int64_t output = tiles * out_channels + kChannelBlock;
  return in_channels + kTilePoints * (input + output);
}

int64_t WinogradBlock(int64_t in_channels, int64_t out_channels, int64_t tiles, int64_t threads) {
  constexpr int64_t kRowsTogether = 12;           // of the product kernel
  constexpr int64_t kFloatsNear = 3 * (1 << 16);  // 768 KiB of second-level cache
  constexpr int64_t kManyWeights = 128 * 128;
  int64_t block =
      kFloatsNear / (kTilePoints * (in_channels + out_channels)) / kRowsTogether * kRowsTogether;
  block = std::clamp(block, 2 * kRowsTogether, 4 * kRowsTogether);
  if (in_channels * out_channels >= kManyWeights) block = 4 * kRowsTogether;
  return std::max<int64_t>(1, std::min(block, (tiles + threads - 1) / threads));
}

int64_t WinogradGradientScratch(int64_t in_channels, int64_t out_channels, int64_t block) {
  const int64_t input = block * (in_channels + kChannelBlock) + kChannelBlock;
  const int64_t gradient = block * out_channels + kChannelBlock;
  return in_channels + kTilePoints * (input + gradient);
}

const CpuKernels* const* AllCpuKernels() {
  static const std::array<const CpuKernels*, 4> tables = [] {
    std::array<const CpuKernels*, 4> found{};
    size_t count = 0;
    found[count++] = &kGenericKernels;
#ifdef GVSL_X86_KERNELS
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      found[count++] = &kAvx2Kernels;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
      found[count++] = &kAvx512Kernels;
    }
#endif
    return found;
  }();
  return tables.data();
}

const CpuKernels& BestCpuKernels() {
  const CpuKernels* const* table = AllCpuKernels();
  while (table[1] != nullptr) ++table;
  return **table;
}

}  // namespace gvsl
