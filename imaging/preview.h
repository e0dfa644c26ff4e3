// Pictures of volumes, as PNG files in memory.
#ifndef GVSL_IMAGING_PREVIEW_H_
#define GVSL_IMAGING_PREVIEW_H_

#include <string>

#include "imaging/volume.h"

namespace gvsl {

struct PreviewOptions {
  // Values shown from black to white; both 0: percentiles 0.5 and 99.5.
  double window_min = 0;
  double window_max = 0;
  int max_edge = 256;  // longest side of a plane in pixels, 16..512
};

// The three central planes (axial, coronal, sagittal; patient's right on the left of the picture,
// anterior up in the axial plane, superior up in the others) side by side, in physical proportions,
// whatever the volume's orientation. LABELS are coloured. INVALID_ARGUMENT for bad options.
absl::StatusOr<std::string> PreviewPng(const Volume& volume, const PreviewOptions& options);

}  // namespace gvsl

#endif  // GVSL_IMAGING_PREVIEW_H_
