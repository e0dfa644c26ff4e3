// Random numbers of the phantoms: counter-based, integer arithmetic and exact scaling only, so that
// every machine, compiler and thread count draws the same ones.
#ifndef GVSL_IMAGING_PHANTOM_RANDOM_H_
#define GVSL_IMAGING_PHANTOM_RANDOM_H_

#include <cmath>
#include <cstdint>

#include "imaging/mix64.h"
#include "imaging/volume.h"

namespace gvsl {

// One stream of numbers, addressed by counter or drawn in turn. Streams of different (seed,
// purpose) are independent for our ends. Not thread-safe when drawn in turn; the addressed form is
// const.
class PhantomRandom {
 public:
  PhantomRandom(uint64_t seed, uint64_t purpose) : key_(Mix64(Mix64(seed) ^ (purpose << 56))) {}

  uint64_t Bits(uint64_t counter) const { return Mix64(key_ + counter * 0xD1342543DE82EF95u); }

  // Uniform in [0, 1): 53 bits, scaled exactly.
  double Unit() { return static_cast<double>(Bits(next_++) >> 11) * 0x1p-53; }
  double Between(double low, double high) { return low + (high - low) * Unit(); }

  // Uniform in the ball of `radius`, by rejection from the cube.
  Vec3 InBall(double radius) {
    for (;;) {
      const Vec3 v = {Between(-1, 1), Between(-1, 1), Between(-1, 1)};
      if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] <= 1) {
        return {radius * v[0], radius * v[1], radius * v[2]};
      }
    }
  }

  // A number of mean 0 and variance 1, normal but for its tails, which end at 4.9: the sum of eight
  // 16-bit uniforms (Irwin-Hall). No logarithm or cosine, whose last bit differs between C
  // libraries.
  double NearNormal(uint64_t counter) const {
    int64_t sum = 0;
    for (uint64_t half = 0; half < 2; ++half) {
      const uint64_t bits = Bits(2 * counter + half);
      sum += static_cast<int64_t>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) +
                                  ((bits >> 32) & 0xFFFF) + (bits >> 48));
    }
    // Mean of eight: 8 * 65535 / 2; variance: 8 * (65536^2 - 1) / 12, whose root is 53509.97...
    return static_cast<double>(sum - 4 * 65535) * (1.0 / 53509.97);
  }

 private:
  uint64_t key_;
  uint64_t next_ = 0;
};

}  // namespace gvsl

#endif  // GVSL_IMAGING_PHANTOM_RANDOM_H_
