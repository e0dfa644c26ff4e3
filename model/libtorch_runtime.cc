// Set-up of LibTorch for a process; declared in model/extractor.h.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <malloc.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "imaging/parallel.h"
#include "model/extractor.h"

namespace gvsl {

absl::StatusOr<std::string> InitializeLibTorch(const DeviceOptions& options) {
  if (options.threads < 0 || options.threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads: ", options.threads, "; it is 0 (all cores) to 1024"));
  }
  const int threads = options.threads > 0
                          ? options.threads
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::string device = options.device;
  try {
    // Debian's LibTorch starts with one thread; OpenBLAS keeps a count of its own.
    at::set_num_threads(threads);
    SetParallelThreads(threads);
    if (auto* set =
            reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads")))
      set(threads);
    // float32 means float32: TensorFloat-32, cuDNN's default, keeps 10 bits of the mantissa. Who
    // wants speed asks for bfloat16.
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setAllowTF32CuBLAS(false);
#ifdef __GLIBC__
    // glibc maps and unmaps every large tensor, and the page faults cost as much as the arithmetic
    // (docs/performance.md). Memory is given back after each extraction by malloc_trim.
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 0x7fffffff);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
    const int64_t gpus =
        torch::cuda::is_available() ? static_cast<int64_t>(torch::cuda::device_count()) : 0;
    if (device == "auto" || device == "cuda")
      device = gpus > 0 ? "cuda:0" : device == "auto" ? "cpu" : "cuda:0";
    if (device == "cpu") return device;
    if (device.rfind("cuda:", 0) == 0 && device.size() > 5 && device.size() < 9 &&
        std::all_of(device.begin() + 5, device.end(),
                    [](char c) { return c >= '0' && c <= '9'; })) {
      if (std::stoi(device.substr(5)) < gpus) return device;
      return absl::InvalidArgumentError(absl::StrCat(
          "device: ", device, " is not there; this machine offers ", gpus, " CUDA device(s)",
          gpus == 0 ? " (or this LibTorch is built without CUDA); use cpu" : ""));
    }
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what()));
  }
  return absl::InvalidArgumentError(absl::StrCat("device: \"", options.device.substr(0, 64),
                                                 "\" is no device; it is auto, cpu or cuda:N"));
}

std::string LibTorchVersion() { return TORCH_VERSION; }

}  // namespace gvsl
