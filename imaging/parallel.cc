#include <algorithm>
#include <thread>
#include <vector>

#include "imaging/resample.h"

namespace gvsl {

void ParallelFor(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const int64_t workers = std::min<int64_t>(count, threads > 0 ? threads : cores);
  if (workers == 1) {
    body(0, count);
    return;
  }
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(workers - 1));
  for (int64_t i = 1; i < workers; ++i) {
    others.emplace_back(
        [&body, i, count, workers] { body(count * i / workers, count * (i + 1) / workers); });
  }
  body(0, count / workers);
  for (std::thread& other : others) other.join();
}

}  // namespace gvsl
