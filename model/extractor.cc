#include "model/extractor.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "imaging/resample.h"
#include "imaging/status_reason.h"
#include "model/cpu_kernels.h"
#include "model/dense_sweep.h"
#include "model/network.h"
#include "model/network_alignment.h"
#include "model/point_matching.h"
#include "model/preprocessor.h"
#include "model/registration_level.h"
#include "model/state.h"
#include "model/unet_engine.h"
#include "model/volume_space.h"

namespace gvsl {
namespace {

constexpr int64_t kMaxWindow = 512;
constexpr int64_t kDefaultWindow = 128;
constexpr int64_t kDefaultGpuBatch = 4;
constexpr int64_t kMaxBatch = 64;

absl::Status Cancelled() { return absl::CancelledError("the work was cancelled"); }

// The options with a limit of the call's own, if it has one.
WindowOptions Within(WindowOptions options, int64_t memory_bytes) {
  if (memory_bytes > 0) options.memory_bytes = memory_bytes;
  return options;
}

std::array<WindowAxis, 3> PlanWindows(const Grid& grid, const WindowOptions& options) {
  const auto axis = [&](int i) {
    return WindowAxis(grid.size[i], options.window, options.overlap, options.gaussian);
  };
  return {axis(0), axis(1), axis(2)};
}

// Gives memory back that the passes took: malloc keeps it otherwise (InitializeLibTorch).
struct TrimMemory {
  ~TrimMemory() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
  }
};

// Running statistics of one label, merged slice by slice (Chan, Golub, LeVeque 1979).
struct Statistics {
  int64_t count = 0;
  std::vector<double> mean, squares;  // [channel]; squares: sum of squared deviations
};

}  // namespace

struct Extractor::Impl {
  ModelInfo info;
  StateDict state;  // kept where another engine may be made of it
  at::Device device = at::kCPU;
  std::unique_ptr<UNetEngine> engine, half_engine;
  std::string path;
  std::shared_ptr<GvslNetworkImpl> network;  // with its heads, for registration

  // The network with its heads, when first asked for.
  absl::Status LoadNetwork() {
    if (network != nullptr) return absl::OkStatus();
    auto model = LoadModel(path);
    if (!model.ok()) return model.status();
    auto made = std::make_shared<GvslNetworkImpl>(info.card);
    if (absl::Status status = made->LoadState(model->state); !status.ok()) return status;
    made->to(device);
    made->eval();
    network = std::move(made);
    return absl::OkStatus();
  }

  // bf16 on CUDA only, prepared when first asked for.
  UNetEngine& EngineFor(const WindowOptions& options) {
    if (!options.half_precision) return *engine;
    if (half_engine == nullptr) {
      half_engine = std::make_unique<UNetEngine>(state, info.card.widths, device, at::kBFloat16);
    }
    return *half_engine;
  }

  // One pass over windows of equal sides that start at these voxels.
  UNetEngine::Output Pass(const Preprocessor& input, const std::vector<Index3>& starts,
                          const Index3& side, const WindowOptions& options, int64_t levels) {
    at::Tensor image =
        at::empty({static_cast<int64_t>(starts.size()), 1, side[2], side[1], side[0]});
    float* values = image.data_ptr<float>();
    for (size_t i = 0; i < starts.size(); ++i) {
      input.Box(starts[i], side, values + static_cast<int64_t>(i) * side[0] * side[1] * side[2]);
    }
    UNetEngine::Output output = EngineFor(options).Forward(image.to(device), levels);
    if (levels > 0) output.dense = output.dense.to(at::kCPU, at::kFloat).contiguous();
    output.global = output.global.to(at::kCPU, at::kFloat);
    return output;
  }

  // Peak bytes of a pass: the image, the dense output of `levels`, and the step of the U-Net that
  // holds the most: the skip connections so far, the joined input of a block, and its two
  // convolutions' outputs.
  int64_t PassBytes(const Index3& side, int64_t batch, int64_t levels) const {
    const auto padded = [this](int level) { return PaddedChannels(info.card.widths[level]); };
    const int64_t voxels = batch * side[0] * side[1] * side[2];
    int64_t skips = 0, peak = 0;
    for (int level = 0; level < 5; ++level) {
      const int64_t here = voxels >> 3 * level;
      if (level < 4) skips += here * (padded(level) + padded(level + 1));
      peak = std::max(peak, skips + 2 * here * padded(level));
    }
    int64_t coarse = 0;  // levels before they are enlarged
    for (int64_t level = 1; level < levels; ++level) {
      coarse += (voxels >> 3 * level) * info.card.widths[static_cast<size_t>(level)];
    }
    return (voxels * (1 + info.card.dense_channels(levels)) + coarse + peak) *
           static_cast<int64_t>(sizeof(float));
  }
  // A slab that a pass adds to and what is held beside it, against what may be taken; 0: anything.
  absl::Status CheckSlab(const DenseSweep& sweep, int64_t levels, int64_t beside_bytes,
                         int64_t memory_bytes) const {
    const Index3 side = {sweep.windows[0].side(), sweep.windows[1].side(), sweep.windows[2].side()};
    const int64_t needed = sweep.SlabBytes() + PassBytes(side, sweep.batch, levels) + beside_bytes;
    if (memory_bytes <= 0 || needed <= memory_bytes) return absl::OkStatus();
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat(
            "window.window: slab and pass of this volume need about ", needed >> 20,
            " MiB, the server allows ", memory_bytes >> 20, " MiB; take a smaller window",
            levels > 1 ? ", fewer levels" : "", " or a region of interest")),
        "WINDOW_TOO_LARGE");
  }

  absl::Status Sweep(const Preprocessor& input, const DenseSweep& sweep,
                     const WindowOptions& options, const CancelFunction& cancelled,
                     const PlaneFunction& on_plane) {
    const Index3 side = {sweep.windows[0].side(), sweep.windows[1].side(), sweep.windows[2].side()};
    UNetEngine::Output held;
    const WindowPass pass = [&](const std::vector<Index3>& starts) -> absl::StatusOr<const float*> {
      if (cancelled && cancelled()) return Cancelled();
      held = UNetEngine::Output();  // its memory serves the next pass
      held = Pass(input, starts, side, options, options.levels);
      return held.dense.data_ptr<float>();
    };
    return sweep.Run(pass, on_plane);
  }

  DenseSweep MakeSweep(const Grid& grid, const WindowOptions& options) const {
    return DenseSweep{PlanWindows(grid, options),
                      {0, 0, 0},
                      grid.size,
                      2,
                      false,
                      info.card.dense_channels(options.levels),
                      options.batch};
  }

  absl::StatusOr<std::vector<float>> Global(const Volume& volume, const WindowOptions& options,
                                            const CancelFunction& cancelled);
  absl::Status Dense(const Volume& volume, const DenseOptions& options,
                     const CancelFunction& cancelled, DenseSink& sink);
  absl::StatusOr<std::vector<PointFeature>> Sample(const Volume& volume,
                                                   const std::vector<Vec3>& points_mm,
                                                   const WindowOptions& options,
                                                   const CancelFunction& cancelled);
  absl::StatusOr<std::vector<LabelFeature>> Pool(const Volume& volume, const Volume& labels,
                                                 const WindowOptions& options,
                                                 const CancelFunction& cancelled,
                                                 int64_t memory_bytes, int64_t max_labels);

  // Runs a body without gradients, catching what LibTorch throws.
  template <typename F>
  static auto Guarded(F&& body) -> decltype(body()) {
    const TrimMemory trim;
    try {
      const c10::InferenceMode inference;
      return body();
    } catch (const std::bad_alloc&) {
      return WithReason(
          absl::ResourceExhaustedError("no memory left for this window; take a smaller one"),
          "WINDOW_TOO_LARGE");
    } catch (const std::exception& error) {
      const std::string text = error.what();
      if (text.find("out of memory") != std::string::npos ||
          text.find("can't allocate memory") != std::string::npos) {
        return WithReason(
            absl::ResourceExhaustedError("no memory left for this window; take a smaller one"),
            "WINDOW_TOO_LARGE");
      }
      return absl::InternalError(absl::StrCat("LibTorch: ", text.substr(0, 500)));
    }
  }
};

Extractor::Extractor() : impl_(std::make_unique<Impl>()) {}
Extractor::~Extractor() = default;

const ModelInfo& Extractor::info() const { return impl_->info; }

int64_t Extractor::memory_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : impl_->state) bytes += static_cast<int64_t>(tensor.nbytes());
  for (const auto* engine : {impl_->engine.get(), impl_->half_engine.get()}) {
    if (engine != nullptr) bytes += engine->weight_bytes();
  }
  if (impl_->network != nullptr) {
    for (const auto& tensor : impl_->network->parameters())
      bytes += static_cast<int64_t>(tensor.nbytes());
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<Extractor>> Extractor::Load(const std::string& safetensors_path,
                                                           const DeviceOptions& options) {
  return Impl::Guarded([&]() -> absl::StatusOr<std::unique_ptr<Extractor>> {
    auto model = LoadModel(safetensors_path);
    if (!model.ok()) return model.status();
    auto device = InitializeLibTorch(options);
    if (!device.ok()) return device.status();
    std::unique_ptr<Extractor> extractor(new Extractor);
    Impl& impl = *extractor->impl_;
    impl.info = InfoOf(*model);
    impl.device = at::Device(*device);
    impl.path = safetensors_path;
    impl.engine =
        std::make_unique<UNetEngine>(model->state, impl.info.card.widths, impl.device, at::kFloat);
    if (impl.device.is_cuda()) impl.state = std::move(model->state);
    return extractor;
  });
}

WindowOptions Extractor::Resolved(const WindowOptions& options) const {
  WindowOptions resolved = options;
  const ModelCard& card = impl_->info.card;
  if (options.window == 0) resolved.window = card.crop > 0 ? card.crop : kDefaultWindow;
  if (options.batch == 0) {
    const Index3 side = {resolved.window, resolved.window, resolved.window};
    resolved.batch = impl_->device.is_cuda() ? kDefaultGpuBatch : 1;
    while (resolved.batch > 1 && options.memory_bytes > 0 &&
           impl_->PassBytes(side, resolved.batch, options.levels) > options.memory_bytes) {
      --resolved.batch;
    }
  }
  resolved.half_precision = options.half_precision && impl_->device.is_cuda();
  return resolved;
}

absl::Status Extractor::CheckWindow(const WindowOptions& options, int64_t memory_bytes) const {
  if (options.window < 0 || options.window > kMaxWindow || options.window % 16 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window.window: ", options.window, " is no multiple of 16 from 16 to ", kMaxWindow));
  }
  if (!(options.overlap >= 0 && options.overlap <= 0.75)) {
    return absl::InvalidArgumentError(
        absl::StrCat("window.overlap: ", options.overlap, " must lie in 0 to 0.75"));
  }
  if (options.batch < 0 || options.batch > kMaxBatch) {
    return absl::InvalidArgumentError(
        absl::StrCat("window.batch: ", options.batch, " must lie in 1 to ", kMaxBatch));
  }
  if (options.levels < 1 || options.levels > kDecoderLevels) {
    return absl::InvalidArgumentError(
        absl::StrCat("window.levels: ", options.levels, " must lie in 1 to ", kDecoderLevels));
  }
  const WindowOptions resolved = Resolved(Within(options, memory_bytes));
  const int64_t window = resolved.window;
  const auto needed = [&](int64_t side) {
    return impl_->PassBytes({side, side, side}, resolved.batch, options.levels);
  };
  if (memory_bytes <= 0 || needed(window) <= memory_bytes) return absl::OkStatus();
  int64_t fits = window;
  while (fits > 0 && needed(fits) > memory_bytes) fits -= 16;
  return WithReason(
      absl::ResourceExhaustedError(absl::StrCat(
          "window.window: a pass of ", window, " voxels a side needs about ", needed(window) >> 20,
          " MiB, the server allows ", memory_bytes >> 20,
          fits > 0 ? absl::StrCat(" MiB; the largest that fits is ", fits) : " MiB; none fits",
          options.levels > 1 ? absl::StrCat(" with ", options.levels, " levels") : "")),
      "WINDOW_TOO_LARGE");
}

absl::StatusOr<std::vector<float>> Extractor::Global(const Volume& volume,
                                                     const WindowOptions& options,
                                                     const CancelFunction& cancelled) {
  if (absl::Status status = CheckWindow(options, 0); !status.ok()) return status;
  return Impl::Guarded([&] { return impl_->Global(volume, Resolved(options), cancelled); });
}

absl::Status Extractor::Dense(const Volume& volume, const DenseOptions& options,
                              const CancelFunction& cancelled, DenseSink& sink) {
  if (absl::Status status = CheckWindow(options.window, options.memory_bytes); !status.ok())
    return status;
  DenseOptions resolved = options;
  resolved.window = Resolved(Within(options.window, options.memory_bytes));
  return Impl::Guarded([&] { return impl_->Dense(volume, resolved, cancelled, sink); });
}

absl::StatusOr<std::vector<PointFeature>> Extractor::Sample(const Volume& volume,
                                                            const std::vector<Vec3>& points_mm,
                                                            const WindowOptions& options,
                                                            const CancelFunction& cancelled) {
  if (absl::Status status = CheckWindow(options, 0); !status.ok()) return status;
  return Impl::Guarded(
      [&] { return impl_->Sample(volume, points_mm, Resolved(options), cancelled); });
}

absl::StatusOr<std::vector<LabelFeature>> Extractor::Pool(
    const Volume& volume, const Volume& labels, const WindowOptions& options,
    const CancelFunction& cancelled, int64_t memory_bytes, int64_t max_labels) {
  if (absl::Status status = CheckWindow(options, memory_bytes); !status.ok()) return status;
  return Impl::Guarded([&] {
    return impl_->Pool(volume, labels, Resolved(Within(options, memory_bytes)), cancelled,
                       memory_bytes, max_labels);
  });
}

absl::StatusOr<Registration> Extractor::Register(const RegistrationInput& input,
                                                 const RegistrationOptions& options,
                                                 const RegistrationWatch& watch) {
  return Impl::Guarded([&]() -> absl::StatusOr<Registration> {
    const bool needed = options.use_network || options.metric.features > 0;
    if (absl::Status status = needed ? impl_->LoadNetwork() : absl::OkStatus(); !status.ok())
      return status;
    return gvsl::Register(input, impl_->info.card, needed ? impl_->network.get() : nullptr, options,
                          watch);
  });
}

absl::StatusOr<std::vector<PointMatch>> Extractor::MatchPoints(const Volume& fixed,
                                                               const Volume& moving,
                                                               const std::vector<Vec3>& points_mm,
                                                               const WindowOptions& options,
                                                               const CancelFunction& cancelled) {
  if (absl::Status status = CheckWindow(options, 0); !status.ok()) return status;
  return Impl::Guarded([&]() -> absl::StatusOr<std::vector<PointMatch>> {
    const ModelCard& card = impl_->info.card;
    if (absl::Status status = ValidateInput({&fixed, &moving, nullptr, nullptr}, card);
        !status.ok()) {
      return status;
    }
    if (absl::Status status = impl_->LoadNetwork(); !status.ok()) return status;
    const double factor = WholeFactor(fixed, moving, card);
    const auto side = [&](const Volume& volume, const char* name) -> absl::StatusOr<MatchingSide> {
      if (cancelled && cancelled()) return Cancelled();
      auto level = ReadLevel(volume, nullptr, Coarser(card, factor), name);
      if (!level.ok()) return level.status();
      auto features = DenseFeatures(*level, *impl_->network);
      if (!features.ok()) return features.status();
      return MatchingSide{*std::move(features), factor, [&](const std::vector<Vec3>& points) {
                            return impl_->Sample(volume, points, Resolved(options), cancelled);
                          }};
    };
    auto fixed_side = side(fixed, "fixed");
    if (!fixed_side.ok()) return fixed_side.status();
    auto moving_side = side(moving, "moving");
    if (!moving_side.ok()) return moving_side.status();
    return MatchByFeatures(*fixed_side, *moving_side, points_mm);
  });
}

absl::StatusOr<std::vector<float>> Extractor::Impl::Global(const Volume& volume,
                                                           const WindowOptions& options,
                                                           const CancelFunction& cancelled) {
  auto input = Preprocessor::Make(volume, info.card);
  if (!input.ok()) return input.status();
  const auto windows = PlanWindows(input->grid(), options);
  const Index3 side = {windows[0].side(), windows[1].side(), windows[2].side()};
  std::vector<double> sum(static_cast<size_t>(info.card.global_channels()), 0);
  double total = 0;
  std::vector<Index3> starts;
  std::vector<double> shares;  // of each window that the volume fills
  const auto flush = [&]() -> absl::Status {
    if (starts.empty()) return absl::OkStatus();
    if (cancelled && cancelled()) return Cancelled();
    const at::Tensor mean =
        Pass(*input, starts, side, options, 0).global.to(at::kDouble).mean({2, 3, 4}).contiguous();
    for (size_t i = 0; i < starts.size(); ++i) {
      const double* values = mean.data_ptr<double>() + i * sum.size();
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += shares[i] * values[c];
      total += shares[i];
    }
    starts.clear();
    shares.clear();
    return absl::OkStatus();
  };
  for (int64_t z = 0; z < windows[2].count(); ++z) {
    for (int64_t y = 0; y < windows[1].count(); ++y) {
      for (int64_t x = 0; x < windows[0].count(); ++x) {
        const Index3 k = {x, y, z};
        double share = 1;
        for (int i = 0; i < 3; ++i) {
          share *= static_cast<double>(windows[i].end(k[i]) - windows[i].begin(k[i])) /
                   static_cast<double>(side[i]);
        }
        starts.push_back({windows[0].start(x), windows[1].start(y), windows[2].start(z)});
        shares.push_back(share);
        if (static_cast<int64_t>(starts.size()) < options.batch) continue;
        if (absl::Status status = flush(); !status.ok()) return status;
      }
    }
  }
  if (absl::Status status = flush(); !status.ok()) return status;
  std::vector<float> result;
  for (double value : sum) result.push_back(static_cast<float>(value / total));
  return result;
}

absl::Status Extractor::Impl::Dense(const Volume& volume, const DenseOptions& options,
                                    const CancelFunction& cancelled, DenseSink& sink) {
  auto input = Preprocessor::Make(volume, info.card);
  if (!input.ok()) return input.status();
  const Grid& space = options.volume_space ? volume.grid() : input->grid();
  const bool all = options.roi_begin == Index3{0, 0, 0} && options.roi_end == Index3{0, 0, 0};
  const Index3 roi_end = all ? space.size : options.roi_end;
  for (int i = 0; i < 3; ++i) {
    if (options.roi_begin[i] < 0 || options.roi_begin[i] >= roi_end[i] ||
        roi_end[i] > space.size[i]) {
      return absl::InvalidArgumentError(
          absl::StrCat("roi: [", options.roi_begin[i], ", ", roi_end[i], ") on axis ", i,
                       " is empty or reaches beyond the grid's ", space.size[i], " voxels"));
    }
  }
  if (options.stride < 1 || options.stride > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("stride: ", options.stride, " must be 1 or more"));
  }
  DenseHeader header;
  header.channels = info.card.dense_channels(options.window.levels);
  header.grid = space;
  header.grid.origin_mm = space.IndexToPhysical({static_cast<double>(options.roi_begin[0]),
                                                 static_cast<double>(options.roi_begin[1]),
                                                 static_cast<double>(options.roi_begin[2])});
  for (int i = 0; i < 3; ++i) {
    header.grid.size[i] = (roi_end[i] - options.roi_begin[i] + options.stride - 1) / options.stride;
    header.grid.spacing_mm[i] = space.spacing_mm[i] * static_cast<double>(options.stride);
  }

  DenseSweep sweep = MakeSweep(input->grid(), options.window);
  VolumeSpace onto(input->grid(), header.grid, header.channels);
  if (options.volume_space) {
    sweep.axis = onto.sweep_axis();
    sweep.descending = onto.descending();
    sweep.region_begin = onto.region_begin();
    sweep.region_end = onto.region_end();
  } else {
    sweep.region_begin = options.roi_begin;
    sweep.region_end = roi_end;
  }
  const Index3& size = header.grid.size;
  const int64_t strided_values = options.stride > 1 ? header.channels * size[0] * size[1] : 0;
  const int64_t beside_bytes =
      options.volume_space ? onto.Bytes() : strided_values * static_cast<int64_t>(sizeof(float));
  if (absl::Status status =
          CheckSlab(sweep, options.window.levels, beside_bytes, options.memory_bytes);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = sink.Begin(header); !status.ok()) return status;
  if (options.volume_space) {
    return Sweep(*input, sweep, options.window, cancelled, [&](int64_t plane, const float* values) {
      return onto.OnPlane(plane, values, sink);
    });
  }
  const int64_t rows = sweep.region_end[1] - sweep.region_begin[1];
  const int64_t columns = sweep.region_end[0] - sweep.region_begin[0];
  std::vector<float> strided(static_cast<size_t>(strided_values));
  return Sweep(*input, sweep, options.window, cancelled,
               [&](int64_t plane, const float* values) -> absl::Status {
                 const int64_t z = plane - options.roi_begin[2];
                 if (z % options.stride != 0) return absl::OkStatus();
                 if (options.stride == 1) return sink.Slice(z, values);
                 float* out = strided.data();
                 for (int64_t c = 0; c < header.channels; ++c) {
                   for (int64_t y = 0; y < size[1]; ++y) {
                     const float* row = values + (c * rows + y * options.stride) * columns;
                     for (int64_t x = 0; x < size[0]; ++x) *out++ = row[x * options.stride];
                   }
                 }
                 return sink.Slice(z / options.stride, strided.data());
               });
}

absl::StatusOr<std::vector<PointFeature>> Extractor::Impl::Sample(
    const Volume& volume, const std::vector<Vec3>& points_mm, const WindowOptions& options,
    const CancelFunction& cancelled) {
  auto input = Preprocessor::Make(volume, info.card);
  if (!input.ok()) return input.status();
  const Grid& grid = input->grid();
  const auto windows = PlanWindows(grid, options);
  const Index3 side = {windows[0].side(), windows[1].side(), windows[2].side()};
  const size_t channels = static_cast<size_t>(info.card.dense_channels(options.levels));

  // A point's cell: its lower corner, and how far it lies into the cell.
  struct Cell {
    Index3 low;
    Vec3 fraction;
  };
  std::vector<PointFeature> result(points_mm.size());
  std::vector<Cell> cells(points_mm.size());
  std::vector<std::vector<double>> sums(points_mm.size());
  // The points that each window serves; a window without any is not computed.
  std::map<Index3, std::vector<size_t>> served;
  for (size_t p = 0; p < points_mm.size(); ++p) {
    const Vec3 stored = volume.grid().PhysicalToIndex(points_mm[p]);
    const Vec3 index = grid.PhysicalToIndex(points_mm[p]);
    for (int i = 0; i < 3; ++i) {
      if (!(stored[i] >= -0.5 && stored[i] <= static_cast<double>(volume.grid().size[i]) - 0.5)) {
        result[p].out_of_view = true;
      }
    }
    if (result[p].out_of_view) continue;
    sums[p].assign(channels, 0);
    for (int i = 0; i < 3; ++i) {
      const double at = std::clamp(index[i], 0.0, static_cast<double>(grid.size[i] - 1));
      cells[p].low[i] = std::min(static_cast<int64_t>(at), std::max<int64_t>(grid.size[i] - 2, 0));
      cells[p].fraction[i] = at - static_cast<double>(cells[p].low[i]);
    }
    const Index3& low = cells[p].low;
    const auto touches = [&](int i, int64_t k) {
      return windows[i].begin(k) <= low[i] + 1 && windows[i].end(k) > low[i];
    };
    for (int64_t z = 0; z < windows[2].count(); ++z) {
      for (int64_t y = 0; y < windows[1].count() && touches(2, z); ++y) {
        for (int64_t x = 0; x < windows[0].count() && touches(1, y); ++x) {
          if (touches(0, x)) served[{z, y, x}].push_back(p);
        }
      }
    }
  }
  for (const auto& [key, points] : served) {
    if (cancelled && cancelled()) return Cancelled();
    const Index3 k = {key[2], key[1], key[0]};
    const Index3 start = {windows[0].start(k[0]), windows[1].start(k[1]), windows[2].start(k[2])};
    const at::Tensor dense = Pass(*input, {start}, side, options, options.levels).dense;
    const float* values = dense.data_ptr<float>();
    for (size_t p : points) {
      for (int corner = 0; corner < 8; ++corner) {
        double weight = 1;
        int64_t offset = 0;
        for (int i = 2; i >= 0 && weight != 0; --i) {
          const int64_t step = corner >> i & 1;
          const int64_t v = cells[p].low[i] + step;
          if (v < windows[i].begin(k[i]) || v >= windows[i].end(k[i])) {
            weight = 0;
            break;
          }
          weight *= (step == 1 ? cells[p].fraction[i] : 1 - cells[p].fraction[i]) *
                    windows[i].weight(k[i], v);
          offset = offset * side[i] + v - start[i];
        }
        if (weight == 0) continue;
        const int64_t stride = side[0] * side[1] * side[2];
        for (size_t c = 0; c < channels; ++c) {
          sums[p][c] += weight * values[static_cast<int64_t>(c) * stride + offset];
        }
      }
    }
  }
  for (size_t p = 0; p < result.size(); ++p) {
    for (double value : sums[p]) result[p].values.push_back(static_cast<float>(value));
  }
  return result;
}

absl::StatusOr<std::vector<LabelFeature>> Extractor::Impl::Pool(
    const Volume& volume, const Volume& labels, const WindowOptions& options,
    const CancelFunction& cancelled, int64_t memory_bytes, int64_t max_labels) {
  if (labels.kind() != VolumeKind::kLabels) {
    return absl::InvalidArgumentError(
        "labels: an image, not a label map; import it with kind LABELS");
  }
  auto input = Preprocessor::Make(volume, info.card);
  if (!input.ok()) return input.status();
  const Grid& grid = input->grid();
  const Resampler label_slices(labels, grid, Interpolation::kNearest, 0);
  const DenseSweep sweep = MakeSweep(grid, options);
  if (absl::Status status = CheckSlab(sweep, options.levels, 0, memory_bytes); !status.ok())
    return status;
  const size_t channels = static_cast<size_t>(info.card.dense_channels(options.levels));
  const size_t plane_size = static_cast<size_t>(grid.size[0] * grid.size[1]);
  std::map<int32_t, Statistics> statistics;
  std::vector<int32_t> slice(plane_size);
  // The labels are counted first: reading them costs little beside the network.
  for (int64_t z = 0; z < grid.size[2]; ++z) {
    label_slices.Labels(z, z + 1, slice.data());
    int32_t last = 0;
    for (const int32_t label : slice) {
      if (label == last) continue;
      last = label;
      if (label == 0) continue;
      statistics[label];
      if (static_cast<int64_t>(statistics.size()) > max_labels) {
        return absl::InvalidArgumentError(
            absl::StrCat("labels: more than ", max_labels, " different ones"));
      }
    }
  }
  if (statistics.empty()) {
    return absl::InvalidArgumentError(
        "labels: no label but background lies inside the image; is it the right volume?");
  }
  for (auto& [label, total] : statistics) {
    total.mean.resize(channels);
    total.squares.resize(channels);
  }
  const PlaneFunction on_plane = [&](int64_t z, const float* values) -> absl::Status {
    label_slices.Labels(z, z + 1, slice.data());
    std::map<int32_t, std::vector<size_t>> voxels;
    for (size_t i = 0; i < plane_size; ++i) {
      if (slice[i] != 0) voxels[slice[i]].push_back(i);
    }
    for (const auto& [label, places] : voxels) {
      Statistics& total = statistics[label];
      const double count = static_cast<double>(places.size()),
                   before = static_cast<double>(total.count);
      for (size_t c = 0; c < channels; ++c) {
        const float* channel = values + c * plane_size;
        double mean = 0, squares = 0;
        for (size_t i : places) mean += channel[i];
        mean /= count;
        for (size_t i : places) squares += (channel[i] - mean) * (channel[i] - mean);
        const double difference = mean - total.mean[c];
        total.mean[c] += difference * count / (before + count);
        total.squares[c] += squares + difference * difference * before * count / (before + count);
      }
      total.count += static_cast<int64_t>(places.size());
    }
    return absl::OkStatus();
  };
  if (absl::Status status = Sweep(*input, sweep, options, cancelled, on_plane); !status.ok())
    return status;
  std::vector<LabelFeature> result;
  for (const auto& [label, total] : statistics) {
    LabelFeature feature;
    feature.label = label;
    feature.voxel_count = total.count;
    for (size_t c = 0; c < channels; ++c) {
      feature.mean.push_back(static_cast<float>(total.mean[c]));
      feature.standard_deviation.push_back(
          static_cast<float>(std::sqrt(total.squares[c] / static_cast<double>(total.count))));
    }
    result.push_back(std::move(feature));
  }
  return result;
}

}  // namespace gvsl
