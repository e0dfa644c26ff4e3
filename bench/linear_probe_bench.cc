// gvsl_linear_probe_bench: what a network's frozen features tell of labels. One 1x1x1 convolution
// and softmax on the decoder's finest levels, trained on labelled training volumes; its Dice on
// validation volumes.
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "imaging/image_file.h"
#include "imaging/resample.h"
#include "model/extractor.h"
#include "model/network.h"
#include "model/preprocessor.h"
#include "model/state.h"

namespace {

using torch::Tensor;

constexpr char kUsage[] =
    "usage: gvsl_linear_probe_bench MODEL.safetensors DATA [--levels N] [--volumes N] [--untrained "
    "SEED]\n"
    "  DATA         folder with volumes/hippocampus_mr\n"
    "  --levels     finest levels of the decoder, 1 (the dense features alone) to 4 (default 2)\n"
    "  --volumes    labelled training volumes (default 20)\n"
    "  --untrained  the model's network with seeded random weights instead of its own\n";

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "gvsl_linear_probe_bench: %s\n", message.c_str());
  std::exit(1);
}

template <typename T>
T Checked(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(std::string(value.status().message()));
  return *std::move(value);
}

// One volume's voxels at the card's spacing.
struct Case {
  Tensor features;  // [N, C] float32
  Tensor labels;    // [N] int64, of the nearest voxel
};

Case ReadCase(const std::string& folder, int id, const gvsl::ModelCard& card, int64_t levels,
              gvsl::GvslNetwork& network) {
  char name[64];
  std::snprintf(name, sizeof(name), "/hippocampus_%03d.nii.gz", id);
  gvsl::Volume image = Checked(gvsl::ReadVolume(folder + "/images" + name));
  gvsl::ReadOptions as_labels;
  as_labels.kind = gvsl::VolumeKind::kLabels;
  const gvsl::Volume labels = Checked(gvsl::ReadVolume(folder + "/labels" + name, as_labels));
  image.set_modality("MR");
  const auto preprocessor = Checked(gvsl::Preprocessor::Make(image, card));
  const gvsl::Grid& grid = preprocessor.grid();
  std::array<int64_t, 3> begin{}, size{};  // with zeros on both sides, as the network pads
  for (int axis = 0; axis < 3; ++axis) {
    size[axis] = (grid.size[axis] + 15) / 16 * 16;
    begin[axis] = -((size[axis] - grid.size[axis]) / 2);
  }
  const Tensor input = torch::zeros({1, 1, size[2], size[1], size[0]});
  preprocessor.Box(begin, size, input.data_ptr<float>());
  const gvsl::Volume moved =
      Checked(gvsl::Resample(labels, grid, gvsl::Interpolation::kNearest, labels.type()));
  Case result;
  const auto decoded = network->unet->Levels(input);
  std::vector<Tensor> features;
  for (auto level = decoded.end() - levels; level != decoded.end(); ++level) {
    Tensor whole = at::upsample_trilinear3d(*level, input.sizes().slice(2), true)[0];
    for (int axis = 0; axis < 3; ++axis) {
      whole = whole.narrow(3 - axis, -begin[axis], grid.size[axis]);
    }
    features.push_back(whole.flatten(1));
  }
  result.features = torch::cat(features).t().contiguous();
  result.labels = torch::zeros({moved.voxel_count()}, torch::kLong);
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

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> places;
  int64_t levels = 2, volumes = 20, untrained = -1;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--levels" && i + 1 < argc) {
      levels = std::clamp(std::atoll(argv[++i]), 1LL, 4LL);
    } else if (word == "--volumes" && i + 1 < argc) {
      volumes = std::max(1LL, std::atoll(argv[++i]));
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
  const std::string folder = places[1] + "/volumes/hippocampus_mr";

  std::vector<int> training, validation;
  std::ifstream table(folder + "/cases.csv");
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
  if (training.empty() || validation.empty()) Fail(folder + "/cases.csv cannot be read");
  if (static_cast<int64_t>(training.size()) > volumes) {
    training.resize(static_cast<size_t>(volumes));
  }
  std::vector<Tensor> features, labels;
  for (int id : training) {
    Case c = ReadCase(folder, id, model.card, levels, network);
    features.push_back(c.features);
    labels.push_back(c.labels);
  }
  Tensor x = torch::cat(features);
  const Tensor y = torch::cat(labels);
  // Whitened: what a linear rule can tell stays the same, and the fit of correlated features ends.
  const Tensor mean = x.mean(0);
  const Tensor centred = (x - mean).to(torch::kDouble);
  const auto [variances, axes] =
      torch::linalg_eigh(centred.t().mm(centred) / static_cast<double>(centred.size(0)));
  const Tensor whitening =
      (axes / (variances + 1e-6 * variances.max()).sqrt()).to(torch::kFloat).contiguous();
  x = (x - mean).mm(whitening);
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
  std::array<double, 2> dice{};
  for (int id : validation) {
    const Case c = ReadCase(folder, id, model.card, levels, network);
    const Tensor predicted = probe->forward((c.features - mean).mm(whitening)).argmax(1);
    for (int64_t label : {1, 2}) {
      dice[label - 1] += Dice(predicted, c.labels, label) / static_cast<double>(validation.size());
    }
  }
  std::printf("| %s | %lld channels | %.3f | %.3f |\n", untrained >= 0 ? "random" : "trained",
              static_cast<long long>(x.size(1)), dice[0], dice[1]);
  return 0;
}
