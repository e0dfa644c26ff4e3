// gvsl_linear_probe_bench: what a network's frozen dense features, as the server gives them, tell
// of labels. One 1x1x1 convolution and softmax on a level of the decoder, or on all, trained on
// labelled training volumes; its Dice on validation volumes, beside that of networks with random
// weights.
#include <torch/torch.h>
#include <unistd.h>

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
#include "model/state.h"

namespace {

using torch::Tensor;

constexpr char kUsage[] =
    "usage: gvsl_linear_probe_bench MODEL.safetensors DATA [--volumes N] [--untrained N]\n"
    "  DATA         folder with volumes/hippocampus_mr\n"
    "  --volumes    labelled training volumes (default 20)\n"
    "  --untrained  networks of the same shape with random weights, seeds 1 to N (default 3)\n"
    "Prints Markdown.\n";
constexpr int kLevels = gvsl::kDecoderLevels;

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
  std::vector<Tensor> features;  // of each volume [C, N] float32, all levels, the last first
  std::vector<Tensor> labels;    // of each volume [N] int64, nearest voxel
};

// Dense features as the server gives them, [C, N].
class Collector : public gvsl::DenseSink {
 public:
  absl::Status Begin(const gvsl::DenseHeader& header) override {
    grid_ = header.grid;
    features_ = torch::empty({header.channels, grid_.size[2], grid_.size[1] * grid_.size[0]});
    return absl::OkStatus();
  }
  absl::Status Slice(int64_t z, const float* values) override {
    features_.select(1, z).copy_(
        torch::from_blob(const_cast<float*>(values), {features_.size(0), features_.size(2)}));
    return absl::OkStatus();
  }
  const gvsl::Grid& grid() const { return grid_; }
  Tensor features() const { return features_.flatten(1); }

 private:
  gvsl::Grid grid_;
  Tensor features_;
};

void Read(const std::string& folder, int id, gvsl::Extractor& extractor, Voxels& voxels) {
  char name[64];
  std::snprintf(name, sizeof(name), "/hippocampus_%03d.nii.gz", id);
  gvsl::Volume image = Checked(gvsl::ReadVolume(folder + "/images" + name));
  gvsl::ReadOptions as_labels;
  as_labels.kind = gvsl::VolumeKind::kLabels;
  const gvsl::Volume labels = Checked(gvsl::ReadVolume(folder + "/labels" + name, as_labels));
  image.set_modality("MR");
  gvsl::DenseOptions options;
  options.window.window = 128;  // more than any of these volumes
  options.window.levels = kLevels;
  Collector collector;
  if (absl::Status status = extractor.Dense(image, options, nullptr, collector); !status.ok()) {
    Fail(std::string(status.message()));
  }
  voxels.features.push_back(collector.features());
  const gvsl::Volume moved = Checked(
      gvsl::Resample(labels, collector.grid(), gvsl::Interpolation::kNearest, labels.type()));
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

// Mean Dice of the two labels over the volumes of `validation`, by a probe on these channels.
std::array<double, 2> Score(const Voxels& training, const Voxels& validation, int64_t begin,
                            int64_t count) {
  std::vector<Tensor> all;
  for (const Tensor& features : training.features) all.push_back(features.narrow(0, begin, count));
  const Probe probe = Fit(torch::cat(all, 1), torch::cat(training.labels));
  std::array<double, 2> dice{};
  for (size_t i = 0; i < validation.labels.size(); ++i) {
    const Tensor predicted = probe.Logits(validation.features[i].narrow(0, begin, count)).argmax(0);
    for (int64_t label : {1, 2}) {
      dice[label - 1] += Dice(predicted, validation.labels[i], label) /
                         static_cast<double>(validation.labels.size());
    }
  }
  return dice;
}

// Levels alone, the last first, then all of them.
constexpr int kRows = kLevels + 1;
using Scores = std::array<std::array<double, 2>, kRows>;

Scores ScoresOf(const std::string& model, const std::string& folder,
                const std::vector<int>& training_ids, const std::vector<int>& validation_ids) {
  const auto extractor = Checked(gvsl::Extractor::Load(model, {"cpu", 0}));
  const gvsl::ModelCard& card = extractor->info().card;
  Voxels training, validation;
  for (int id : training_ids) Read(folder, id, *extractor, training);
  for (int id : validation_ids) Read(folder, id, *extractor, validation);
  Scores scores{};
  int64_t begin = 0;
  for (int level = 0; level < kLevels; ++level) {
    scores[level] = Score(training, validation, begin, card.widths[level]);
    begin += card.widths[level];
  }
  scores[kLevels] = Score(training, validation, 0, begin);
  return scores;
}

// A network of the same card with random weights, as a file that is gone with this object.
class UntrainedModel {
 public:
  UntrainedModel(const gvsl::ModelCard& card, uint64_t seed) {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/gvsl_linear_probe_XXXXXX";
    const int file = mkstemp(path_.data());
    if (file < 0) Fail(path_ + ": cannot be made");
    close(file);
    if (!gvsl::SaveModel({card, gvsl::InitialState(card.widths, seed)}, path_).ok()) {
      Fail(path_ + ": cannot be written");
    }
  }
  ~UntrainedModel() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

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
  const gvsl::ModelCard card = Checked(gvsl::LoadModel(places[0])).card;
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
  const Scores trained = ScoresOf(places[0], folder, training, validation);
  Scores random{};
  double low = 1, high = 0;  // of one random network's mean over both labels, all levels
  for (int64_t seed = 1; seed <= untrained; ++seed) {
    const UntrainedModel untrained_model(card, static_cast<uint64_t>(seed));
    const Scores scores = ScoresOf(untrained_model.path(), folder, training, validation);
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
    const int64_t channels = row < kLevels ? card.widths[row] : all;
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
