// Mix64: a number's hash, the same on every machine.
#ifndef GVSL_IMAGING_MIX64_H_
#define GVSL_IMAGING_MIX64_H_

#include <cstdint>

namespace gvsl {

// The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijective mixer of 64
// bits.
inline uint64_t Mix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace gvsl

#endif  // GVSL_IMAGING_MIX64_H_
