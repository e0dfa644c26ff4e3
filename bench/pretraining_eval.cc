// gvsl_pretraining_eval: what pre-training has brought, on labelled volumes that it has not seen.
// Label Dice of volume pairs before and after alignment by the network's heads, and of a linear
// probe on its frozen dense features.
#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "imaging/image_file.h"
#include "imaging/orientation.h"
#include "imaging/resample.h"
#include "model/extractor.h"
#include "model/losses.h"
#include "model/network.h"
#include "model/preprocessor.h"
#include "model/state.h"
#include "model/warp.h"

namespace {

using torch::Tensor;

constexpr char kUsage[] =
    "usage: gvsl_pretraining_eval MODEL.safetensors DATA [--probe_volumes N] [--untrained SEED]\n"
    "  DATA             folder with registration_pairs.json and volumes/hippocampus_mr\n"
    "  --probe_volumes  labelled training volumes of the linear probe (default 20)\n"
    "  --untrained      the model's network with seeded random weights instead of its own\n";

struct Case {
  Tensor image;   // [1, 1, D, H, W] in [0, 1]
  Tensor inside;  // of the same size: 1 in the volume, 0 in the padding around it
  Tensor labels;  // [D, H, W] int64
};

// The volume in the middle of a larger box of zeros, as a training crop shows it.
Tensor Centred(const Tensor& volume, const std::vector<int64_t>& size) {
  std::vector<int64_t> padding;  // innermost axis first
  for (int64_t axis = 2; axis >= 0; --axis) {
    const int64_t missing = size[static_cast<size_t>(axis)] - volume.size(axis - 3);
    padding.push_back(missing / 2);
    padding.push_back(missing - missing / 2);
  }
  return torch::constant_pad_nd(volume, padding, 0);
}

Case Centred(const Case& c, const std::vector<int64_t>& size) {
  return {Centred(c.image, size), Centred(c.inside, size), Centred(c.labels, size)};
}

// The smallest box of multiples of 16 that holds both.
std::vector<int64_t> Box(const Case& a, const Case& b) {
  std::vector<int64_t> box;
  for (int64_t axis = 0; axis < 3; ++axis) {
    box.push_back((std::max(a.labels.size(axis), b.labels.size(axis)) + 15) / 16 * 16);
  }
  return box;
}

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "gvsl_pretraining_eval: %s\n", message.c_str());
  std::exit(1);
}

template <typename T>
T Checked(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(std::string(value.status().message()));
  return *std::move(value);
}

Case ReadCase(const std::string& folder, int id, const gvsl::ModelCard& card) {
  char name[64];
  std::snprintf(name, sizeof(name), "/hippocampus_%03d.nii.gz", id);
  gvsl::Volume image = Checked(gvsl::ReadVolume(folder + "/images" + name));
  gvsl::ReadOptions as_labels;
  as_labels.kind = gvsl::VolumeKind::kLabels;
  gvsl::Volume labels = Checked(gvsl::ReadVolume(folder + "/labels" + name, as_labels));
  image.set_modality("MR");
  const auto preprocessor = Checked(gvsl::Preprocessor::Make(image, card));
  const gvsl::Grid& grid = preprocessor.grid();
  Case result;
  result.image = torch::zeros({1, 1, grid.size[2], grid.size[1], grid.size[0]});
  preprocessor.Box({0, 0, 0}, grid.size, result.image.data_ptr<float>());
  result.inside = torch::ones_like(result.image);
  const gvsl::Volume moved =
      Checked(gvsl::Resample(labels, grid, gvsl::Interpolation::kNearest, labels.type()));
  result.labels = torch::zeros({grid.size[2], grid.size[1], grid.size[0]}, torch::kLong);
  gvsl::VisitVoxelType(moved.type(), [&](auto zero) {
    using T = decltype(zero);
    std::copy_n(moved.voxels<T>(), moved.voxel_count(), result.labels.data_ptr<int64_t>());
  });
  return result;
}

double Dice(const Tensor& a, const Tensor& b, int64_t label) {
  const Tensor x = a == label, y = b == label;
  const double both = x.logical_and(y).sum().item<double>();
  return 2 * both / std::max(1.0, x.sum().item<double>() + y.sum().item<double>());
}

// Labels 1 and 2, then what else is told of a pair.
struct Mean {
  std::array<double, 4> sum{};
  int64_t count = 0;
  void Add(const std::array<double, 4>& values) {
    for (int i = 0; i < 4; ++i) sum[i] += values[i];
    ++count;
  }
  double operator[](int i) const { return sum[i] / static_cast<double>(count); }
};

Tensor Dense(gvsl::GvslNetwork& network, const Case& c) {
  return network->unet->forward(c.image).dense[0];  // [C, D, H, W]
}

// [N, C] of all voxels of the volume, and their labels.
std::pair<Tensor, Tensor> VoxelsOf(gvsl::GvslNetwork& network, const Case& c) {
  const Case centred = Centred(c, Box(c, c));
  const Tensor inside = centred.inside.flatten().nonzero().flatten();
  return {Dense(network, centred).flatten(1).t().index_select(0, inside),
          centred.labels.flatten().index_select(0, inside)};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> places;
  int64_t probe_volumes = 20, untrained = -1;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--probe_volumes" && i + 1 < argc) {
      probe_volumes = std::atoll(argv[++i]);
    } else if (word == "--untrained" && i + 1 < argc) {
      untrained = std::atoll(argv[++i]);
    } else {
      places.push_back(word);
    }
  }
  if (places.size() != 2) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (!gvsl::InitializeLibTorch({"cpu", 0}).ok()) return 1;
  gvsl::LoadedModel model = Checked(gvsl::LoadModel(places[0]));
  if (untrained >= 0) {
    model.state = gvsl::InitialState(model.card.widths, static_cast<uint64_t>(untrained));
  }
  gvsl::GvslNetwork network(model.card);
  if (!network->LoadState(model.state).ok()) Fail("the weights do not fit");
  const torch::NoGradGuard no_grad;
  const std::string volumes = places[1] + "/volumes/hippocampus_mr";

  std::ifstream pairs_file(places[1] + "/registration_pairs.json");
  const auto pairs =
      nlohmann::json::parse(pairs_file, nullptr, false)["hippocampus_inter_subject"]["pairs"];
  std::map<int, Case> cases;
  const auto get = [&](int id) -> const Case& {
    auto found = cases.find(id);
    if (found == cases.end()) found = cases.emplace(id, ReadCase(volumes, id, model.card)).first;
    return found->second;
  };
  Mean before, affine, after;
  for (const auto& pair : pairs) {
    const Case &first = get(pair["fixed_id"]), &second = get(pair["moving_id"]);
    const std::vector<int64_t> box = Box(first, second);
    const Case fixed = Centred(first, box), moving = Centred(second, box);
    const gvsl::GvslOutput output = network->forward(fixed.image, moving.image);
    const at::IntArrayRef size = fixed.labels.sizes();
    const Tensor one_hot = torch::one_hot(moving.labels, 3).permute({3, 0, 1, 2}).unsqueeze(0);
    const auto carried = [&](const Tensor& points) {
      return gvsl::SampleAt(one_hot.to(torch::kFloat), points)[0].argmax(0);
    };
    const Tensor grid = gvsl::VoxelGrid(size, fixed.image.options());
    const Tensor affine_points = gvsl::TransformPoints(grid, output.affine, size);
    const Tensor by_affine = carried(affine_points);
    const Tensor by_both = carried(output.fixed_to_moving);
    // Over what both volumes show, as in training.
    const auto ncc = [&](const Tensor& points) {
      const Tensor inside = fixed.inside * (gvsl::SampleAt(moving.inside, points) > 0.999);
      const Tensor image = gvsl::SampleAt(moving.image, points);
      return gvsl::LocalCorrelation(image, fixed.image, 9, inside).item<double>();
    };
    before.Add(
        {Dice(fixed.labels, moving.labels, 1), Dice(fixed.labels, moving.labels, 2), ncc(grid), 0});
    affine.Add({Dice(fixed.labels, by_affine, 1), Dice(fixed.labels, by_affine, 2),
                ncc(affine_points), 0});
    after.Add({Dice(fixed.labels, by_both, 1), Dice(fixed.labels, by_both, 2),
               ncc(output.fixed_to_moving), gvsl::FoldingPercent(output.flow)});
  }
  std::printf(
      "| %zu pairs | Dice label 1 | label 2 | local NCC | folding %% |\n|---|---|---|---|---|\n",
      pairs.size());
  std::printf("| before | %.4f | %.4f | %.4f | |\n", before[0], before[1], before[2]);
  std::printf("| affine | %.4f | %.4f | %.4f | |\n", affine[0], affine[1], affine[2]);
  std::printf("| affine and deformable | %.4f | %.4f | %.4f | %.4f |\n", after[0], after[1],
              after[2], after[3]);

  // The probe: one 1x1x1 convolution and softmax on the frozen, standardised features.
  std::vector<int> training, validation;
  std::ifstream table(volumes + "/cases.csv");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::stringstream fields(line);
    std::string id, group, split;
    std::getline(fields, id, ',');
    std::getline(fields, group, ',');
    std::getline(fields, split, ',');
    (split == "train" ? training : validation).push_back(std::stoi(id));
  }
  if (static_cast<int64_t>(training.size()) > probe_volumes) {
    training.resize(static_cast<size_t>(probe_volumes));
  }
  std::vector<Tensor> features, labels;
  for (int id : training) {
    auto [x, y] = VoxelsOf(network, get(id));
    features.push_back(x);
    labels.push_back(y);
  }
  Tensor x = torch::cat(features);
  const Tensor y = torch::cat(labels);
  const Tensor mean = x.mean(0), deviation = x.std(0) + 1e-6;
  x = (x - mean) / deviation;
  torch::manual_seed(0);
  torch::nn::Linear probe(x.size(1), 3);
  {
    const torch::AutoGradMode with_grad(true);
    torch::optim::Adam optimizer(probe->parameters(), torch::optim::AdamOptions(0.05));
    const Tensor target = torch::one_hot(y, 3).to(torch::kFloat);
    // Most voxels are background: cross-entropy with all classes of equal weight leads in, soft
    // Dice, which is what is measured, decides.
    const Tensor balance = target.sum(0).reciprocal() * (static_cast<double>(y.numel()) / 3);
    const auto balanced = torch::nn::functional::CrossEntropyFuncOptions().weight(balance);
    constexpr int kSteps = 400, kLeadIn = 200;
    for (int step = 0; step < kSteps; ++step) {
      const Tensor logits = probe->forward(x);
      const Tensor share = logits.softmax(1);
      const Tensor dice = 1 - (2 * (share * target).sum(0) / (share.sum(0) + target.sum(0)));
      Tensor loss = dice.slice(0, 1, 3).mean();
      if (step < kLeadIn) {
        loss = loss + (1 - static_cast<double>(step) / kLeadIn) *
                          torch::nn::functional::cross_entropy(logits, y, balanced);
      }
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
    }
  }
  Mean probed;
  for (int id : validation) {
    const auto [features_of, labels_of] = VoxelsOf(network, get(id));
    const Tensor predicted = probe->forward((features_of - mean) / deviation).argmax(1);
    probed.Add({Dice(predicted, labels_of, 1), Dice(predicted, labels_of, 2), 0, 0});
  }
  std::printf(
      "\nlinear probe on %zu volumes, %zu validation volumes: Dice label 1 %.4f, label 2 %.4f\n",
      training.size(), validation.size(), probed[0], probed[1]);
  return 0;
}
