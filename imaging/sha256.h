// SHA-256, as OpenSSL computes it.
#ifndef GVSL_IMAGING_SHA256_H_
#define GVSL_IMAGING_SHA256_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace gvsl {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(const void* data, size_t size);
  // Hexadecimal digest, lower case. Once only.
  std::string Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The digest of bytes at once.
inline std::string Sha256Of(const void* data, size_t size) {
  Sha256 hash;
  hash.Update(data, size);
  return hash.Finish();
}
inline std::string Sha256Of(std::string_view text) { return Sha256Of(text.data(), text.size()); }

}  // namespace gvsl

#endif  // GVSL_IMAGING_SHA256_H_
