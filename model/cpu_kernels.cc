#include "model/cpu_kernels.h"

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
