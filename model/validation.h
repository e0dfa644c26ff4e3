// How a network does on pairs of volumes that are the same in every run and at every step.
#ifndef GVSL_MODEL_VALIDATION_H_
#define GVSL_MODEL_VALIDATION_H_

#include <ATen/ATen.h>

#include <array>

#include "model/network.h"
#include "model/pair_loader.h"
#include "model/training_options.h"
#include "model/training_report.h"

namespace gvsl {

// Means over `options.upkeep.validation_pairs` pairs of `volumes` (at least two): aligned as a
// network is used, from the plain image; restored from a distorted one. Correlations before and
// after are of what both volumes show at that alignment. `spacing_mm` along D, H, W. `step` and
// `best` are the caller's to fill.
ValidationReport Validate(GvslNetwork& network, const VolumeSet& volumes,
                          const TrainingOptions& options, const std::array<double, 3>& spacing_mm,
                          at::Device device);

// The first of those pairs, as the network sees and changes it. `step` is the caller's to fill.
PictureReport MakePicture(GvslNetwork& network, const VolumeSet& volumes,
                          const TrainingOptions& options, const std::array<double, 3>& spacing_mm,
                          at::Device device);

}  // namespace gvsl

#endif  // GVSL_MODEL_VALIDATION_H_
