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

bool MovesAnything(const AugmentationOptions& options) {
  return options.spatial_probability > 0 &&
         (options.rotation_deg > 0 || options.scale > 0 || options.translation > 0 ||
          options.shear_deg > 0 || options.elastic_voxels > 0);
}

}  // namespace

int64_t CropMargin(const TrainingOptions& options) {
  return MovesAnything(options.augmentation) ? options.crop / 8 : 0;
}

TrainingImages Augment(const PairBatch& batch, const TrainingOptions& options, at::Device device) {
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
  const auto change = [&](const Tensor& source, const std::vector<SpatialChange>& changes) {
    const Tensor image = source.to(device);
    if (margin == 0) return image;
    return SampleAt(image, SpatialPoints(changes, options.crop, margin, device));
  };
  TrainingImages images;
  images.a = change(batch.a, changes_a);
  if (options.method.z_matching) images.b = change(batch.b, changes_b);
  images.distorted = options.method.fundament ? Distort(images.a, augmentation, keys) : images.a;
  return images;
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
    losses.similarity = 1 - LocalCorrelation(result.output.warped, images.a, method.ncc_window);
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
