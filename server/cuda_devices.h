// What the CUDA driver says of this machine's devices, without linking it.
#ifndef GVSL_SERVER_CUDA_DEVICES_H_
#define GVSL_SERVER_CUDA_DEVICES_H_

#include <cstdint>
#include <vector>

namespace gvsl {

// Bytes of memory of each device that this process may use; none without a driver.
std::vector<int64_t> CudaDeviceMemory();

}  // namespace gvsl

#endif  // GVSL_SERVER_CUDA_DEVICES_H_
