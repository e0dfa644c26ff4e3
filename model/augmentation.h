// Random changes of training images: spatial ones of A and B, and distortions of A's copy that the
// network has to undo. Everything is a function of a sample's key; nothing is remembered between
// samples.
//
// Numbers that describe a change (angles, boxes, curves) are drawn on the host; voxels are only
// touched on the images' own device.
#ifndef GVSL_MODEL_AUGMENTATION_H_
#define GVSL_MODEL_AUGMENTATION_H_

#include <ATen/ATen.h>

#include <vector>

#include "model/random_stream.h"
#include "model/training_options.h"

namespace gvsl {

// One draw of a spatial change: x of the result is read at linear * (x + elastic(x) - c) + c +
// shift.
struct SpatialChange {
  std::array<std::array<double, 4>, 3> matrix;  // (x, y, z) in mm; the last column in voxels
  std::vector<float> elastic;                   // control points [3 (z, y, x)][g][g][g] in voxels
};

// Control points a side of the cubic B-spline lattice for a crop.
int64_t ElasticControls(int64_t crop);

SpatialChange DrawSpatialChange(const AugmentationOptions& options, int64_t crop,
                                RandomStream& random);
// The change that leaves everything as it is.
SpatialChange NoSpatialChange(int64_t crop);

// [N, 3, crop, crop, crop] (z, y, x): where each voxel of the changed crop lies in its source, a
// box that is `margin` voxels larger on every side. Voxels are `spacing_mm` (z, y, x) apart: a
// rotation keeps distances in mm.
at::Tensor SpatialPoints(const std::vector<SpatialChange>& changes, int64_t crop, int64_t margin,
                         const std::array<double, 3>& spacing_mm, at::Device device);

// The distorted copy of `images` [N, 1, D, H, W] in [0, 1]: voxels shuffled within small blocks,
// intensities bent by a random monotone Bezier curve that may fall, boxes painted over with noise
// (the tasks of Models Genesis, Zhou et al. 2019); each with its probability. `keys`: one a sample.
at::Tensor Distort(const at::Tensor& images, const AugmentationOptions& options,
                   const std::vector<uint64_t>& keys);

}  // namespace gvsl

#endif  // GVSL_MODEL_AUGMENTATION_H_
