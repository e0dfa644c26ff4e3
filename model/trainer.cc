#include "model/trainer.h"

#include <sys/resource.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <optional>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "model/checkpoint.h"
#include "model/objective.h"
#include "model/optimizer.h"
#include "model/pair_loader.h"
#include "model/state.h"
#include "model/validation.h"

namespace gvsl {
namespace {

using torch::Tensor;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t PeakMemory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// LibTorch throws; nothing does beyond this room.
template <typename F>
auto Guarded(F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "out of memory; use a smaller crop or batch, or accumulate over more passes");
  } catch (const std::exception& error) {
    const std::string what = std::string(error.what()).substr(0, 300);
    if (what.find("out of memory") != std::string::npos ||
        what.find("can't allocate") != std::string::npos) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "out of memory; use a smaller crop or batch, or accumulate over more passes (", what,
          ")"));
    }
    return absl::InternalError(absl::StrCat("LibTorch: ", what));
  }
}

absl::Status Cancelled() { return absl::CancelledError("stopped"); }

}  // namespace

struct Trainer::Impl {
  Impl(const TrainingSetup& s, TrainingObserver& o, RankGroup* g)
      : setup(s), options(setup.options), observer(o), group(g), device(setup.device) {}

  const TrainingSetup setup;
  const TrainingOptions& options;
  TrainingObserver& observer;
  RankGroup* const group;
  const at::Device device;
  std::array<double, 3> spacing_mm{};  // along D, H, W
  VolumeSet training, validation;
  GvslNetwork network{nullptr};
  GvslNetwork served_network{
      nullptr};          // with the averaged weights; `network` itself without an average
  StateDict parameters;  // shared with the network

  // Guards what a checkpoint holds: it is only changed under it, a step at a time.
  std::mutex state_mutex;
  std::unique_ptr<Adam> optimizer;
  int64_t step = 0;
  int64_t checkpointed_step = -1;
  int64_t validated_step = 0;
  double best_score = std::numeric_limits<double>::infinity();
  int64_t validations_since_best = 0;
  bool stopped = false;

  // For the model's card; changed under state_mutex, since checkpoints hold them, too.
  std::optional<LossValues> last_losses;
  std::optional<ValidationReport> last_validation;

  std::string resumed_from;
  // Since the last report.
  Clock::time_point report_start;
  double waited = 0, paused = 0;  // seconds: for data; for validation, pictures, checkpoints
  int64_t steps_since_report = 0;

  int rank() const { return group != nullptr ? group->rank() : 0; }
  int ranks() const { return group != nullptr ? group->size() : 1; }
  bool leads() const { return rank() == 0; }
  std::string Path(const char* name) const {
    return (std::filesystem::path(setup.folder) / name).string();
  }
  int64_t pass_size() const {
    return options.optimization.batch_size / (ranks() * options.optimization.accumulation);
  }

  absl::Status Prepare();
  absl::Status Cache(const std::vector<SourceVolume>& sources, VolumeCache& cache, VolumeSet& set);
  absl::Status Barrier();
  absl::StatusOr<TrainingResult> Run();
  absl::StatusOr<Tensor> Gradients(PairLoader& loader);
  absl::Status FinishStep(const Tensor& losses);
  absl::Status Report(const LossValues& losses, double norm);
  absl::Status Upkeep();
  absl::StatusOr<bool> EnoughValidations();
  GvslNetwork ServedNetwork();
  absl::Status Validate();
  absl::Status ShowPicture();
  absl::Status WriteCheckpointLocked();
  absl::Status WriteModel(const char* name);
};

absl::Status Trainer::Impl::Prepare() {
  const OptimizationOptions& o = options.optimization;
  if (o.batch_size % (ranks() * o.accumulation) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "optimization.batch_size: ", o.batch_size, " cannot be shared by ", ranks(), " ranks and ",
        o.accumulation, " passes; take a multiple of ", ranks() * o.accumulation));
  }
  if (!options.method.z_matching && !options.method.fundament) {
    return absl::InvalidArgumentError(
        "method: with neither z_matching nor fundament there is nothing to learn");
  }
  for (int axis = 0; axis < 3; ++axis) spacing_mm[axis] = setup.card.spacing_mm[2 - axis];
  if (absl::Status status = MakeFolders(setup.folder); !status.ok()) return status;
  VolumeCache cache(setup.cache_folder, setup.cache_bytes);
  if (absl::Status status = Cache(setup.training, cache, training); !status.ok()) return status;
  if (absl::Status status = Cache(setup.validation, cache, validation); !status.ok()) return status;
  if (training.size() < 2) {
    return absl::InvalidArgumentError("data: at least two training volumes are needed");
  }
  if (validation.size() == 1) {
    return absl::InvalidArgumentError("data: validation needs two volumes, or none");
  }

  network = GvslNetwork(setup.card);
  StateDict weights;
  if (setup.initial_model_path.empty()) {
    weights = InitialState(setup.card.widths, o.seed);
  } else {
    auto model = LoadModel(setup.initial_model_path);
    if (!model.ok()) return model.status();
    weights = std::move(model->state);
  }
  if (absl::Status status = network->LoadState(weights); !status.ok()) return status;
  network->to(device);
  network->set_affine_head(options.method.affine_head);
  for (const auto& parameter : network->named_parameters()) {
    parameters.emplace_back(parameter.key(), parameter.value());
  }
  optimizer = std::make_unique<Adam>(parameters, o);
  served_network = network;
  if (o.ema_decay > 0) {
    served_network = GvslNetwork(setup.card);
    served_network->to(device);
    served_network->set_affine_head(options.method.affine_head);
  }

  std::vector<std::string> warnings;
  auto checkpoint = ReadLastCheckpoint(Path("checkpoints"), setup.run_digest,
                                       [&](const std::string& text) { warnings.push_back(text); });
  if (!checkpoint.ok()) return checkpoint.status();
  if (leads()) {
    for (const std::string& text : warnings) {
      if (absl::Status status = observer.Warning(text); !status.ok()) return status;
    }
  }
  if (checkpoint->has_value()) {
    if (absl::Status s = optimizer->Load((*checkpoint)->state, (*checkpoint)->step); !s.ok())
      return s;
    step = checkpointed_step = (*checkpoint)->step;
    best_score = (*checkpoint)->best_score;
    validations_since_best = (*checkpoint)->validations_since_best;
    validated_step = (*checkpoint)->validated_step;
    last_losses = (*checkpoint)->losses;
    last_validation = (*checkpoint)->validation;
    resumed_from = CheckpointName(step);
  }
  return Barrier();
}

// Ranks share the preprocessing; each then maps all.
absl::Status Trainer::Impl::Cache(const std::vector<SourceVolume>& sources, VolumeCache& cache,
                                  VolumeSet& set) {
  for (size_t i = 0; i < sources.size(); ++i) {
    if (static_cast<int>(i % static_cast<size_t>(ranks())) != rank()) continue;
    if (auto volume = cache.Get(sources[i], setup.card); !volume.ok()) return volume.status();
  }
  if (absl::Status status = Barrier(); !status.ok()) return status;
  for (const SourceVolume& source : sources) {
    auto volume = cache.Get(source, setup.card);
    if (!volume.ok()) return volume.status();
    set.push_back(*std::move(volume));
  }
  return absl::OkStatus();
}

absl::Status Trainer::Impl::Barrier() {
  if (group == nullptr) return absl::OkStatus();
  Tensor nothing = torch::zeros({1}, at::TensorOptions(device).dtype(torch::kFloat));
  return group->Sum(nothing);
}

absl::StatusOr<TrainingResult> Trainer::Impl::Run() {
  if (leads()) {
    StartReport start;
    start.step = step;
    start.device = setup.device;
    start.checkpoint = resumed_from;
    for (const auto& [name, tensor] : parameters) start.parameter_count += tensor.numel();
    if (absl::Status status = observer.Started(start); !status.ok()) return status;
  }
  const OptimizationOptions& o = options.optimization;
  PairLoaderOptions loading;
  loading.crop = options.crop;
  loading.margin = CropMargin(options);
  loading.seed = o.seed;
  loading.batch_size = o.batch_size;
  loading.pass_size = pass_size();
  loading.passes = o.accumulation;
  loading.first_sample = rank() * o.accumulation * pass_size();
  loading.first_step = step;
  loading.threads = setup.loader_threads;
  loading.pinned = device.is_cuda();
  PairLoader loader(training, loading);

  report_start = Clock::now();
  TrainingResult result;
  while (true) {
    const auto start = Clock::now();
    if (step > 0) {
      if (leads()) {
        if (absl::Status status = Upkeep(); !status.ok()) return status;
      }
      auto enough = EnoughValidations();
      if (!enough.ok()) return enough.status();
      result.stopped_early = *enough;
    }
    if (step >= o.steps || result.stopped_early) break;
    paused += SecondsSince(start);
    auto losses = Gradients(loader);
    if (!losses.ok()) return losses.status();
    if (absl::Status status = FinishStep(*losses); !status.ok()) return status;
  }
  result.step = step;
  // Without the best one (an older program's loss of power may have cost it), the last one serves.
  result.model = std::isfinite(best_score) && std::filesystem::exists(Path("best.safetensors"))
                     ? "best.safetensors"
                     : "last.safetensors";
  if (leads()) {
    if (absl::Status status = WriteModel("last.safetensors"); !status.ok()) return status;
  }
  return result;
}

// What is due after the last finished step. Done again where a run was ended in its midst.
absl::Status Trainer::Impl::Upkeep() {
  const UpkeepOptions& upkeep = options.upkeep;
  const bool last = step == options.optimization.steps;
  if (!validation.empty() && validated_step != step &&
      (step % upkeep.validate_every == 0 || last)) {
    if (absl::Status status = Validate(); !status.ok()) return status;
  }
  if (checkpointed_step == step) return absl::OkStatus();
  if (step % upkeep.picture_every == 0 || last) {
    if (absl::Status status = ShowPicture(); !status.ok()) return status;
  }
  if (step % upkeep.checkpoint_every == 0 || last) {
    const std::lock_guard<std::mutex> lock(state_mutex);
    if (stopped) return Cancelled();
    return WriteCheckpointLocked();
  }
  return absl::OkStatus();
}

// Early stopping: rank 0 knows, all ranks hear it.
absl::StatusOr<bool> Trainer::Impl::EnoughValidations() {
  const UpkeepOptions& upkeep = options.upkeep;
  if (upkeep.early_stopping <= 0 || step % upkeep.validate_every != 0) return false;
  const bool enough = leads() && validations_since_best >= upkeep.early_stopping;
  if (group == nullptr) return enough;
  Tensor vote =
      torch::full({1}, enough ? 1.0f : 0.0f, at::TensorOptions(device).dtype(torch::kFloat));
  if (absl::Status status = group->Sum(vote); !status.ok()) return status;
  return vote.item<float>() > 0;
}

// Leaves the whole batch's mean gradients with the parameters, and returns its mean losses.
absl::StatusOr<Tensor> Trainer::Impl::Gradients(PairLoader& loader) {
  for (const auto& [name, parameter] : parameters) {
    Tensor gradient = parameter.grad();
    if (gradient.defined()) gradient.zero_();
  }
  Tensor sum;
  for (int64_t pass = 0; pass < options.optimization.accumulation; ++pass) {
    const auto asked = Clock::now();
    const PairBatch batch = loader.Next();
    waited += SecondsSince(asked);
    const TrainingImages images = Augment(batch, options, spacing_mm, device);
    const ObjectiveResult result = ComputeObjective(network, images, options, spacing_mm);
    result.losses.total.backward();
    sum = sum.defined() ? sum + StackedLosses(result.losses) : StackedLosses(result.losses);
  }
  const double share = 1.0 / static_cast<double>(options.optimization.accumulation * ranks());
  if (group == nullptr) {
    if (share != 1) {
      for (const auto& [name, parameter] : parameters) {
        Tensor gradient = parameter.grad();
        if (gradient.defined()) gradient.mul_(share);
      }
    }
    return sum * share;
  }
  // One message for everything.
  std::vector<Tensor> flat = {sum.view({-1})};
  for (const auto& [name, parameter] : parameters) {
    if (parameter.grad().defined()) flat.push_back(parameter.grad().view({-1}));
  }
  Tensor all = torch::cat(flat);
  if (absl::Status status = group->Sum(all); !status.ok()) return status;
  all.mul_(share);
  int64_t at = sum.numel();
  for (const auto& [name, parameter] : parameters) {
    Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    gradient.copy_(all.narrow(0, at, gradient.numel()).view(gradient.sizes()));
    at += gradient.numel();
  }
  return all.narrow(0, 0, sum.numel()).clone();
}

absl::Status Trainer::Impl::FinishStep(const Tensor& losses) {
  const OptimizationOptions& o = options.optimization;
  const LossValues values = LossValuesOf(losses);
  const double norm = ClipGradients(parameters, o.clip_norm);
  if (!std::isfinite(values.total) || !std::isfinite(norm)) {
    return WithReason(absl::DataLossError(absl::StrCat(
                          "the loss or its gradient is no longer finite at step ", step + 1,
                          "; use a lower learning rate, a warm-up, or clip_norm")),
                      "DIVERGED");
  }
  {
    const std::lock_guard<std::mutex> lock(state_mutex);
    if (stopped) return Cancelled();
    optimizer->Step(LearningRate(o, step));
    ++step;
    last_losses = values;
  }
  ++steps_since_report;
  const bool due = step % options.upkeep.report_every == 0 || step == 1 || step == o.steps;
  return leads() && due ? Report(values, norm) : absl::OkStatus();
}

absl::Status Trainer::Impl::Report(const LossValues& losses, double norm) {
  StepReport report;
  report.step = step;
  report.losses = losses;
  report.learning_rate = LearningRate(options.optimization, step - 1);
  report.gradient_norm = norm;
  const double seconds = std::max(1e-9, SecondsSince(report_start) - paused);
  report.steps_per_second = static_cast<double>(steps_since_report) / seconds;
  report.data_wait_share = waited / seconds;
  report.memory_bytes = PeakMemory();
  report_start = Clock::now();
  waited = paused = 0;
  steps_since_report = 0;
  return observer.Step(report);
}

GvslNetwork Trainer::Impl::ServedNetwork() {
  if (options.optimization.ema_decay > 0) {
    const StateDict average = optimizer->served();
    served_network->LoadState(average).IgnoreError();  // of the same card
  }
  return served_network;
}

absl::Status Trainer::Impl::Validate() {
  GvslNetwork served = ServedNetwork();
  ValidationReport report = gvsl::Validate(served, validation, options, spacing_mm, device);
  report.step = step;
  report.best = report.losses.total < best_score;
  {
    const std::lock_guard<std::mutex> lock(state_mutex);
    last_validation = report;
  }
  if (report.best) {
    if (absl::Status status = WriteModel("best.safetensors"); !status.ok()) return status;
  }
  {
    const std::lock_guard<std::mutex> lock(state_mutex);
    if (stopped) return Cancelled();
    if (report.best) best_score = report.losses.total;
    validations_since_best = report.best ? 0 : validations_since_best + 1;
    validated_step = step;
  }
  return observer.Validation(report);
}

absl::Status Trainer::Impl::ShowPicture() {
  GvslNetwork served = ServedNetwork();
  // A run without validation shows training volumes.
  PictureReport report =
      MakePicture(served, validation.empty() ? training : validation, options, spacing_mm, device);
  report.step = step;
  return observer.Picture(report);
}

absl::Status Trainer::Impl::WriteCheckpointLocked() {
  const auto start = Clock::now();
  gvsl::Checkpoint checkpoint;
  checkpoint.step = step;
  checkpoint.best_score = best_score;
  checkpoint.validations_since_best = validations_since_best;
  checkpoint.validated_step = validated_step;
  checkpoint.losses = last_losses;
  checkpoint.validation = last_validation;
  checkpoint.run_digest = setup.run_digest;
  checkpoint.state = optimizer->State();
  absl::Status status =
      WriteCheckpoint(Path("checkpoints"), checkpoint, options.upkeep.keep_checkpoints);
  if (!status.ok()) return status;
  checkpointed_step = step;
  return observer.Checkpoint({step, CheckpointName(step), SecondsSince(start)});
}

absl::Status Trainer::Impl::WriteModel(const char* name) {
  LoadedModel model;
  model.card = setup.card;
  for (const auto& [key, tensor] : optimizer->served()) {
    model.state.emplace_back(key, tensor.detach().to(torch::kCPU));
  }
  if (setup.provenance) {
    model.card.provenance = setup.provenance(step, last_losses, last_validation);
  }
  return SaveModel(model, Path(name));
}

Trainer::Trainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trainer::~Trainer() = default;

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Make(const TrainingSetup& setup,
                                                       TrainingObserver& observer,
                                                       RankGroup* group) {
  return Guarded([&]() -> absl::StatusOr<std::unique_ptr<Trainer>> {
    auto impl = std::make_unique<Impl>(setup, observer, group);
    if (absl::Status status = impl->Prepare(); !status.ok()) return status;
    return std::unique_ptr<Trainer>(new Trainer(std::move(impl)));
  });
}

absl::StatusOr<TrainingResult> Trainer::Run() {
  return Guarded([&] { return impl_->Run(); });
}

int64_t Trainer::step() const {
  const std::lock_guard<std::mutex> lock(impl_->state_mutex);
  return impl_->step;
}

absl::StatusOr<int64_t> Trainer::Stop() {
  return Guarded([&]() -> absl::StatusOr<int64_t> {
    const std::lock_guard<std::mutex> lock(impl_->state_mutex);
    impl_->stopped = true;
    if (impl_->leads() && impl_->step > 0 && impl_->checkpointed_step != impl_->step) {
      if (absl::Status status = impl_->WriteCheckpointLocked(); !status.ok()) return status;
    }
    return impl_->step;
  });
}

}  // namespace gvsl
