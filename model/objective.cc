#include "model/objective.h"

#include <ATen/autocast_mode.h>
#include <torch/version.h>

#include "model/augmentation.h"
#include "model/losses.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

enum Purpose : uint64_t { kSpatialA = 21, kSpatialB = 22, kDistortion = 23 };

// The old interface speaks of the GPU alone, the new one names a device type.
void SetAutocast(bool on) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
  at::autocast::set_autocast_enabled(at::kCUDA, on);
  at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
#else
  at::autocast::set_enabled(on);
  at::autocast::set_autocast_gpu_dtype(at::kBFloat16);
#endif
  if (!on) at::autocast::clear_cache();
}

// A batch's images on the device; from pinned memory the host goes on meanwhile.
Tensor OnDevice(const Tensor& images, at::Device device) {
  return images.to(device, images.scalar_type(), /*non_blocking=*/true);
}

bool MovesAnything(const AugmentationOptions& options) {
  return options.spatial_probability > 0 &&
         (options.rotation_deg > 0 || options.scale > 0 || options.translation > 0 ||
          options.shear_deg > 0 || options.elastic_voxels > 0);
}

// [N, 1, ...]: 1 where `points` [N or 1, 3, ...] (z, y, x) of sample n lie among the voxels of
// contents[n].
Tensor Inside(const Tensor& points, const std::vector<Content>& contents) {
  const int64_t samples = static_cast<int64_t>(contents.size());
  Tensor bounds = torch::empty({2, samples, 3}, torch::kFloat);
  for (int64_t n = 0; n < samples; ++n) {
    for (int64_t axis = 0; axis < 3; ++axis) {
      bounds[0][n][axis] = static_cast<float>(contents[n].begin[axis]);
      bounds[1][n][axis] = static_cast<float>(contents[n].end[axis] - 1);
    }
  }
  bounds = bounds.to(points.device()).view({2, samples, 3, 1, 1, 1});
  return (points >= bounds[0])
      .logical_and_(points <= bounds[1])
      .all(1, /*keepdim=*/true)
      .to(torch::kFloat);
}

}  // namespace

int64_t CropMargin(const TrainingOptions& options) {
  return MovesAnything(options.augmentation) ? options.crop / 8 : 0;
}

TrainingImages Unchanged(const PairBatch& batch, at::Device device) {
  TrainingImages images;
  images.a = images.distorted = OnDevice(batch.a, device);
  images.b = OnDevice(batch.b, device);
  const Tensor voxels = VoxelGrid(images.a.sizes().slice(2), images.a.options());
  images.a_inside = Inside(voxels, batch.a_content);
  images.b_inside = Inside(voxels, batch.b_content);
  return images;
}

TrainingImages Augment(const PairBatch& batch, const TrainingOptions& options,
                       const std::array<double, 3>& spacing_mm, at::Device device) {
  const torch::NoGradGuard no_grad;
  const AugmentationOptions& augmentation = options.augmentation;
  const uint64_t seed = options.optimization.seed, step = static_cast<uint64_t>(batch.step);
  const int64_t samples = batch.a.size(0), margin = CropMargin(options);
  std::vector<SpatialChange> changes_a, changes_b;
  std::vector<uint64_t> keys;
  for (int64_t i = 0; i < samples; ++i) {
    const uint64_t place = static_cast<uint64_t>(batch.first_sample + i);
    RandomStream for_a({seed, kSpatialA, step, place}), for_b({seed, kSpatialB, step, place});
    changes_a.push_back(DrawSpatialChange(augmentation, options.crop, for_a));
    changes_b.push_back(augmentation.same_for_both
                            ? changes_a.back()
                            : DrawSpatialChange(augmentation, options.crop, for_b));
    keys.push_back(RandomStream({seed, kDistortion, step, place}).Bits());
  }
  TrainingImages images;
  if (margin == 0) {
    images = Unchanged(batch, device);
  } else {
    const auto change = [&](const Tensor& source, const std::vector<Content>& contents,
                            const std::vector<SpatialChange>& changes, Tensor& inside) {
      const Tensor points = SpatialPoints(changes, options.crop, margin, spacing_mm, device);
      inside = Inside(points, contents);
      return SampleAt(OnDevice(source, device), points);
    };
    images.a = change(batch.a, batch.a_content, changes_a, images.a_inside);
    if (options.method.z_matching) {
      images.b = change(batch.b, batch.b_content, changes_b, images.b_inside);
    }
  }
  images.distorted = options.method.fundament ? Distort(images.a, augmentation, keys) : images.a;
  return images;
}

Tensor CommonInside(const TrainingImages& images, const Tensor& fixed_to_moving) {
  const torch::NoGradGuard no_grad;
  if (!fixed_to_moving.defined()) return images.a_inside * images.b_inside;
  // A sample that draws on padding at all is not of the volume.
  constexpr double kWhole = 0.999;
  return images.a_inside * (SampleAt(images.b_inside, fixed_to_moving.to(torch::kFloat)) > kWhole);
}

Tensor StackedLosses(const LossTensors& losses) {
  const auto value = [&](const Tensor& loss) {
    return loss.defined() ? loss.detach() : torch::zeros_like(losses.total);
  };
  return torch::stack({value(losses.total), value(losses.similarity), value(losses.smoothness),
                       value(losses.restoration)});
}

LossValues LossValuesOf(const Tensor& stacked) {
  const Tensor on_host = stacked.to(torch::kCPU, torch::kDouble);
  const double* v = on_host.data_ptr<double>();
  return {v[0], v[1], v[2], v[3]};
}

ObjectiveResult ComputeObjective(GvslNetwork& network, const TrainingImages& images,
                                 const TrainingOptions& options,
                                 const std::array<double, 3>& spacing_mm) {
  const MethodOptions& method = options.method;
  ObjectiveResult result;
  {
    const HalfPrecisionScope scope(options.optimization.half_precision, images.a.device());
    result.output = method.z_matching ? network->forward(images.distorted, images.b)
                                      : network->Restore(images.distorted);
  }
  LossTensors& losses = result.losses;
  losses.total = torch::zeros({}, images.a.options());
  if (method.z_matching) {
    losses.similarity = 1 - LocalCorrelation(result.output.warped, images.a, method.ncc_window,
                                             CommonInside(images, result.output.fixed_to_moving),
                                             method.signed_correlation ? Correlation::kSigned
                                                                       : Correlation::kSquared);
    losses.smoothness = FieldSmoothness(result.output.flow, spacing_mm);
    losses.total = losses.total + method.similarity_weight * losses.similarity +
                   method.smoothness_weight * losses.smoothness;
  }
  if (method.fundament) {
    losses.restoration = torch::mse_loss(result.output.restored.to(torch::kFloat), images.a);
    losses.total = losses.total + method.restoration_weight * losses.restoration;
  }
  return result;
}

HalfPrecisionScope::HalfPrecisionScope(bool wanted, at::Device device)
    : on_(wanted && device.is_cuda()) {
  if (on_) SetAutocast(true);
}

HalfPrecisionScope::~HalfPrecisionScope() {
  if (on_) SetAutocast(false);
}

}  // namespace gvsl
