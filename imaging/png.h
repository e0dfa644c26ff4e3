// PNG files in memory.
#ifndef GVSL_IMAGING_PNG_H_
#define GVSL_IMAGING_PNG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

// An RGB picture of `width` x `height` pixels, rows from the top, 3 bytes a pixel, as a PNG.
absl::StatusOr<std::string> EncodePngRgb(int width, int height, const std::vector<uint8_t>& rgb);

}  // namespace gvsl

#endif  // GVSL_IMAGING_PNG_H_
