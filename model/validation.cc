#include "model/validation.h"

#include <torch/torch.h>

#include "model/augmentation.h"
#include "model/losses.h"
#include "model/objective.h"

namespace gvsl {
namespace {

using torch::Tensor;

constexpr uint64_t kValidationSeed = 0x76616C6964;

TrainingImages FixedPair(const VolumeSet& volumes, const TrainingOptions& options, int64_t number,
                         at::Device device) {
  PairLoaderOptions drawing;
  drawing.crop = options.crop;
  drawing.seed = kValidationSeed;
  drawing.batch_size = options.upkeep.validation_pairs;
  const Tensor images = torch::empty({1, 1, options.crop, options.crop, options.crop});
  PairBatch batch = WholeBatch(images, torch::empty_like(images));
  ReadPair(volumes, DrawPair(volumes, drawing, 0, number), 0, 0, batch);
  return Unchanged(batch, device);
}

Tensor Distorted(const TrainingImages& images, const TrainingOptions& options, int64_t number) {
  return Distort(images.a, options.augmentation, {kValidationSeed + static_cast<uint64_t>(number)});
}

std::vector<float> CentralSlice(const Tensor& image) {
  const Tensor slice =
      image[0][0][image.size(2) / 2].detach().to(torch::kCPU, torch::kFloat).contiguous();
  return std::vector<float>(slice.data_ptr<float>(), slice.data_ptr<float>() + slice.numel());
}

}  // namespace

ValidationReport Validate(GvslNetwork& network, const VolumeSet& volumes,
                          const TrainingOptions& options, const std::array<double, 3>& spacing_mm,
                          at::Device device) {
  const torch::NoGradGuard no_grad;
  TrainingOptions alignment = options, restoration = options;
  alignment.method.fundament = false;
  restoration.method.z_matching = false;
  ValidationReport report;
  Tensor sum = torch::zeros({4}, at::TensorOptions(device).dtype(torch::kFloat));
  for (int64_t pair = 0; pair < options.upkeep.validation_pairs; ++pair) {
    TrainingImages images = FixedPair(volumes, options, pair, device);
    LossTensors losses;
    if (options.method.z_matching) {
      const ObjectiveResult aligned = ComputeObjective(network, images, alignment, spacing_mm);
      losses = aligned.losses;
      const auto correlation = [&](const Tensor& b, const Tensor& fixed_to_moving) {
        return LocalCorrelation(b, images.a, options.method.ncc_window,
                                CommonInside(images, fixed_to_moving))
            .item<double>();
      };
      report.ncc_before += correlation(images.b, {});
      report.ncc_after += correlation(aligned.output.warped, aligned.output.fixed_to_moving);
      report.folding_percent += FoldingPercent(aligned.output.flow);
    }
    if (options.method.fundament) {
      images.distorted = Distorted(images, options, pair);
      const LossTensors restored =
          ComputeObjective(network, images, restoration, spacing_mm).losses;
      losses.restoration = restored.restoration;
      losses.total = losses.total.defined() ? losses.total + restored.total : restored.total;
    }
    sum += StackedLosses(losses);
  }
  const double pairs = static_cast<double>(options.upkeep.validation_pairs);
  report.losses = LossValuesOf(sum / pairs);
  report.ncc_before /= pairs;
  report.ncc_after /= pairs;
  report.folding_percent /= pairs;
  return report;
}

PictureReport MakePicture(GvslNetwork& network, const VolumeSet& volumes,
                          const TrainingOptions& options, const std::array<double, 3>& spacing_mm,
                          at::Device device) {
  const torch::NoGradGuard no_grad;
  TrainingImages images = FixedPair(volumes, options, 0, device);
  if (options.method.fundament) images.distorted = Distorted(images, options, 0);
  const GvslOutput output = ComputeObjective(network, images, options, spacing_mm).output;
  PictureReport report;
  report.rows = report.columns = options.crop;
  report.a = CentralSlice(images.a);
  if (options.method.fundament) {
    report.distorted = CentralSlice(images.distorted);
    report.restored = CentralSlice(output.restored);
  }
  if (options.method.z_matching) {
    report.b = CentralSlice(images.b);
    report.warped = CentralSlice(output.warped);
    const Tensor spacing = torch::tensor({spacing_mm[0], spacing_mm[1], spacing_mm[2]})
                               .to(output.flow.options())
                               .view({1, 3, 1, 1, 1});
    report.displacement = CentralSlice((output.flow * spacing).norm(2, {1}, true));
  }
  return report;
}

}  // namespace gvsl
