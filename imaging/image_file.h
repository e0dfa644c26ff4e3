// Volumes in files: NIfTI-1/2 (.nii, .nii.gz) through niftilib, MetaImage (.mha, .mhd) through
// ITK's MetaIO.
#ifndef GVSL_IMAGING_IMAGE_FILE_H_
#define GVSL_IMAGING_IMAGE_FILE_H_

#include <string>

#include "imaging/volume.h"

namespace gvsl {

struct ReadOptions {
  VolumeKind kind = VolumeKind::kImage;
};

// Reads a volume; the format follows the extension. NIfTI geometry: sform if its code is positive,
// else qform, else the voxel sizes alone (the standard's methods 3, 2, 1, as nibabel chooses), in
// the header's unit, RAS turned to LPS. An sform with shear is refused. Stored types that Volume
// lacks widen without loss (int8 to int16; uint32, int64 to int32 where every value fits; float64
// to float32); scl_slope/scl_inter other than 1/0 give float32. Reads straight into the volume: one
// copy of the voxels, plus one slice where values convert.
//
// NOT_FOUND: no such file. INVALID_ARGUMENT: what is wrong with it (unknown extension, not NIfTI,
// 4D, RGB, 2D, zero size, bad spacing or direction, NaN or infinity with its voxel index).
// DATA_LOSS: the file holds fewer voxels than its header promises, or its gzip stream is corrupt.
absl::StatusOr<Volume> ReadVolume(const std::string& path, const ReadOptions& options = {});

// Writes a volume (NIfTI-1, or NIfTI-2 where a side exceeds 32767; sform and qform both set),
// written aside and renamed: `path` is never half a file. A .mhd puts its voxels beside it, as
// NAME.raw, first.
absl::Status WriteVolume(const Volume& volume, const std::string& path);

}  // namespace gvsl

#endif  // GVSL_IMAGING_IMAGE_FILE_H_
