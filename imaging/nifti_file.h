// NIfTI-1 and NIfTI-2 files; the callers' door is imaging/image_file.h.
#ifndef GVSL_IMAGING_NIFTI_FILE_H_
#define GVSL_IMAGING_NIFTI_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

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

// Three numbers a voxel, one component after the other: [component][slice][row][column].
struct NiftiVectors {
  Grid grid;
  std::vector<float> values;
};
enum class VectorLayout {
  kDisplacementField,  // 5D [x, y, z, 1, 3], intent 1007: the values are in LPS mm
  kPlain,              // 4D [x, y, z, 3], no intent
};
// Fills `out` with one component of one slice, [row][column]. A status that is not OK ends the
// work.
using VectorSource = std::function<absl::Status(int component, int64_t slice, float* out)>;
// Asks for the slices in the file's order, component by component: memory is one slice.
absl::Status WriteNiftiVectors(const Grid& grid, const VectorSource& source, VectorLayout layout,
                               bool compressed, OutputFile& file);
// Of kDisplacementField, float32 or float64. Errors as ReadVolume.
absl::StatusOr<NiftiVectors> ReadNiftiVectors(const std::string& path);

}  // namespace gvsl

#endif  // GVSL_IMAGING_NIFTI_FILE_H_
