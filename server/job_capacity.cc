#include "server/job_capacity.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "server/config.h"
#include "server/cuda_devices.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

int64_t BytesBelow(const std::string& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code gone;
    const auto size = at->is_regular_file(gone) ? at->file_size(gone) : 0;
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

std::string JobCacheFolder(const ServerState& state) {
  return fs::absolute(state.config.data_dir()).string() + "/cache";
}

JobCapacity CapacityOf(const ServerState& state) {
  JobCapacity capacity;
  capacity.threads = state.threads;
  capacity.memory_bytes = AvailableMemory();
  if (state.device.rfind("cuda:", 0) == 0) {
    const auto memory = CudaDeviceMemory();
    const auto first = static_cast<size_t>(std::atoi(state.device.c_str() + 5));
    capacity.cuda_devices = 1;
    capacity.memory_bytes = memory.size() > first ? memory[first] : 0;
#ifdef GVSL_NCCL  // without it several ranks could not sum
    // Ranks take devices in order; up to one that has less memory than the first.
    for (size_t next = first + 1; next < memory.size(); ++next) {
      if (memory[next] < capacity.memory_bytes) break;
      ++capacity.cuda_devices;
    }
#endif
  }
  // The cache gives up what it holds; a fifth of the disk stays free for volumes and models.
  std::error_code error;
  const fs::space_info space = fs::space(state.config.data_dir(), error);
  if (!error) {
    const auto free = static_cast<int64_t>(space.available) + BytesBelow(JobCacheFolder(state));
    capacity.disk_bytes = std::max<int64_t>(1, free);
    capacity.cache_bytes = free / 5 * 4;
  }
  if (state.config.job_cache_mib() > 0) capacity.cache_bytes = state.config.job_cache_mib() << 20;
  return capacity;
}

}  // namespace gvsl
