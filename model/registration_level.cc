#include "model/registration_level.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "imaging/intensity.h"
#include "imaging/orientation.h"
#include "imaging/parallel.h"
#include "imaging/resample.h"
#include "model/preprocessor.h"

namespace gvsl {
namespace {

constexpr int64_t kLeastSide = 8;  // of a volume, at the card's spacing
constexpr int64_t kLeastCoarseSide = 12;
constexpr double kMostLevels = 3;

absl::Status Wrong(const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", what));
}

bool AllFinite(const Volume& volume) {
  if (volume.type() != VoxelType::kFloat32) return true;
  std::atomic<bool> finite{true};
  ParallelFor(volume.voxel_count(), 0, [&](int64_t begin, int64_t end) {
    const float* voxels = volume.voxels<float>();
    bool good = true;
    for (int64_t i = begin; i < end; ++i) good = good && std::isfinite(voxels[i]);
    if (!good) finite = false;
  });
  return finite;
}

absl::Status ValidateVolume(const Volume* volume, const ModelCard& card, const std::string& name) {
  if (volume == nullptr || volume->bytes() == nullptr) return Wrong(name, "there is no volume");
  if (absl::Status status = ValidateGrid(volume->grid()); !status.ok()) {
    return Wrong(name, std::string(status.message()));
  }
  if (volume->kind() != VolumeKind::kImage) {
    return Wrong(name, "it is a label map; images are registered, and labels carried over after");
  }
  if (!AllFinite(*volume)) {
    return Wrong(name, "it holds NaN or infinity; replace those voxels first");
  }
  const ValueRange range = RangeOf(*volume);
  if (!(range.max > range.min)) {
    return Wrong(name, absl::StrCat("every voxel is ", range.min,
                                    "; a constant image shows nothing to align"));
  }
  auto grid = ModelGrid(volume->grid(), card.orientation, card.spacing_mm);
  if (!grid.ok()) return Wrong(name, std::string(grid.status().message()));
  for (int64_t side : grid->size) {
    if (side < kLeastSide) {
      return Wrong(name, absl::StrCat("at the model's spacing it has ", grid->size[0], " x ",
                                      grid->size[1], " x ", grid->size[2], " voxels; at least ",
                                      kLeastSide, " along every axis are needed"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateMask(const Volume* mask, const std::string& name) {
  if (mask == nullptr) return absl::OkStatus();
  if (mask->bytes() == nullptr || mask->kind() != VolumeKind::kLabels) {
    return Wrong(name, "a mask is a label map, whose voxels that are not 0 count");
  }
  const ValueRange range = RangeOf(*mask);
  if (range.min == 0 && range.max == 0) return Wrong(name, "all of its voxels are 0");
  return absl::OkStatus();
}

double ModelVoxels(const Volume& volume, const ModelCard& card) {
  double voxels = 1;
  for (int i = 0; i < 3; ++i) {
    voxels *= static_cast<double>(volume.grid().size[i]) * volume.grid().spacing_mm[i] /
              card.spacing_mm[i];
  }
  return voxels;
}

}  // namespace

absl::Status ValidateInput(const RegistrationInput& input, const ModelCard& card) {
  for (absl::Status status :
       {ValidateVolume(input.fixed, card, "fixed"), ValidateVolume(input.moving, card, "moving"),
        ValidateMask(input.fixed_mask, "fixed_mask"),
        ValidateMask(input.moving_mask, "moving_mask")}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::vector<double> LevelFactors(const RegistrationInput& input, const ModelCard& card,
                                 int64_t max_voxels) {
  const double voxels = std::max(ModelVoxels(*input.fixed, card), ModelVoxels(*input.moving, card));
  const double finest = std::max(1.0, std::cbrt(voxels / static_cast<double>(max_voxels)));
  double least_mm = 1e30;
  for (const Volume* volume : {input.fixed, input.moving}) {
    for (int i = 0; i < 3; ++i) {
      least_mm = std::min(
          least_mm, static_cast<double>(volume->grid().size[i]) * volume->grid().spacing_mm[i]);
    }
  }
  const double spacing = *std::max_element(card.spacing_mm.begin(), card.spacing_mm.end()) * finest;
  std::vector<double> factors = {finest};
  for (double f = 2; static_cast<double>(factors.size()) < kMostLevels &&
                     least_mm / (spacing * f) >= static_cast<double>(kLeastCoarseSide);
       f *= 2) {
    factors.insert(factors.begin(), finest * f);
  }
  return factors;
}

ModelCard Coarser(const ModelCard& card, double factor) {
  ModelCard coarser = card;
  for (double& spacing : coarser.spacing_mm) spacing *= factor;
  return coarser;
}

absl::StatusOr<LevelImage> ReadLevel(const Volume& volume, const Volume* mask,
                                     const ModelCard& card, const std::string& name) {
  auto preprocessor = Preprocessor::Make(volume, card);
  if (!preprocessor.ok()) return Wrong(name, std::string(preprocessor.status().message()));
  LevelImage image;
  image.grid = preprocessor->grid();
  const auto voxels = static_cast<size_t>(image.grid.voxel_count());
  image.values.resize(voxels);
  preprocessor->Box({0, 0, 0}, image.grid.size, image.values.data());
  image.counted.assign(voxels, 1);
  if (mask == nullptr) return image;
  std::vector<int32_t> labels(static_cast<size_t>(image.grid.size[0] * image.grid.size[1]));
  const Resampler resampler(*mask, image.grid, Interpolation::kNearest, 0);
  bool any = false;
  for (int64_t z = 0; z < image.grid.size[2]; ++z) {
    resampler.Labels(z, z + 1, labels.data());
    for (size_t i = 0; i < labels.size(); ++i) {
      image.counted[static_cast<size_t>(z) * labels.size() + i] = labels[i] != 0;
      any = any || labels[i] != 0;
    }
  }
  if (!any) {
    return Wrong(name + "_mask", absl::StrCat("it marks no voxel of the ", name,
                                              " volume; are both in the same space?"));
  }
  return image;
}

Vec3 CentreOfView(const Grid& grid) {
  Vec3 middle;
  for (int i = 0; i < 3; ++i) middle[i] = static_cast<double>(grid.size[i] - 1) / 2;
  return grid.IndexToPhysical(middle);
}

Vec3 CentreOfMass(const LevelImage& image) {
  const auto& size = image.grid.size;
  double sum = 0;
  Vec3 index = {0, 0, 0};
  for (int64_t i = 0; i < image.grid.voxel_count(); ++i) {
    if (image.counted[i] == 0) continue;
    const double mass = image.values[i];
    sum += mass;
    index[0] += mass * static_cast<double>(i % size[0]);
    index[1] += mass * static_cast<double>(i / size[0] % size[1]);
    index[2] += mass * static_cast<double>(i / (size[0] * size[1]));
  }
  if (!(sum > 0)) return CentreOfView(image.grid);
  for (double& value : index) value /= sum;
  return image.grid.IndexToPhysical(index);
}

double RadiusOf(const LevelImage& image, const Vec3& centre_mm) {
  const auto& size = image.grid.size;
  double sum = 0, count = 0;
  for (int64_t i = 0; i < image.grid.voxel_count(); ++i) {
    if (image.counted[i] == 0) continue;
    const Vec3 point = image.grid.IndexToPhysical({static_cast<double>(i % size[0]),
                                                   static_cast<double>(i / size[0] % size[1]),
                                                   static_cast<double>(i / (size[0] * size[1]))});
    for (int r = 0; r < 3; ++r) sum += (point[r] - centre_mm[r]) * (point[r] - centre_mm[r]);
    ++count;
  }
  return std::sqrt(std::max(1.0, sum / (3 * std::max(1.0, count))));
}

}  // namespace gvsl
