// gvsl_linear_probe_bench: what a network's frozen dense features tell of labels. One 1x1x1
// convolution and softmax, trained on labelled training volumes; its Dice on validation volumes.
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
    "usage: gvsl_linear_probe_bench MODEL.safetensors DATA [--volumes N] [--untrained SEED]\n"
    "  DATA         folder with volumes/hippocampus_mr\n"
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

Case ReadCase(const std::string& folder, int id, const gvsl::ModelCard& card,
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
  const Tensor input = torch::zeros({1, 1, grid.size[2], grid.size[1], grid.size[0]});
  preprocessor.Box({0, 0, 0}, grid.size, input.data_ptr<float>());
  const gvsl::Volume moved =
      Checked(gvsl::Resample(labels, grid, gvsl::Interpolation::kNearest, labels.type()));
  Case result;
  result.features = network->unet->forward(input).dense[0].flatten(1).t().contiguous();
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
  int64_t volumes = 20, untrained = -1;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--volumes" && i + 1 < argc) {
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
    Case c = ReadCase(folder, id, model.card, network);
    features.push_back(c.features);
    labels.push_back(c.labels);
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
  std::array<double, 2> dice{};
  for (int id : validation) {
    const Case c = ReadCase(folder, id, model.card, network);
    const Tensor predicted = probe->forward((c.features - mean) / deviation).argmax(1);
    for (int64_t label : {1, 2}) {
      dice[label - 1] += Dice(predicted, c.labels, label) / static_cast<double>(validation.size());
    }
  }
  std::printf("| %zu volumes | %zu volumes | %.3f | %.3f |\n", training.size(), validation.size(),
              dice[0], dice[1]);
  return 0;
}
