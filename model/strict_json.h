// JSON in files of strangers: card and safetensors header.
#ifndef GVSL_MODEL_STRICT_JSON_H_
#define GVSL_MODEL_STRICT_JSON_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace gvsl {

// Parses [begin, end). INVALID_ARGUMENT unless it is JSON (RFC 8259) that names no field of an
// object twice, which readers understand differently, and nests no deeper than these files do.
absl::Status ParseStrictJson(const char* begin, const char* end, nlohmann::json& result);

}  // namespace gvsl

#endif  // GVSL_MODEL_STRICT_JSON_H_
