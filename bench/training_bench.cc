// gvsl_training_bench: seconds of a GVSL pre-training step, its augmentation and its checkpoint, or
// steps a second of a whole run. bench/training runs it beside the same step in plain PyTorch.
#include <torch/torch.h>
#if __has_include(<cuda_runtime_api.h>) && __has_include(<c10/cuda/CUDACachingAllocator.h>)
#include <c10/cuda/CUDACachingAllocator.h>
#define GVSL_BENCH_CUDA
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "imaging/phantom.h"
#include "imaging/sha256.h"
#include "model/checkpoint.h"
#include "model/extractor.h"
#include "model/objective.h"
#include "model/optimizer.h"
#include "model/state.h"
#include "model/trainer.h"

namespace {

constexpr char kUsage[] =
    "usage: gvsl_training_bench --size N [--model base|small|tiny] [--repeat R] [--threads T]\n"
    "                           [--device cpu|cuda] [--half] [--augmentation_only | --run STEPS]\n"
    "Batches of two pairs. Prints: crop, seconds of a network step, of an end-to-end step\n"
    "(augmentation included), of the augmentation of a sample, of a checkpoint; medians.\n"
    "  --half  bf16 in the network; CUDA alone\n"
    "  --run   a whole run instead, on phantoms of twice the crop: from its files through the\n"
    "          trainer. Prints steps a second and the share of time that steps waited for data,\n"
    "          from report to report, and the peak of the device's memory where it is CUDA.\n";

// Finished work: a GPU computes on after its calls have returned.
void Finish(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize();
}

double PeakGib(at::Device device) {
#ifdef GVSL_BENCH_CUDA
  if (device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
    return static_cast<double>(stats.allocated_bytes[0].peak) / (1 << 30);
  }
#endif
  (void)device;
  return 0;
}

// Prints what it hears.
class Printer : public gvsl::TrainingObserver {
 public:
  absl::Status Started(const gvsl::StartReport&) override { return absl::OkStatus(); }
  absl::Status Step(const gvsl::StepReport& report) override {
    std::printf("step %lld: loss %.4f, %.3f steps/s, %.2f %% waiting for data\n",
                static_cast<long long>(report.step), report.losses.total, report.steps_per_second,
                100 * report.data_wait_share);
    std::fflush(stdout);
    return absl::OkStatus();
  }
  absl::Status Validation(const gvsl::ValidationReport&) override { return absl::OkStatus(); }
  absl::Status Checkpoint(const gvsl::CheckpointReport& report) override {
    std::printf("checkpoint: %.3f s\n", report.seconds);
    return absl::OkStatus();
  }
  absl::Status Picture(const gvsl::PictureReport&) override { return absl::OkStatus(); }
  absl::Status Warning(const std::string&) override { return absl::OkStatus(); }
};

int Run(const gvsl::ModelCard& card, gvsl::TrainingOptions options, int64_t steps,
        const std::string& device, int threads) {
  const std::string folder = std::filesystem::temp_directory_path() / "gvsl_training_bench";
  std::filesystem::remove_all(folder);  // a run that was cut off would be gone on with
  std::filesystem::create_directories(folder);
  gvsl::TrainingSetup setup;
  for (uint64_t patient = 0; patient < 6; ++patient) {
    gvsl::PhantomOptions phantom;
    phantom.patient = patient;
    phantom.size = {2 * options.crop, 2 * options.crop, 2 * options.crop};
    phantom.spacing_mm = {1, 1, 1};
    const auto made = gvsl::MakePhantom(phantom);
    if (!made.ok()) return 1;
    const gvsl::Volume& image = made->image;
    const std::string bytes(reinterpret_cast<const char*>(image.voxels<int16_t>()),
                            static_cast<size_t>(image.voxel_count()) * sizeof(int16_t));
    gvsl::SourceVolume source;
    source.name = "phantom" + std::to_string(patient);
    source.path = folder + "/" + source.name;
    source.voxels_sha256 = gvsl::Sha256Of(bytes);
    source.grid = image.grid();
    source.modality = "CT";
    std::ofstream(source.path, std::ios::binary).write(bytes.data(), bytes.size());
    setup.training.push_back(source);
  }
  options.optimization.steps = steps;
  options.upkeep.report_every = std::max<int64_t>(1, steps / 5);
  options.upkeep.checkpoint_every = steps;
  setup.options = options;
  setup.card = card;
  setup.card.crop = options.crop;
  setup.cache_folder = folder + "/cache";
  setup.folder = folder + "/run";
  setup.device = device;
  setup.loader_threads = std::clamp(threads / 2, 1, 8);
  setup.run_digest = "bench";
  Printer printer;
  auto trainer = gvsl::Trainer::Make(setup, printer, nullptr);
  const absl::Status status = trainer.ok() ? (*trainer)->Run().status() : trainer.status();
  if (status.ok() && device != "cpu") {
    std::printf("peak of the device's memory: %.1f GiB\n", PeakGib(at::Device(device)));
  }
  std::filesystem::remove_all(folder);
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

double Seconds(at::Device device, const std::function<void()>& work) {
  Finish(device);
  const auto start = std::chrono::steady_clock::now();
  work();
  Finish(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  int64_t size = 0, repeat = 3, threads = 0, run = 0;
  std::string name = "base", device_name = "cpu";
  bool augmentation_only = false, half = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--augmentation_only") {
      augmentation_only = true;
    } else if (word == "--half") {
      half = true;
    } else if (word == "--device" && more) {
      device_name = argv[++i];
    } else if (word == "--run" && more) {
      run = std::atoll(argv[++i]);
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
  const auto initialized = gvsl::InitializeLibTorch({device_name, static_cast<int>(threads)});
  if (!initialized.ok()) {
    std::fprintf(stderr, "%s\n", std::string(initialized.status().message()).c_str());
    return 1;
  }
  const at::Device device(*initialized);

  gvsl::TrainingOptions options;
  options.crop = size;
  options.optimization.half_precision = half;
  if (run > 0) return Run(card, options, run, *initialized, at::get_num_threads());
  options.augmentation.shuffling_probability = 1;  // as the peer: every task at every sample
  options.augmentation.inpainting_probability = options.augmentation.intensity_probability = 1;
  const int64_t side = size + 2 * gvsl::CropMargin(options);
  gvsl::PairBatch batch = gvsl::WholeBatch(torch::rand({2, 1, side, side, side}),
                                           torch::rand({2, 1, side, side, side}));

  gvsl::TrainingImages images = gvsl::Augment(batch, options, {1, 1, 1}, device);
  std::vector<double> augmenting, stepping, whole;
  for (int64_t i = 0; i < repeat; ++i) {
    augmenting.push_back(Seconds(device,
                                 [&] {
                                   images = gvsl::Augment(batch, options, {1, 1, 1}, device);
                                 }) /
                         2);
  }
  double writing = 0;
  if (!augmentation_only) {
    gvsl::GvslNetwork network(card);
    if (!network->LoadState(gvsl::InitialState(card.widths, 1)).ok()) return 1;
    network->to(device);
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
    for (int64_t i = 0; i < repeat; ++i) stepping.push_back(Seconds(device, step));
    for (int64_t i = 0; i < repeat; ++i) {
      ++batch.step;
      whole.push_back(Seconds(device, [&] {
        images = gvsl::Augment(batch, options, {1, 1, 1}, device);
        step();
      }));
    }
    gvsl::Checkpoint checkpoint;
    checkpoint.step = 1;
    checkpoint.state = adam.State();
    const std::string folder = std::filesystem::temp_directory_path() / "gvsl_training_bench";
    writing = Seconds(device, [&] {
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
