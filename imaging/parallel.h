// ParallelFor: a loop over the cores.
#ifndef GVSL_IMAGING_PARALLEL_H_
#define GVSL_IMAGING_PARALLEL_H_

#include <cstdint>
#include <functional>

namespace gvsl {

// Runs body(begin, end) over [0, count) on up to `threads` threads (0: SetParallelThreads' number),
// of which the caller's is one; returns when all is done. Where no thread can be made the caller
// does its part. What a body throws is thrown here, the first of several, after all have ended.
void ParallelFor(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& body);

// The number of threads that 0 means in this process; 0, as at first: all cores.
void SetParallelThreads(int threads);

}  // namespace gvsl

#endif  // GVSL_IMAGING_PARALLEL_H_
