// SHA-256, as OpenSSL computes it.
#ifndef GVSL_IMAGING_SHA256_H_
#define GVSL_IMAGING_SHA256_H_

#include <cstddef>
#include <memory>
#include <string>

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

}  // namespace gvsl

#endif  // GVSL_IMAGING_SHA256_H_
