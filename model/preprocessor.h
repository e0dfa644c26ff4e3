// A volume as a model's card wants it: orientation, spacing, intensities in [0, 1]. Any part at a
// time.
#ifndef GVSL_MODEL_PREPROCESSOR_H_
#define GVSL_MODEL_PREPROCESSOR_H_

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "imaging/intensity.h"
#include "imaging/volume.h"
#include "model/card.h"

namespace gvsl {

class Preprocessor {
 public:
  // The volume must outlive the preprocessor. Intensities follow card.ct for modality "CT", else
  // card.other; ranges and percentiles are those of the voxels as stored, and so do not depend on
  // the grid. INVALID_ARGUMENT where the volume's extent at the card's spacing is no sensible size.
  static absl::StatusOr<Preprocessor> Make(const Volume& volume, const ModelCard& card);

  // The whole volume on the model's grid.
  const Grid& grid() const { return grid_; }

  // Voxels [begin, begin + size) of the grid, (column, row, slice), `[slice][row][column]` in [0,
  // 1]; zero outside the grid.
  void Box(const std::array<int64_t, 3>& begin, const std::array<int64_t, 3>& size,
           float* out) const;

 private:
  const Volume* volume_ = nullptr;
  Grid grid_;
  LinearIntensity intensity_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_PREPROCESSOR_H_
