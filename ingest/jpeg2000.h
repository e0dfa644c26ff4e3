// JPEG 2000 codestreams, as OpenJPEG decodes them.
#ifndef GVSL_INGEST_JPEG2000_H_
#define GVSL_INGEST_JPEG2000_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

// The pixels of one frame of one component, `columns` x `rows`, row by row, in the low 16 bits
// (two's complement where the codestream is signed). DATA_LOSS where the codestream is damaged or
// of another size, or has another number of components or more than 16 bits.
absl::StatusOr<std::vector<uint16_t>> DecodeJpeg2000(const uint8_t* codestream, size_t size,
                                                     int columns, int rows);

}  // namespace gvsl

#endif  // GVSL_INGEST_JPEG2000_H_
