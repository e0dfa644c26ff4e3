#include "imaging/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace gvsl {
namespace {

std::atomic<int> default_threads{0};

}  // namespace

void SetParallelThreads(int threads) { default_threads = threads; }

void ParallelFor(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  if (threads <= 0) threads = default_threads;
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t parts = std::min<int64_t>(count, threads);
  std::mutex mutex;
  std::exception_ptr failure;
  const auto run = [&](int64_t part) {
    try {
      body(count * part / parts, count * (part + 1) / parts);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (failure == nullptr) failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  try {
    others.reserve(static_cast<size_t>(parts - 1));
    for (int64_t part = 1; part < parts; ++part) others.emplace_back(run, part);
  } catch (const std::exception&) {
    // No thread, or no memory for one: the parts left over are done here.
  }
  run(0);
  for (int64_t part = static_cast<int64_t>(others.size()) + 1; part < parts; ++part) run(part);
  for (std::thread& other : others) other.join();
  if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace gvsl
