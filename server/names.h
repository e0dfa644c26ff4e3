// Resource names: `volumes/{id}`, `models/{id}`, `uploads/{request_id}`.
#ifndef GVSL_SERVER_NAMES_H_
#define GVSL_SERVER_NAMES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

// 128 random bits in hexadecimal.
std::string NewId();

// The id of a name of `collection` ("volumes"). INVALID_ARGUMENT that opens with `field` unless it
// is `collection/` and 1 to 64 characters of [A-Za-z0-9_-]; a long name is not repeated.
absl::StatusOr<std::string> IdOf(const std::string& collection, const std::string& name,
                                 const std::string& field);

// OK for 1 to 64 characters of [A-Za-z0-9_-].
absl::Status CheckRequestId(const std::string& request_id, const std::string& field);

// OK for at most `most` bytes without control characters. UTF-8 was checked by protobuf.
absl::Status CheckText(const std::string& text, size_t most, const std::string& field);

}  // namespace gvsl

#endif  // GVSL_SERVER_NAMES_H_
