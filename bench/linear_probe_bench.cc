// gvsl_linear_probe_bench: what a network's frozen features tell of labels. One 1x1x1 convolution
// and softmax on a level of the decoder, or on all, trained on labelled training volumes; its Dice
// on validation volumes, beside that of networks with random weights.
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
    "usage: gvsl_linear_probe_bench MODEL.safetensors DATA [--volumes N] [--untrained N]\n"
    "  DATA         folder with volumes/hippocampus_mr\n"
    "  --volumes    labelled training volumes (default 20)\n"
    "  --untrained  networks of the same shape with random weights, seeds 1 to N (default 3)\n"
    "Prints Markdown.\n";
constexpr int kLevels = 4;  // of the decoder; the last gives the dense features

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "gvsl_linear_probe_bench: %s\n", message.c_str());
  std::exit(1);
}

template <typename T>
T Checked(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(std::string(value.status().message()));
  return *std::move(value);
}

// Volumes' voxels at the card's spacing.
struct Voxels {
  std::array<std::vector<Tensor>, kLevels>
      features;                // of each volume [C, N] float32, coarsest first
  std::vector<Tensor> labels;  // of each volume [N] int64, nearest voxel
};

void Read(const std::string& folder, int id, const gvsl::ModelCard& card,
          gvsl::GvslNetwork& network, Voxels& voxels) {
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
  const auto decoded = network->unet->Levels(input);
  for (int level = 0; level < kLevels; ++level) {
    Tensor whole = at::upsample_trilinear3d(decoded[decoded.size() - kLevels + level],
                                            input.sizes().slice(2), true)[0];
    for (int axis = 0; axis < 3; ++axis) {
      whole = whole.narrow(3 - axis, -begin[axis], grid.size[axis]);
    }
    voxels.features[level].push_back(whole.flatten(1));
  }
  const gvsl::Volume moved =
      Checked(gvsl::Resample(labels, grid, gvsl::Interpolation::kNearest, labels.type()));
  Tensor of_voxels = torch::zeros({moved.voxel_count()}, torch::kLong);
  gvsl::VisitVoxelType(moved.type(), [&](auto zero) {
    using T = decltype(zero);
    std::copy_n(moved.voxels<T>(), moved.voxel_count(), of_voxels.data_ptr<int64_t>());
  });
  voxels.labels.push_back(of_voxels);
}

double Dice(const Tensor& a, const Tensor& b, int64_t label) {
  const Tensor x = a == label, y = b == label;
  const double both = x.logical_and(y).sum().item<double>();
  return 2 * both / std::max(1.0, x.sum().item<double>() + y.sum().item<double>());
}

// One linear rule for features [C, N].
struct Probe {
  Tensor mean, whitening;  // [C, 1], [C, C]
  Tensor weight, bias;     // [3, C], [3, 1]
  Tensor Logits(const Tensor& x) const { return weight.mm(whitening.mm(x - mean)) + bias; }
};

Probe Fit(const Tensor& features, const Tensor& labels) {
  Probe probe;
  // Whitened: what a linear rule can tell stays the same, and the fit of correlated features ends.
  probe.mean = features.mean(1, true);
  const Tensor centred = (features - probe.mean).to(torch::kDouble);
  const auto [variances, axes] =
      torch::linalg_eigh(centred.mm(centred.t()) / static_cast<double>(centred.size(1)));
  probe.whitening = (axes / (variances + 1e-6 * variances.max()).sqrt()).t().to(torch::kFloat);
  const Tensor x = probe.whitening.mm(features - probe.mean);
  const torch::AutoGradMode with_grad(true);
  probe.weight = torch::zeros({3, x.size(0)}).requires_grad_();
  probe.bias = torch::zeros({3, 1}).requires_grad_();
  torch::optim::Adam optimizer(std::vector<Tensor>{probe.weight, probe.bias},
                               torch::optim::AdamOptions(0.05));
  const Tensor target = torch::one_hot(labels, 3).to(torch::kFloat).t().contiguous();
  // Most voxels are background: cross-entropy with all classes of equal weight leads in, soft
  // Dice, which is what is measured, decides.
  const Tensor balance =
      target.sum(1, true).reciprocal() * (static_cast<double>(labels.numel()) / 3);
  constexpr int kSteps = 400, kLeadIn = 200;
  for (int step = 0; step < kSteps; ++step) {
    const Tensor log_share = (probe.weight.mm(x) + probe.bias).log_softmax(0);
    const Tensor share = log_share.exp();
    const Tensor dice = 1 - 2 * (share * target).sum(1) / (share.sum(1) + target.sum(1));
    Tensor loss = dice.slice(0, 1, 3).mean();
    if (step < kLeadIn) {
      const Tensor entropy = -(log_share * target * balance).mean();
      loss = loss + (1 - static_cast<double>(step) / kLeadIn) * entropy;
    }
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }
  probe.weight = probe.weight.detach();
  probe.bias = probe.bias.detach();
  return probe;
}

// Mean Dice of the two labels over the volumes of `validation`, by a probe on the features of level
// `first` and the `count` - 1 finer ones.
std::array<double, 2> Score(const Voxels& training, const Voxels& validation, int first,
                            int count) {
  const auto features = [&](const Voxels& of, size_t volume) {
    std::vector<Tensor> levels;
    for (int level = first; level < first + count; ++level) {
      levels.push_back(of.features[level][volume]);
    }
    return torch::cat(levels);
  };
  std::vector<Tensor> all;
  for (size_t i = 0; i < training.labels.size(); ++i) all.push_back(features(training, i));
  const Probe probe = Fit(torch::cat(all, 1), torch::cat(training.labels));
  std::array<double, 2> dice{};
  for (size_t i = 0; i < validation.labels.size(); ++i) {
    const Tensor predicted = probe.Logits(features(validation, i)).argmax(0);
    for (int64_t label : {1, 2}) {
      dice[label - 1] += Dice(predicted, validation.labels[i], label) /
                         static_cast<double>(validation.labels.size());
    }
  }
  return dice;
}

// Levels alone, finest first, then all of them.
constexpr int kRows = kLevels + 1;
using Scores = std::array<std::array<double, 2>, kRows>;

Scores ScoresOf(const gvsl::ModelCard& card, const gvsl::StateDict& state,
                const std::string& folder, const std::vector<int>& training_ids,
                const std::vector<int>& validation_ids) {
  gvsl::GvslNetwork network(card);
  if (!network->LoadState(state).ok()) Fail("the weights do not fit");
  Voxels training, validation;
  for (int id : training_ids) Read(folder, id, card, network, training);
  for (int id : validation_ids) Read(folder, id, card, network, validation);
  Scores scores{};
  for (int row = 0; row < kLevels; ++row) {
    scores[row] = Score(training, validation, kLevels - 1 - row, 1);
  }
  scores[kLevels] = Score(training, validation, 0, kLevels);
  return scores;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> places;
  int64_t volumes = 20, untrained = 3;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--volumes" && i + 1 < argc) {
      volumes = std::max(1LL, std::atoll(argv[++i]));
    } else if (word == "--untrained" && i + 1 < argc) {
      untrained = std::max(1LL, std::atoll(argv[++i]));
    } else {
      places.push_back(word);
    }
  }
  if (places.size() != 2) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (!gvsl::InitializeLibTorch({"cpu", 0}).ok()) return 1;
  const gvsl::LoadedModel model = Checked(gvsl::LoadModel(places[0]));
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
  const Scores trained = ScoresOf(model.card, model.state, folder, training, validation);
  Scores random{};
  double low = 1, high = 0;  // of one random network's mean over both labels, all levels
  for (int64_t seed = 1; seed <= untrained; ++seed) {
    const Scores scores =
        ScoresOf(model.card, gvsl::InitialState(model.card.widths, static_cast<uint64_t>(seed)),
                 folder, training, validation);
    for (int row = 0; row < kRows; ++row) {
      for (int label = 0; label < 2; ++label) {
        random[row][label] += scores[row][label] / static_cast<double>(untrained);
      }
    }
    const double mean = (scores[kLevels][0] + scores[kLevels][1]) / 2;
    low = std::min(low, mean);
    high = std::max(high, mean);
  }
  std::printf("| features | channels | trained, label 1 | label 2 | random, label 1 | label 2 |\n");
  std::printf("|---|---|---|---|---|---|\n");
  int64_t all = 0;
  for (int row = 0; row < kRows; ++row) {
    const int64_t channels = row < kLevels ? model.card.widths[row] : all;
    all += channels;
    const std::string name = row == 0 ? "dense"
                             : row == kLevels
                                 ? "all of these"
                                 : "1/" + std::to_string(1 << row) + " of the resolution";
    std::printf("| %s | %lld | %.3f | %.3f | %.3f | %.3f |\n", name.c_str(),
                static_cast<long long>(channels), trained[row][0], trained[row][1], random[row][0],
                random[row][1]);
  }
  std::printf("\nAll levels, mean of both labels, each of %lld random networks: %.3f to %.3f\n",
              static_cast<long long>(untrained), low, high);
  return 0;
}
