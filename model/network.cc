#include "model/network.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/affine.h"
#include "model/trained_layers.h"
#include "model/warp.h"

namespace gvsl {
namespace {

namespace nn = torch::nn;
using torch::Tensor;

constexpr int64_t kChannelsPerGroup = 8;
constexpr int64_t kLargestDownscale = 16;
constexpr double kLeak = 0.2;

// Half precision is widened, anything else is as it is.
Tensor AtLeastFloat(const Tensor& x) {
  return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf ? x.to(at::kFloat) : x;
}

TrainedConvolution Convolution(int64_t in, int64_t out, int64_t side) {
  return TrainedConvolution(nn::Conv3dOptions(in, out, side).padding(side / 2));
}

TrainedGroupNorm Norm(int64_t groups, int64_t channels) {
  return TrainedGroupNorm(nn::GroupNormOptions(groups, channels));
}

nn::LeakyReLU Activation() {
  return nn::LeakyReLU(nn::LeakyReLUOptions().negative_slope(kLeak).inplace(true));
}

// Twice: convolution 3x3x3, group norm, leaky ReLU. The official name of its sequence is
// `double_conv`.
class DoubleConvImpl : public nn::Module {
 public:
  DoubleConvImpl(int64_t in, int64_t out) {
    const int64_t groups = std::max<int64_t>(1, out / kChannelsPerGroup);
    sequence_ = register_module(
        "double_conv", nn::Sequential(Convolution(in, out, 3), Norm(groups, out), Activation(),
                                      Convolution(out, out, 3), Norm(groups, out), Activation()));
  }
  Tensor forward(const Tensor& x) { return sequence_->forward(x); }

 private:
  nn::Sequential sequence_{nullptr};
};
TORCH_MODULE(DoubleConv);

class DownImpl : public nn::Module {
 public:
  DownImpl(int64_t in, int64_t out) {
    sequence_ = register_module(
        "maxpool_conv",
        nn::Sequential(nn::MaxPool3d(nn::MaxPool3dOptions(2)), DoubleConv(in, out)));
  }
  Tensor forward(const Tensor& x) { return sequence_->forward(x); }

 private:
  nn::Sequential sequence_{nullptr};
};
TORCH_MODULE(Down);

// Doubles `low`, joins it behind `skip`, and convolves.
class UpImpl : public nn::Module {
 public:
  UpImpl(int64_t skip, int64_t low) {
    conv_ = register_module("conv", DoubleConv(skip + low, skip));
  }
  Tensor forward(const Tensor& skip, const Tensor& low) {
    return conv_->forward(torch::cat({skip, Doubled(low)}, 1));
  }

 private:
  DoubleConv conv_{nullptr};
};
TORCH_MODULE(Up);

}  // namespace

// Of the affine head's values in the corrected geometry. A unit of the translation is then 1 mm and
// one of the other twelve up to 2 degrees or 2.5 %, which moves voxels at 3 to 5 cm from the centre
// by about as much. An optimiser's first steps change a value, the sum of 64 products, by 64 times
// what they change a weight by; with greater units they would throw B about.
constexpr double kAffineUnit = 0.1;

// Of the difference of embeddings, which is about 0.06 for two volumes of an untrained network.
constexpr double kEmbeddingGain = 10;

struct UNetImpl::Blocks {
  DoubleConv inc{nullptr};
  std::array<Down, 4> down{Down{nullptr}, Down{nullptr}, Down{nullptr}, Down{nullptr}};
  std::array<Up, 4> up{Up{nullptr}, Up{nullptr}, Up{nullptr}, Up{nullptr}};
};

UNetImpl::UNetImpl(const std::array<int64_t, 5>& widths) : blocks_(std::make_shared<Blocks>()) {
  blocks_->inc = register_module("inc", DoubleConv(1, widths[0]));
  for (int level = 0; level < 4; ++level) {
    blocks_->down[level] =
        register_module(absl::StrCat("down", level + 1), Down(widths[level], widths[level + 1]));
  }
  for (int step = 0; step < 4; ++step) {
    blocks_->up[step] =
        register_module(absl::StrCat("up", step + 1), Up(widths[3 - step], widths[4 - step]));
  }
}

UNetFeatures UNetImpl::forward(const Tensor& image) {
  std::array<int64_t, 3> before{};
  std::vector<int64_t> padding;  // innermost axis first, as constant_pad_nd wants it
  for (int axis = 2; axis >= 0; --axis) {
    const int64_t missing =
        (kLargestDownscale - image.size(axis + 2) % kLargestDownscale) % kLargestDownscale;
    before[axis] = missing / 2;
    padding.push_back(before[axis]);
    padding.push_back(missing - before[axis]);
  }
  const std::array<Tensor, 5> levels = Levels(torch::constant_pad_nd(image, padding, 0));
  Tensor dense = levels[4];
  for (int axis = 0; axis < 3; ++axis) {
    dense = dense.narrow(axis + 2, before[axis], image.size(axis + 2));
  }
  return {dense, levels[0]};
}

std::array<Tensor, 5> UNetImpl::Levels(const Tensor& image) {
  std::array<Tensor, 5> encoded, decoded;
  encoded[0] = blocks_->inc->forward(image);
  for (int level = 0; level < 4; ++level) {
    encoded[level + 1] = blocks_->down[level]->forward(encoded[level]);
  }
  decoded[0] = encoded[4];
  for (int step = 0; step < 4; ++step) {
    decoded[step + 1] = blocks_->up[step]->forward(encoded[3 - step], decoded[step]);
  }
  return decoded;
}

struct GvslNetworkImpl::Heads {
  DoubleConv f_conv{nullptr}, sp_conv{nullptr};
  nn::Sequential res_conv{nullptr};
  ExactConvolution out_flow{nullptr};
  nn::Linear fc_rot{nullptr}, fc_scl{nullptr}, fc_trans{nullptr}, fc_shear{nullptr};
};

GvslNetworkImpl::GvslNetworkImpl(const ModelCard& card)
    : heads_(std::make_shared<Heads>()),
      geometry_(card.geometry),
      spacing_mm_{card.spacing_mm[2], card.spacing_mm[1], card.spacing_mm[0]} {
  const int64_t dense = card.dense_channels(), global = card.global_channels();
  const int64_t embedding = global / 2, hidden = HeadWidth(dense);
  Heads& heads = *heads_;
  unet = register_module("unet", UNet(card.widths));
  heads.f_conv = register_module("f_conv", DoubleConv(2 * global, embedding));
  heads.sp_conv = register_module("sp_conv", DoubleConv(2 * dense, hidden));
  heads.res_conv =
      register_module("res_conv", nn::Sequential(Convolution(dense, hidden, 3), Norm(4, hidden),
                                                 Activation(), Convolution(hidden, 1, 1)));
  heads.out_flow =
      register_module("out_flow", ExactConvolution(nn::Conv3dOptions(hidden, 3, 3).padding(1)));
  heads.fc_rot = register_module("fc_rot", nn::Linear(embedding, 3));
  heads.fc_scl = register_module("fc_scl", nn::Linear(embedding, 3));
  heads.fc_trans = register_module("fc_trans", nn::Linear(embedding, 3));
  heads.fc_shear = register_module("fc_shear", nn::Linear(embedding, 6));
}

GvslOutput GvslNetworkImpl::forward(const Tensor& a, const Tensor& b) {
  GvslOutput output;
  // One pass over both: every layer treats the members of a batch separately.
  const UNetFeatures both = unet->forward(torch::cat({a, b}));
  const int64_t pairs = a.size(0);
  output.fixed = {both.dense.narrow(0, 0, pairs), both.global.narrow(0, 0, pairs)};
  output.moving = {both.dense.narrow(0, pairs, pairs), both.global.narrow(0, pairs, pairs)};
  if (affine_head_) {
    PredictAffine(output);
  } else {
    output.affine = torch::eye(3, 4, b.options()).expand({pairs, 3, 4});
  }
  if (geometry_ == Geometry::kOfficial) {
    ForwardOfficial(b, output);
  } else {
    ForwardCorrected(b, output);
  }
  output.restored = heads_->res_conv->forward(output.fixed.dense);
  return output;
}

GvslOutput GvslNetworkImpl::Restore(const Tensor& a) {
  GvslOutput output;
  output.fixed = unet->forward(a);
  output.restored = heads_->res_conv->forward(output.fixed.dense);
  return output;
}

void GvslNetworkImpl::PredictAffine(GvslOutput& output) {
  Heads& heads = *heads_;
  const Tensor &moving = output.moving.global, &fixed = output.fixed.global;
  const auto embedding = [&](const Tensor& pairs) {
    return heads.f_conv->forward(pairs).mean({2, 3, 4});
  };
  const Tensor pairs = torch::cat({moving, fixed}, 1);
  if (geometry_ == Geometry::kCorrected) {
    // Less that of the pair turned round: what all volumes have in common cancels. It is most of
    // the embedding, and is learnt a hundred times faster than what tells pairs apart.
    const auto both = embedding(torch::cat({pairs, torch::cat({fixed, moving}, 1)})).chunk(2);
    output.embedding = kEmbeddingGain * (both[0] - both[1]);
  } else {
    output.embedding = embedding(pairs);
  }
  // The matrix and all points are float32, whatever the network computes in.
  const c10::impl::ExcludeDispatchKeyGuard exact(c10::DispatchKey::AutocastCUDA);
  output.embedding = AtLeastFloat(output.embedding);
  output.rotation = heads.fc_rot->forward(output.embedding);
  output.scale = heads.fc_scl->forward(output.embedding);
  output.translation = heads.fc_trans->forward(output.embedding);
  output.shear = heads.fc_shear->forward(output.embedding);
  if (geometry_ == Geometry::kCorrected) {
    // A value that AffineMatrix clamps has no gradient and would never come back.
    for (Tensor* value : {&output.rotation, &output.scale, &output.shear}) {
      *value = torch::tanh(*value * kAffineUnit);
    }
  }
  output.affine = AffineMatrix(output.rotation, output.scale, output.translation, output.shear);
  if (detach_affine_) output.affine = output.affine.detach();
}

// Two interpolations of the image, as the released code has it.
void GvslNetworkImpl::ForwardOfficial(const Tensor& moving, GvslOutput& output) {
  output.moving_affine = OfficialAffineWarp(moving, output.affine);
  output.moving_dense_affine = OfficialAffineWarp(output.moving.dense, output.affine);
  output.flow = PredictFlow(output);
  output.warped = OfficialFlowWarp(output.moving_affine, output.flow);
}

// One composed map: x of the fixed volume is read at affine(x + flow(x)) of the moving one.
void GvslNetworkImpl::ForwardCorrected(const Tensor& moving, GvslOutput& output) {
  const at::IntArrayRef size = moving.sizes().slice(2);
  const Tensor grid = VoxelGrid(size, moving.options());
  const Tensor affine_points = TransformPoints(grid, output.affine, size, spacing_mm_);
  output.moving_affine = SampleAt(moving, affine_points);
  output.moving_dense_affine = SampleAt(output.moving.dense, affine_points);
  output.flow = PredictFlow(output);
  output.fixed_to_moving = TransformPoints(grid + output.flow, output.affine, size, spacing_mm_);
  output.warped = SampleAt(moving, output.fixed_to_moving);
}

Tensor GvslNetworkImpl::PredictFlow(const GvslOutput& output) {
  const Tensor both = torch::cat({output.moving_dense_affine, output.fixed.dense}, 1);
  // The last one exact: in half precision a displacement of 4 voxels comes in steps of 1/64.
  return heads_->out_flow->forward(heads_->sp_conv->forward(both));
}

absl::Status GvslNetworkImpl::LoadState(const StateDict& state) {
  const auto parameters = named_parameters();
  if (state.size() != parameters.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the network has ", parameters.size(), " tensors, the state ", state.size()));
  }
  for (size_t i = 0; i < state.size(); ++i) {
    const auto& parameter = parameters[i];
    const auto& [name, value] = state[i];
    if (name != parameter.key() || value.sizes() != parameter.value().sizes()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", i, " of the state is ", name,
                                                     ", where the network has ", parameter.key(),
                                                     ", or differs from it in shape"));
    }
  }
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < state.size(); ++i) parameters[i].value().copy_(state[i].second);
  return absl::OkStatus();
}

StateDict GvslNetworkImpl::State() const {
  StateDict state;
  for (const auto& parameter : named_parameters()) {
    state.emplace_back(parameter.key(), parameter.value().detach());
  }
  return state;
}

}  // namespace gvsl
