// Transforms in the files of ITK, ANTs, 3D Slicer and Learn2Reg. All are pull-backs, LPS mm: a
// file of `fixed_to_moving` resamples the moving image onto the fixed one.
//
// A map is affine(x + u(x)): two files. ITK's CompositeTransform takes the affine first, then the
// field (what was added last is applied first); `antsApplyTransforms -t AFFINE -t FIELD`.
#ifndef GVSL_IMAGING_TRANSFORM_FILE_H_
#define GVSL_IMAGING_TRANSFORM_FILE_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "imaging/spatial_map.h"
#include "imaging/volume.h"

namespace gvsl {

// ITK's text form of an AffineTransform_double_3_3 (.tfm, .txt), centre 0.
std::string AffineToItkText(const AffineMap& affine);
absl::Status WriteItkAffine(const AffineMap& affine, const std::string& path);
// Of a file with one AffineTransform or MatrixOffsetTransformBase, about any centre.
// INVALID_ARGUMENT says what is wrong with which line.
absl::StatusOr<AffineMap> ReadItkAffine(const std::string& path);

// NIfTI-1 with intent 1007 (vector), 5D [x, y, z, 1, 3], float32 LPS mm, as ITK and ANTs write and
// read it; .nii or .nii.gz. INVALID_ARGUMENT for an empty field.
absl::Status WriteDisplacementField(const DisplacementField& field, const std::string& path);
absl::StatusOr<DisplacementField> ReadDisplacementField(const std::string& path);

// Asked between slices; a status that is not OK ends the work and is returned.
using ProceedFunction = std::function<absl::Status()>;

// The whole map as one such field on `grid`, affine(x + u(x)) - x, for tools that take one
// transform. Memory is a slice, whatever the grid.
absl::Status WriteComposedField(const SpatialMap& map, const Grid& grid, const std::string& path,
                                const ProceedFunction& proceed = nullptr);

// Learn2Reg's form: 4D [x, y, z, 3] without intent, displacements in voxels along the index axes:
// fixed voxel i lies at moving voxel i + d(i). Both volumes must have the same size there. Memory
// is a slice.
absl::Status WriteLearn2RegField(const SpatialMap& fixed_to_moving, const Grid& fixed,
                                 const Grid& moving, const std::string& path,
                                 const ProceedFunction& proceed = nullptr);

}  // namespace gvsl

#endif  // GVSL_IMAGING_TRANSFORM_FILE_H_
