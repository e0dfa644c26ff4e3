// NIfTI-1 and NIfTI-2 files; the callers' door is imaging/image_file.h.
#ifndef GVSL_IMAGING_NIFTI_FILE_H_
#define GVSL_IMAGING_NIFTI_FILE_H_

#include <string>

#include "imaging/image_file.h"
#include "imaging/output_file.h"

namespace gvsl {

absl::StatusOr<Volume> ReadNifti(const std::string& path, const ReadOptions& options);
// The bytes of a header (and the gap behind it): voxels of `type` follow, fastest along columns,
// then rows, slices, channels. NIfTI-1, or NIfTI-2 where a side exceeds 32767.
absl::StatusOr<std::string> NiftiHeader(const Grid& grid, VoxelType type, VolumeKind kind,
                                        int64_t channels);

// Writes into `file` (the caller commits); gzip when `compressed`.
absl::Status WriteNifti(const Volume& volume, bool compressed, OutputFile& file);

}  // namespace gvsl

#endif  // GVSL_IMAGING_NIFTI_FILE_H_
