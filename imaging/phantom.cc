#include "imaging/phantom.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "imaging/parallel.h"
#include "imaging/phantom_anatomy.h"
#include "imaging/phantom_random.h"
#include "imaging/phantom_shape.h"

namespace gvsl {
namespace {

constexpr uint64_t kContrastPurpose = 16;
constexpr uint64_t kNoisePurpose = 17;
constexpr double kMaxShapeVariation = 3;
constexpr double kMaxNoiseHu = 500;

// A contrast-enhanced CT as practice gives it: the left heart bright, the right heart anywhere
// between washed out and bright, the rest as tissue is.
PhantomContrast ContrastOf(uint64_t patient) {
  PhantomRandom random(patient, kContrastPurpose);
  PhantomContrast contrast;
  contrast.left_blood = random.Between(280, 480);
  contrast.aorta = contrast.left_blood + random.Between(-25, 25);
  contrast.right_blood = random.Between(160, 400);
  contrast.pulmonary_artery = contrast.right_blood + random.Between(-30, 30);
  contrast.myocardium = random.Between(80, 125);
  contrast.muscle = random.Between(45, 65);
  contrast.liver = random.Between(75, 115);
  contrast.fat = random.Between(-115, -85);
  contrast.lung = random.Between(-890, -800);
  contrast.spongy_bone = random.Between(150, 260);
  contrast.cortical_bone = random.Between(550, 850);
  return contrast;
}

// The grid is centred on the patient's origin, its axes along L, P and S.
Grid CentredGrid(const PhantomOptions& options) {
  Grid grid;
  grid.size = options.size;
  grid.spacing_mm = options.spacing_mm;
  for (int axis = 0; axis < 3; ++axis) {
    grid.origin_mm[axis] =
        -0.5 * static_cast<double>(options.size[axis] - 1) * options.spacing_mm[axis];
  }
  return grid;
}

absl::Status ValidateOptions(const PhantomOptions& options) {
  // Comparisons written so that NaN fails them.
  if (!(options.shape_variation >= 0 && options.shape_variation <= kMaxShapeVariation)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shape_variation: must be 0..", kMaxShapeVariation, ", not ", options.shape_variation));
  }
  if (!(options.noise_hu >= 0 && options.noise_hu <= kMaxNoiseHu)) {
    return absl::InvalidArgumentError(
        absl::StrCat("noise_hu: must be 0..", kMaxNoiseHu, ", not ", options.noise_hu));
  }
  return absl::OkStatus();
}

// The shape last asked for.
class CachedShape {
 public:
  const PhantomShape& For(const PhantomOptions& options) {
    if (!shape_ || options.patient != patient_ || options.shape_variation != variation_ ||
        options.vary_pose != vary_pose_) {
      shape_.emplace(options.patient, options.shape_variation, options.vary_pose);
      patient_ = options.patient;
      variation_ = options.shape_variation;
      vary_pose_ = options.vary_pose;
    }
    return *shape_;
  }

 private:
  std::optional<PhantomShape> shape_;
  uint64_t patient_ = 0;
  double variation_ = 0;
  bool vary_pose_ = false;
};

}  // namespace

absl::StatusOr<Phantom> MakePhantom(const PhantomOptions& options) {
  if (absl::Status status = ValidateOptions(options); !status.ok()) return status;
  const Grid grid = CentredGrid(options);
  if (absl::Status status = ValidateGrid(grid); !status.ok()) return status;
  absl::StatusOr<Volume> image = Volume::Allocate(grid, VoxelType::kInt16, VolumeKind::kImage);
  if (!image.ok()) return image.status();
  absl::StatusOr<Volume> labels = Volume::Allocate(grid, VoxelType::kUint8, VolumeKind::kLabels);
  if (!labels.ok()) return labels.status();
  image->set_modality("CT");

  const PhantomShape shape(options.patient, options.shape_variation, options.vary_pose);
  const PhantomContrast contrast = ContrastOf(options.patient);
  const PhantomAnatomy& anatomy = PhantomAnatomy::Mean();
  const PhantomRandom noise(options.patient, kNoisePurpose);
  int16_t* const hu = image->mutable_voxels<int16_t>();
  uint8_t* const label = labels->mutable_voxels<uint8_t>();
  const int64_t rows = grid.size[1];
  const int64_t columns = grid.size[0];
  // Each voxel depends on its index alone, so threads and their number change nothing.
  ParallelFor(grid.size[2] * rows, /*threads=*/0, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t slice = row / rows;
      const int64_t row_of_slice = row % rows;
      for (int64_t column = 0; column < columns; ++column) {
        // Written out, though Grid has it: these files alone are compiled without fused
        // multiply-add.
        const Vec3 point_mm = {
            grid.origin_mm[0] + grid.spacing_mm[0] * static_cast<double>(column),
            grid.origin_mm[1] + grid.spacing_mm[1] * static_cast<double>(row_of_slice),
            grid.origin_mm[2] + grid.spacing_mm[2] * static_cast<double>(slice)};
        const PhantomTissue tissue = anatomy.At(shape.ToMean(point_mm), contrast);
        const int64_t voxel = row * columns + column;
        const double value =
            tissue.hu + options.noise_hu * noise.NearNormal(static_cast<uint64_t>(voxel));
        // A scanner's range: nothing below its -1024.
        hu[voxel] = static_cast<int16_t>(std::floor(std::clamp(value, -1024.0, 3071.0) + 0.5));
        label[voxel] = static_cast<uint8_t>(tissue.label);
      }
    }
  });
  return Phantom{*std::move(image), *std::move(labels)};
}

Vec3 MapBetweenPhantoms(const PhantomOptions& from, const PhantomOptions& to,
                        const Vec3& point_mm) {
  // Callers map thousands of points between the same two patients; a shape costs 20,000 random
  // numbers.
  thread_local CachedShape from_shape;
  thread_local CachedShape to_shape;
  return to_shape.For(to).FromMean(from_shape.For(from).ToMean(point_mm));
}

}  // namespace gvsl
