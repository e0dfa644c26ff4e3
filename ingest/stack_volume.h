// The voxels of a stack: decoded, rescaled, and interpolated where its grid asks for it.
#ifndef GVSL_INGEST_STACK_VOLUME_H_
#define GVSL_INGEST_STACK_VOLUME_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "imaging/volume.h"
#include "ingest/slice_stack.h"

namespace gvsl {

struct StackVolumeOptions {
  std::string decoder_program;  // empty: gvsl-dicom-decoder beside the running program
  int threads = 0;              // as ParallelFor
};

// A slice whose pixels could not be read.
struct FailedSlice {
  size_t slice = 0;  // within the stack
  absl::Status status;
};

struct StackVolume {
  Volume volume;
  int64_t padding_voxels = 0;  // pixels of the padding value, which CT volumes have as air
};

// Value = slope * stored + intercept, each slice with its own. Integers where slopes and intercepts
// are (int16 or uint16 where the values fit, else int32), float32 otherwise. In a CT, pixels of the
// padding value become -1024 HU; what a sheared grid has outside of every slice is -1024 HU in a CT
// and 0 elsewhere. Slices are decoded in parallel; memory is the volume and two slices a thread.
//
// Slices that cannot be read come back in `failed`, with DATA_LOSS: leave them out and plan again.
// INTERNAL: no decoder. RESOURCE_EXHAUSTED: no memory.
absl::StatusOr<StackVolume> BuildStackVolume(const std::vector<DicomInstance>& instances,
                                             const SliceStack& stack, const StackGeometry& geometry,
                                             const StackVolumeOptions& options,
                                             std::vector<FailedSlice>* failed);

}  // namespace gvsl

#endif  // GVSL_INGEST_STACK_VOLUME_H_
