// gvsl_forward_bench: seconds of a U-Net forward pass beside the machine's sgemm peak, measured in
// one run. bench/forward runs it interleaved with the same network in plain PyTorch.
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/extractor.h"
#include "model/network.h"
#include "model/unet_engine.h"

namespace {

constexpr char kUsage[] =
    "usage: gvsl_forward_bench [--size N]... [--repeat R] [--threads T] [--model base|small|tiny]\n"
    "                          [--weights F --input F --output F] [--global_only] [--modules]\n"
    "\n"
    "  --size N       side of the input cube, a multiple of 16; may be repeated (default 64, 96, "
    "128)\n"
    "  --weights F    raw float32, the U-Net's tensors in the official order (default: seeded)\n"
    "  --input F      raw float32 cube (default: seeded); --output F receives the dense features\n"
    "  --global_only  leave out the up path;  --modules  time the training modules instead of the "
    "engine\n";

struct Options {
  std::vector<int64_t> sizes;
  int repeat = 3;
  int threads = 0;
  std::string model = "base", weights, input, output;
  bool global_only = false, modules = false;
};

// Floating-point operations of the forward pass at N^3, convolutions counted directly.
double DirectFlops(const std::array<int64_t, 5>& widths, int64_t size) {
  double flops = 0;
  const auto add = [&](int level, int64_t in, int64_t out) {
    const double side = static_cast<double>(size >> level);
    flops += 2.0 * 27 * in * out * side * side * side;
  };
  for (int level = 0; level < 5; ++level) {
    add(level, level == 0 ? 1 : widths[level - 1], widths[level]);
    add(level, widths[level], widths[level]);
  }
  for (int level = 3; level >= 0; --level) {
    add(level, widths[level] + widths[level + 1], widths[level]);
    add(level, widths[level], widths[level]);
  }
  return flops;
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// GFLOP/s of the fastest of several products of 2048^2 matrices.
double SgemmPeak() {
  constexpr int64_t kSide = 2048;
  const at::Tensor a = at::rand({kSide, kSide}), b = at::rand({kSide, kSide});
  double fastest = 1e30;
  for (int i = 0; i < 8; ++i) fastest = std::min(fastest, Seconds([&] { at::mm(a, b); }));
  return 2e-9 * kSide * kSide * kSide / fastest;
}

void ReadFloats(const std::string& path, at::Tensor tensor, std::ifstream& file) {
  file.read(reinterpret_cast<char*>(tensor.data_ptr<float>()),
            static_cast<std::streamsize>(tensor.numel() * sizeof(float)));
  if (!file) throw std::runtime_error(path + " is missing or too short");
}

int Run(const Options& options) {
  const auto device = gvsl::InitializeLibTorch({"cpu", options.threads});
  const auto widths = gvsl::WidthsOf(options.model);
  for (const absl::Status& status : {device.status(), widths.status()}) {
    if (!status.ok()) {
      std::fprintf(stderr, "gvsl_forward_bench: %s\n", std::string(status.message()).c_str());
      return 1;
    }
  }
  const c10::InferenceMode inference;
  torch::manual_seed(1);
  gvsl::UNet unet(*widths);
  gvsl::StateDict state;
  for (const auto& parameter : unet->named_parameters()) {
    state.emplace_back("unet." + parameter.key(), parameter.value());
  }
  if (!options.weights.empty()) {
    std::ifstream file(options.weights, std::ios::binary);
    for (auto& entry : state) ReadFloats(options.weights, entry.second, file);
  }
  const gvsl::UNetEngine engine(state, *widths, at::kCPU, at::kFloat);
  const double peak = SgemmPeak();
  std::printf("# LibTorch %s, %d threads, kernels %s, sgemm %.1f GFLOP/s\n",
              gvsl::LibTorchVersion().c_str(), at::get_num_threads(), gvsl::BestCpuKernels().name,
              peak);
  std::printf("# size seconds(median) seconds(least) GFLOP/s(direct count) share_of_sgemm\n");
  for (const int64_t size : options.sizes) {
    at::Tensor image = at::rand({1, 1, size, size, size});
    if (!options.input.empty()) {
      std::ifstream file(options.input, std::ios::binary);
      ReadFloats(options.input, image, file);
    }
    std::vector<double> seconds;
    at::Tensor dense;
    for (int i = 0; i < options.repeat; ++i) {
      seconds.push_back(Seconds([&] {
        if (options.modules) {
          dense = unet->forward(image).dense;
        } else {
          dense = engine.Forward(image, options.global_only ? 0 : 1).dense;
        }
      }));
    }
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[seconds.size() / 2];
    const double rate = 1e-9 * DirectFlops(*widths, size) / median;
    std::printf("%lld %.4f %.4f %.1f %.3f\n", static_cast<long long>(size), median, seconds[0],
                rate, rate / peak);
    std::fflush(stdout);
    if (!options.output.empty()) {
      std::ofstream file(options.output, std::ios::binary);
      file.write(reinterpret_cast<const char*>(dense.contiguous().data_ptr<float>()),
                 static_cast<std::streamsize>(dense.numel() * sizeof(float)));
    }
  }
  return 0;
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--global_only") {
      options.global_only = true;
    } else if (flag == "--modules") {
      options.modules = true;
    } else if (i + 1 == argc) {
      return false;
    } else {
      const std::string value = argv[++i];
      if (flag == "--size")
        options.sizes.push_back(std::atoll(value.c_str()));
      else if (flag == "--repeat")
        options.repeat = std::atoi(value.c_str());
      else if (flag == "--threads")
        options.threads = std::atoi(value.c_str());
      else if (flag == "--model")
        options.model = value;
      else if (flag == "--weights")
        options.weights = value;
      else if (flag == "--input")
        options.input = value;
      else if (flag == "--output")
        options.output = value;
      else
        return false;
    }
  }
  if (options.sizes.empty()) options.sizes = {64, 96, 128};
  return options.repeat > 0 && std::all_of(options.sizes.begin(), options.sizes.end(),
                                           [](int64_t s) { return s > 0 && s % 16 == 0; });
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  try {
    return Run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gvsl_forward_bench: %s\n", error.what());
    return 1;
  }
}
