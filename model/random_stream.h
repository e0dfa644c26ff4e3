// RandomStream: random numbers as a pure function of a key. What is drawn for a sample of a step
// does not depend on what was drawn before, so training has no random state to save, and any
// process can draw any sample.
#ifndef GVSL_MODEL_RANDOM_STREAM_H_
#define GVSL_MODEL_RANDOM_STREAM_H_

#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "imaging/mix64.h"

namespace gvsl {

class RandomStream {
 public:
  // One stream a sequence of numbers, e.g. {seed, purpose, step, sample}.
  explicit RandomStream(std::initializer_list<uint64_t> key) {
    for (uint64_t part : key) state_ = Mix64(state_ ^ Mix64(part));
  }
  uint64_t Bits() { return Mix64(state_ += 0x9E3779B97F4A7C15u); }
  // In [0, 1), in steps of 2^-53.
  double Uniform() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }
  double Uniform(double low, double high) { return low + (high - low) * Uniform(); }
  // In [0, count); the bias is below 2^-50 for any count that occurs.
  int64_t Index(int64_t count) {
    return static_cast<int64_t>(Uniform() * static_cast<double>(count));
  }
  bool Chance(double probability) { return Uniform() < probability; }
  // Standard normal (Box and Muller 1958).
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
    return radius * std::cos(6.283185307179586 * Uniform());
  }

 private:
  uint64_t state_ = 0;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_RANDOM_STREAM_H_
