// Pseudonyms: what stands for an identifier where patients must not be known.
#ifndef GVSL_INGEST_PSEUDONYM_H_
#define GVSL_INGEST_PSEUDONYM_H_

#include <string>

#include "absl/status/statusor.h"

namespace gvsl {

// Identifiers become keyed hashes (HMAC-SHA-256, RFC 2104): the same one is the same pseudonym for
// who has the key, and nobody without it can find out which by trying them all. Safe for concurrent
// use.
class Pseudonyms {
 public:
  // Reads the key's file, 32 bytes as 64 hexadecimal digits; makes it with a random key if absent,
  // and then readable by its owner alone. FAILED_PRECONDITION where others may read it or it holds
  // no key; an OutputFile's error where it cannot be made.
  static absl::StatusOr<Pseudonyms> FromKeyFile(const std::string& path);

  // Of an identifier of a kind ("patient", "study", "series"): 16 hexadecimal digits.
  std::string Of(const std::string& kind, const std::string& identifier) const;

 private:
  explicit Pseudonyms(std::string key) : key_(std::move(key)) {}
  std::string key_;
};

// Where the key is kept if nobody says: $XDG_STATE_HOME or ~/.local/state, gvsl/pseudonym.key.
std::string DefaultKeyFile();

}  // namespace gvsl

#endif  // GVSL_INGEST_PSEUDONYM_H_
