#include "server/cuda_devices.h"

#include <dlfcn.h>

#include <cstddef>

namespace gvsl {
namespace {

// A function of the driver, all of which return 0 for success.
template <typename... Arguments>
struct DriverCall {
  DriverCall(void* driver, const char* name)
      : function(reinterpret_cast<int (*)(Arguments...)>(dlsym(driver, name))) {}
  bool operator()(Arguments... arguments) const {
    return function != nullptr && function(arguments...) == 0;
  }
  int (*const function)(Arguments...);
};

}  // namespace

std::vector<int64_t> CudaDeviceMemory() {
  std::vector<int64_t> memory;
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return memory;
  const DriverCall<unsigned> initialize(driver, "cuInit");
  const DriverCall<int*> count(driver, "cuDeviceGetCount");
  const DriverCall<int*, int> get(driver, "cuDeviceGet");
  const DriverCall<std::size_t*, int> total(driver, "cuDeviceTotalMem_v2");
  int devices = 0;
  if (!initialize(0) || !count(&devices)) return memory;  // the driver stays: LibTorch may use it
  for (int i = 0; i < devices; ++i) {
    int device = 0;
    std::size_t bytes = 0;
    if (!get(&device, i) || !total(&bytes, device)) bytes = 0;
    memory.push_back(static_cast<int64_t>(bytes));
  }
  return memory;
}

}  // namespace gvsl
