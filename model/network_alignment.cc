#include "model/network_alignment.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/network.h"
#include "model/registration_level.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

constexpr int64_t kUnetMultiple = 16;
constexpr int64_t kCropIfUnknown = 128;

at::Device DeviceOf(const GvslNetworkImpl& network) { return network.parameters()[0].device(); }

// The image in the middle of a box of zeros (floor before, ceil after), [1, 1, D, H, W].
Tensor InBox(const LevelImage& image, const std::array<int64_t, 3>& box, at::Device device) {
  const auto& size = image.grid.size;
  const Tensor values = torch::from_blob(const_cast<float*>(image.values.data()),
                                         {1, 1, size[2], size[1], size[0]}, torch::kFloat);
  std::vector<int64_t> padding;
  for (int i = 0; i < 3; ++i) {
    padding.push_back((box[i] - size[i]) / 2);
    padding.push_back(box[i] - size[i] - (box[i] - size[i]) / 2);
  }
  return torch::constant_pad_nd(values, padding, 0).to(device);
}

// The lattice of that box.
Grid BoxGrid(const Grid& grid, const std::array<int64_t, 3>& box) {
  Grid result = grid;
  Vec3 first;
  for (int i = 0; i < 3; ++i) first[i] = -static_cast<double>((box[i] - grid.size[i]) / 2);
  result.size = box;
  result.origin_mm = grid.IndexToPhysical(first);
  return result;
}

// Features [C, D, H, W] of the box, of the part that the image fills.
LevelImage FeaturesOf(const Tensor& dense, const LevelImage& image,
                      const std::array<int64_t, 3>& box) {
  Tensor part = dense;
  for (int i = 0; i < 3; ++i) {
    part = part.narrow(3 - i, (box[i] - image.grid.size[i]) / 2, image.grid.size[i]);
  }
  const auto channels = static_cast<double>(part.size(0));
  part = part.to(torch::kFloat);
  part = part / part.norm(2, {0}, true).clamp_min(1e-6) * (std::sqrt(channels) / 2);
  part = part.permute({1, 2, 3, 0}).contiguous().to(torch::kCPU);
  LevelImage features;
  features.grid = image.grid;
  features.channels = part.size(3);
  features.values.assign(part.data_ptr<float>(), part.data_ptr<float>() + part.numel());
  features.counted = image.counted;
  return features;
}

// The displacements of the box in LPS mm from `flow` [1, 3, D, H, W] in voxels (D, H, W).
DisplacementField FieldOf(const Tensor& flow, const Grid& box) {
  Tensor matrix = torch::zeros({3, 3});
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) matrix[r][2 - i] = box.direction[r][i] * box.spacing_mm[i];
  }
  const Tensor field = torch::matmul(matrix, flow[0].to(torch::kCPU, torch::kFloat).flatten(1));
  DisplacementField result;
  result.grid = box;
  result.values_mm.assign(field.data_ptr<float>(), field.data_ptr<float>() + field.numel());
  return result;
}

// The affine part in LPS mm. The network's matrix acts on the indices of its box, at the card's
// spacing.
AffineMap AffineOf(const Tensor& matrix, const ModelCard& card, const Grid& fixed_box,
                   const Grid& moving_box) {
  // The origin and one step along columns, rows and slices, as (z, y, x).
  const Tensor points =
      torch::tensor({0., 0., 0., 1., 0., 0., 1., 0., 0., 1., 0., 0.}, torch::kDouble)
          .view({1, 3, 1, 1, 4});
  const Tensor ends = TransformPoints(points, matrix.to(torch::kCPU, torch::kDouble),
                                      {fixed_box.size[2], fixed_box.size[1], fixed_box.size[0]},
                                      {card.spacing_mm[2], card.spacing_mm[1], card.spacing_mm[0]});
  const Tensor flat = ends.flatten(2);
  const auto at = flat.accessor<double, 3>();
  AffineMap index;
  for (int r = 0; r < 3; ++r) {
    index.translation_mm[r] = at[0][2 - r][0];
    for (int i = 0; i < 3; ++i) index.matrix[r][i] = at[0][2 - r][1 + i] - at[0][2 - r][0];
  }
  return Composed(IndexToPhysicalMap(moving_box), Composed(index, PhysicalToIndexMap(fixed_box)));
}

}  // namespace

double WholeFactor(const Volume& fixed, const Volume& moving, const ModelCard& card) {
  const double most = static_cast<double>(card.crop > 0 ? card.crop : kCropIfUnknown);
  double factor = 1;
  for (const Volume* volume : {&fixed, &moving}) {
    for (int i = 0; i < 3; ++i) {
      factor = std::max(factor, static_cast<double>(volume->grid().size[i]) *
                                    volume->grid().spacing_mm[i] / card.spacing_mm[i] / most);
    }
  }
  return factor;
}

absl::StatusOr<NetworkAnswer> AlignByNetwork(const RegistrationInput& input, const ModelCard& card,
                                             GvslNetworkImpl& network) {
  if (card.geometry != Geometry::kCorrected || !card.has_heads) {
    return absl::FailedPreconditionError(
        card.has_heads
            ? "the model's geometry is official: its heads interpolate twice and give no map; "
              "register without use_network, or with a model of corrected geometry"
            : "the model has no heads, which align; register without use_network");
  }
  const ModelCard coarser = Coarser(card, WholeFactor(*input.fixed, *input.moving, card));
  auto fixed = ReadLevel(*input.fixed, input.fixed_mask, coarser, "fixed");
  if (!fixed.ok()) return fixed.status();
  auto moving = ReadLevel(*input.moving, input.moving_mask, coarser, "moving");
  if (!moving.ok()) return moving.status();
  std::array<int64_t, 3> box;
  for (int i = 0; i < 3; ++i) {
    const int64_t side = std::max(fixed->grid.size[i], moving->grid.size[i]);
    box[i] = (side + kUnetMultiple - 1) / kUnetMultiple * kUnetMultiple;
  }
  NetworkAnswer answer;
  try {
    const torch::InferenceMode inference;
    const at::Device device = DeviceOf(network);
    const GvslOutput output =
        network.forward(InBox(*fixed, box, device), InBox(*moving, box, device));
    const Grid fixed_box = BoxGrid(fixed->grid, box), moving_box = BoxGrid(moving->grid, box);
    answer.fixed_to_moving.affine = AffineOf(output.affine, card, fixed_box, moving_box);
    answer.fixed_to_moving.displacement = FieldOf(output.flow, fixed_box);
    answer.fixed_features = FeaturesOf(output.fixed.dense[0], *fixed, box);
    answer.moving_features = FeaturesOf(output.moving.dense[0], *moving, box);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("the network failed: ", error.what()));
  }
  return answer;
}

absl::StatusOr<LevelImage> DenseFeatures(const LevelImage& image, GvslNetworkImpl& network) {
  try {
    const torch::InferenceMode inference;
    // The U-Net pads by itself, and crops.
    const UNetFeatures features =
        network.unet->forward(InBox(image, image.grid.size, DeviceOf(network)));
    return FeaturesOf(features.dense[0], image, image.grid.size);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("the network failed: ", error.what()));
  }
}

}  // namespace gvsl
