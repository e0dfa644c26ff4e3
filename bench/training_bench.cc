// gvsl_training_bench: seconds of a GVSL pre-training step, its augmentation and its checkpoint, on
// the CPU. bench/training runs it beside the same step in plain PyTorch.
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/extractor.h"
#include "model/objective.h"
#include "model/optimizer.h"
#include "model/state.h"

namespace {

constexpr char kUsage[] =
    "usage: gvsl_training_bench --size N [--model base|small|tiny] [--repeat R] [--threads T]\n"
    "                           [--augmentation_only]\n"
    "Prints: crop, seconds of a network step, of an end-to-end step (augmentation included), of "
    "the\n"
    "augmentation of a sample, of a checkpoint; medians.\n";

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  int64_t size = 0, repeat = 3, threads = 0;
  std::string name = "base";
  bool augmentation_only = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--augmentation_only") {
      augmentation_only = true;
    } else if (word == "--size" && more) {
      size = std::atoll(argv[++i]);
    } else if (word == "--repeat" && more) {
      repeat = std::atoll(argv[++i]);
    } else if (word == "--threads" && more) {
      threads = std::atoll(argv[++i]);
    } else if (word == "--model" && more) {
      name = argv[++i];
    } else {
      size = 0;
      break;
    }
  }
  gvsl::ModelCard card;
  const auto widths = gvsl::WidthsOf(name);
  if (size < 32 || size % 16 != 0 || repeat < 1 || !widths.ok()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  card.size = name;
  card.widths = *widths;
  if (!gvsl::InitializeLibTorch({"cpu", static_cast<int>(threads)}).ok()) return 1;

  gvsl::TrainingOptions options;
  options.crop = size;
  options.augmentation.shuffling_probability = 1;  // as the peer: every task at every sample
  options.augmentation.inpainting_probability = options.augmentation.intensity_probability = 1;
  const int64_t side = size + 2 * gvsl::CropMargin(options);
  gvsl::PairBatch batch = gvsl::WholeBatch(torch::rand({2, 1, side, side, side}),
                                           torch::rand({2, 1, side, side, side}));

  gvsl::TrainingImages images = gvsl::Augment(batch, options, {1, 1, 1}, torch::kCPU);
  std::vector<double> augmenting, stepping, whole;
  for (int64_t i = 0; i < repeat; ++i) {
    augmenting.push_back(Seconds([&] {
                           images = gvsl::Augment(batch, options, {1, 1, 1}, torch::kCPU);
                         }) /
                         2);
  }
  double writing = 0;
  if (!augmentation_only) {
    gvsl::GvslNetwork network(card);
    if (!network->LoadState(gvsl::InitialState(card.widths, 1)).ok()) return 1;
    gvsl::StateDict parameters;
    for (const auto& parameter : network->named_parameters()) {
      parameters.emplace_back(parameter.key(), parameter.value());
    }
    gvsl::Adam adam(parameters, options.optimization);
    const auto step = [&] {
      for (auto& [key, parameter] : parameters) {
        torch::Tensor gradient = parameter.grad();
        if (gradient.defined()) gradient.zero_();
      }
      gvsl::ComputeObjective(network, images, options, {1, 1, 1}).losses.total.backward();
      adam.Step(1e-4);
    };
    step();  // the first one warms up
    for (int64_t i = 0; i < repeat; ++i) stepping.push_back(Seconds(step));
    for (int64_t i = 0; i < repeat; ++i) {
      ++batch.step;
      whole.push_back(Seconds([&] {
        images = gvsl::Augment(batch, options, {1, 1, 1}, torch::kCPU);
        step();
      }));
    }
    gvsl::Checkpoint checkpoint;
    checkpoint.step = 1;
    checkpoint.state = adam.State();
    const std::string folder = std::filesystem::temp_directory_path() / "gvsl_training_bench";
    writing = Seconds([&] {
      if (!gvsl::WriteCheckpoint(folder, checkpoint, 1).ok()) std::exit(1);
    });
    std::filesystem::remove_all(folder);
  } else {
    stepping = whole = {0};
  }
  std::printf("%lld %.4f %.4f %.4f %.4f\n", static_cast<long long>(size), Median(stepping),
              Median(whole), Median(augmenting), writing);
  return 0;
}
