// imaging/sha256.h without OpenSSL, for builds with GVSL_MODEL_ONLY where it is absent: SHA-256 by
// FIPS 180-4.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "imaging/sha256.h"

namespace gvsl {
namespace {

// The standard takes its constants from the first 32 bits behind the point of the square roots (8
// primes) and cube roots (64 primes); here they are computed so, in integers.
struct Constants {
  std::array<uint32_t, 8> start;
  std::array<uint32_t, 64> round;

  Constants() {
    int found = 0;
    for (uint32_t candidate = 2; found < 64; ++candidate) {
      bool prime = true;
      for (uint32_t d = 2; d * d <= candidate; ++d) prime = prime && candidate % d != 0;
      if (!prime) continue;
      __extension__ using Wide = unsigned __int128;
      // floor(root * 2^32): the largest x with x^n <= candidate * 2^(32 n), bit by bit.
      uint64_t square = 0, cube = 0;
      for (int bit = 36; bit >= 0; --bit) {
        const Wide s = square | (uint64_t{1} << bit);
        if (s * s <= Wide{candidate} << 64) square = static_cast<uint64_t>(s);
        const Wide c = cube | (uint64_t{1} << bit);
        if (c * c * c <= Wide{candidate} << 96) cube = static_cast<uint64_t>(c);
      }
      if (found < 8) start[found] = static_cast<uint32_t>(square);
      round[found++] = static_cast<uint32_t>(cube);
    }
  }
};

uint32_t Rotated(uint32_t word, int bits) { return (word >> bits) | (word << (32 - bits)); }

}  // namespace

struct Sha256::Impl {
  static const Constants& TheConstants() {
    static const Constants constants;
    return constants;
  }

  // Section 6.2.2.
  void Compress(const uint8_t* bytes) {
    uint32_t schedule[64];
    for (int t = 0; t < 16; ++t) {
      schedule[t] = uint32_t{bytes[4 * t]} << 24 | uint32_t{bytes[4 * t + 1]} << 16 |
                    uint32_t{bytes[4 * t + 2]} << 8 | uint32_t{bytes[4 * t + 3]};
    }
    for (int t = 16; t < 64; ++t) {
      const uint32_t w2 = schedule[t - 2], w15 = schedule[t - 15];
      schedule[t] = (Rotated(w2, 17) ^ Rotated(w2, 19) ^ (w2 >> 10)) + schedule[t - 7] +
                    (Rotated(w15, 7) ^ Rotated(w15, 18) ^ (w15 >> 3)) + schedule[t - 16];
    }
    std::array<uint32_t, 8> s = state;  // a..h of the standard
    for (int t = 0; t < 64; ++t) {
      const uint32_t one = s[7] + (Rotated(s[4], 6) ^ Rotated(s[4], 11) ^ Rotated(s[4], 25)) +
                           ((s[4] & s[5]) ^ (~s[4] & s[6])) + TheConstants().round[t] + schedule[t];
      const uint32_t two = (Rotated(s[0], 2) ^ Rotated(s[0], 13) ^ Rotated(s[0], 22)) +
                           ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      s = {one + two, s[0], s[1], s[2], s[3] + one, s[4], s[5], s[6]};
    }
    for (int i = 0; i < 8; ++i) state[i] += s[i];
  }

  std::array<uint32_t, 8> state = TheConstants().start;
  std::array<uint8_t, 64> block;
  uint64_t total_bytes = 0;
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {}
Sha256::~Sha256() = default;

void Sha256::Update(const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  while (size > 0) {
    const size_t filled = impl_->total_bytes % 64;
    const size_t count = std::min(size, 64 - filled);
    std::memcpy(impl_->block.data() + filled, bytes, count);
    impl_->total_bytes += count;
    bytes += count;
    size -= count;
    if (filled + count == 64) impl_->Compress(impl_->block.data());
  }
}

std::string Sha256::Finish() {
  const uint64_t bits = 8 * impl_->total_bytes;
  const uint8_t one = 0x80, zero = 0;
  Update(&one, 1);
  while (impl_->total_bytes % 64 != 56) Update(&zero, 1);
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  Update(length, 8);
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const uint32_t word : impl_->state) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += kDigits[word >> shift & 15];
  }
  return hex;
}

}  // namespace gvsl
