#include "model/preprocessor.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/orientation.h"
#include "imaging/resample.h"

namespace gvsl {

absl::StatusOr<Preprocessor> Preprocessor::Make(const Volume& volume, const ModelCard& card) {
  auto grid = ModelGrid(volume.grid(), card.orientation, card.spacing_mm);
  if (!grid.ok()) return grid.status();
  // As ValidateGrid limits volumes; in floating point, since the product may leave int64.
  constexpr double kMostVoxels = 8589934592.0;  // 2^33
  constexpr int64_t kLongestSide = 65535;
  double voxels = 1;
  bool good = true;
  for (int64_t side : grid->size) {
    voxels *= static_cast<double>(side);
    good = good && side <= kLongestSide;
  }
  if (!good || voxels > kMostVoxels) {
    return absl::InvalidArgumentError(absl::StrCat(
        "volume: at the model's spacing it has ", grid->size[0], " x ", grid->size[1], " x ",
        grid->size[2], " voxels, more than can be computed; is its spacing right?"));
  }
  auto intensity = MakeLinearIntensity(volume.modality() == "CT" ? card.ct : card.other, volume);
  if (!intensity.ok()) return intensity.status();
  Preprocessor result;
  result.volume_ = &volume;
  result.grid_ = *grid;
  result.intensity_ = *intensity;
  return result;
}

void Preprocessor::Box(const std::array<int64_t, 3>& begin, const std::array<int64_t, 3>& size,
                       float* out) const {
  std::fill(out, out + size[0] * size[1] * size[2], 0.0f);
  // The part inside the grid is resampled by itself, then laid into its place.
  Grid part = grid_;
  std::array<int64_t, 3> low;
  Vec3 first;
  for (int i = 0; i < 3; ++i) {
    low[i] = std::max<int64_t>(begin[i], 0);
    part.size[i] = std::min(begin[i] + size[i], grid_.size[i]) - low[i];
    if (part.size[i] <= 0) return;
    first[i] = static_cast<double>(low[i]);
  }
  part.origin_mm = grid_.IndexToPhysical(first);
  std::vector<float> inside(static_cast<size_t>(part.voxel_count()));
  Resampler(*volume_, part, Interpolation::kLinear, 0).Slices(0, part.size[2], inside.data());
  ApplyIntensity(intensity_, inside.data(), part.voxel_count());
  for (int64_t z = 0; z < part.size[2]; ++z) {
    for (int64_t y = 0; y < part.size[1]; ++y) {
      const int64_t row = (z + low[2] - begin[2]) * size[1] + y + low[1] - begin[1];
      const float* in = inside.data() + (z * part.size[1] + y) * part.size[0];
      std::copy(in, in + part.size[0], out + row * size[0] + low[0] - begin[0]);
    }
  }
}

}  // namespace gvsl
