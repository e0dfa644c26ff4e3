#include "server/job_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/names.h"
#include "trainer/card_conversion.h"

namespace gvsl {
namespace {

using Spec = v1::PretrainingSpec;

constexpr size_t kMostNameBytes = 256;
constexpr int64_t kMostSteps = 1000000000, kMostPictures = 10000;
constexpr int kDefaultCrop = 128, kLeastCrop = 32, kMostCrop = 256;

// The field where it is set, else its default; told where it lies outside.
#define COMPLETE(message, path, field, otherwise, low, high)                           \
  do {                                                                                 \
    if (!(message).has_##field()) (message).set_##field(otherwise);                    \
    violations.CheckRange(absl::StrCat((path), #field), (message).field(), low, high); \
  } while (false)
// As COMPLETE where 0 stands for unset.
#define COMPLETE_COUNT(message, path, field, otherwise, low, high)                              \
  do {                                                                                          \
    if ((message).field() == 0) (message).set_##field(otherwise);                               \
    violations.CheckRange<int64_t>(absl::StrCat((path), #field), (message).field(), low, high); \
  } while (false)

void CompleteMethod(Spec::Method& method, Violations& violations) {
  COMPLETE(method, "method.", similarity_weight, 1, 0.0, 1e6);
  COMPLETE(method, "method.", smoothness_weight, 1, 0.0, 1e6);
  COMPLETE(method, "method.", restoration_weight, 1, 0.0, 1e6);
  COMPLETE_COUNT(method, "method.", ncc_window, 9, 3, 31);
  if (method.ncc_window() % 2 == 0)
    violations.Add("method.ncc_window", absl::StrCat(method.ncc_window(), " is not odd"));
  if (!method.has_z_matching()) method.set_z_matching(true);
  if (!method.has_fundament()) method.set_fundament(true);
  if (!method.has_affine_head()) method.set_affine_head(true);
  if (!method.z_matching() && !method.fundament())
    violations.Add("method.fundament", "without it and without z_matching nothing is learnt");
  const double learnt = (method.z_matching() ? method.similarity_weight() : 0) +
                        (method.fundament() ? method.restoration_weight() : 0);
  if (learnt == 0 && (method.z_matching() || method.fundament()))
    violations.Add("method.similarity_weight",
                   "no loss that compares images has a weight: nothing is learnt");
}

void CompleteAugmentation(Spec::Augmentation& augmentation, Violations& violations) {
  COMPLETE(augmentation, "augmentation.", rotation_deg, 20, 0.0, 180.0);
  COMPLETE(augmentation, "augmentation.", scale, 0.25, 0.0, 0.9);
  COMPLETE(augmentation, "augmentation.", translation, 0.05, 0.0, 0.5);
  COMPLETE(augmentation, "augmentation.", shear_deg, 5, 0.0, 45.0);
  COMPLETE(augmentation, "augmentation.", elastic_voxels, 2, 0.0, 20.0);
  COMPLETE(augmentation, "augmentation.", spatial_probability, 1, 0.0, 1.0);
  COMPLETE(augmentation, "augmentation.", inpainting_probability, 0.9, 0.0, 1.0);
  COMPLETE(augmentation, "augmentation.", shuffling_probability, 0.5, 0.0, 1.0);
  COMPLETE(augmentation, "augmentation.", intensity_probability, 0.9, 0.0, 1.0);
  COMPLETE(augmentation, "augmentation.", inversion_probability, 0.5, 0.0, 1.0);
}

void CompleteOptimization(int cuda_devices, Spec::Optimization& run, Violations& violations) {
  using Optimization = Spec::Optimization;
  COMPLETE_COUNT(run, "optimization.", steps, 200000, 1, kMostSteps);
  COMPLETE_COUNT(run, "optimization.", batch_size, 2, 1, 4096);
  COMPLETE_COUNT(run, "optimization.", accumulation, 1, 1, 4096);
  COMPLETE_COUNT(run, "optimization.", world_size, 1, 1, 64);
  const bool cuda = cuda_devices > 0;
  if (cuda && run.world_size() > cuda_devices) {
    violations.Add("optimization.world_size",
                   absl::StrCat(run.world_size(),
                                " ranks need as many CUDA devices and NCCL; this "
                                "server can give a job ",
                                cuda_devices));
  }
  const int64_t parts = int64_t{run.accumulation()} * run.world_size();
  if (parts > 0 && run.batch_size() % parts != 0) {
    violations.Add(
        "optimization.batch_size",
        absl::StrCat(run.batch_size(), " cannot be shared by accumulation x world_size ", parts));
  }
  COMPLETE(run, "optimization.", learning_rate, 1e-4, 0.0, 1.0);
  if (run.learning_rate() == 0) violations.Add("optimization.learning_rate", "0 learns nothing");
  if (run.optimizer() == Optimization::OPTIMIZER_UNSPECIFIED) run.set_optimizer(Optimization::ADAM);
  if (!Optimization::Optimizer_IsValid(run.optimizer()))
    violations.Add("optimization.optimizer", "ADAM or ADAMW");
  const double decay = run.optimizer() == Optimization::ADAMW ? 0.01 : 0;
  COMPLETE(run, "optimization.", weight_decay, decay, 0.0, 1.0);
  if (run.schedule() == Optimization::SCHEDULE_UNSPECIFIED)
    run.set_schedule(Optimization::CONSTANT);
  if (!Optimization::Schedule_IsValid(run.schedule()))
    violations.Add("optimization.schedule", "CONSTANT, COSINE or POLYNOMIAL");
  violations.CheckRange<int64_t>("optimization.warmup_steps", run.warmup_steps(), 0, run.steps());
  violations.CheckRange("optimization.clip_norm", run.clip_norm(), 0.0, 1e9);
  violations.CheckRange("optimization.ema_decay", run.ema_decay(), 0.0, 0.99999);
  if (run.precision() == Optimization::PRECISION_UNSPECIFIED)
    run.set_precision(cuda ? Optimization::BFLOAT16 : Optimization::SINGLE);
  if (!Optimization::Precision_IsValid(run.precision())) {
    violations.Add("optimization.precision", "SINGLE or BFLOAT16");
  } else if (run.precision() == Optimization::BFLOAT16 && !cuda) {
    violations.Add("optimization.precision", "BFLOAT16 needs CUDA; this server runs on the CPU");
  }
}

void CompleteUpkeep(int64_t steps, bool validates, Spec::Upkeep& upkeep, Violations& violations) {
  const int64_t twentieth = std::clamp<int64_t>(steps / 20, 1, 1000);
  COMPLETE_COUNT(upkeep, "upkeep.", report_every, 10, 1, kMostSteps);
  COMPLETE_COUNT(upkeep, "upkeep.", validate_every, twentieth, 1, kMostSteps);
  COMPLETE_COUNT(upkeep, "upkeep.", validation_pairs, 8, 1, 1000000);
  COMPLETE_COUNT(upkeep, "upkeep.", checkpoint_every, twentieth, 1, kMostSteps);
  COMPLETE_COUNT(upkeep, "upkeep.", keep_checkpoints, 3, 1, 1000);
  COMPLETE_COUNT(upkeep, "upkeep.", picture_every, upkeep.validate_every(), 1, kMostSteps);
  if (upkeep.picture_every() > 0 && steps / upkeep.picture_every() > kMostPictures) {
    violations.Add("upkeep.picture_every", absl::StrCat(upkeep.picture_every(), " makes more than ",
                                                        kMostPictures, " pictures"));
  }
  violations.CheckRange("upkeep.early_stopping", upkeep.early_stopping(), 0, 1000000);
  if (upkeep.early_stopping() > 0 && !validates)
    violations.Add("upkeep.early_stopping", "needs validation volumes");
}
#undef COMPLETE
#undef COMPLETE_COUNT

// The card of the network that the spec describes; where it describes none, any valid one.
absl::StatusOr<ModelCard> CardOf(MetadataStore& metadata, Spec::Network& network,
                                 Violations& violations) {
  if (!network.initial_model().empty()) {
    if (!network.size().empty())
      violations.Add("network.size", "the initial model says it; leave it unset");
    if (network.has_card())
      violations.Add("network.card", "the initial model has its own; leave it unset");
    if (!IdOf("models", network.initial_model(), "").ok()) {
      violations.Add("network.initial_model", "no name of a model; it must be models/{id}");
      return ModelCard();
    }
    auto model = metadata.GetModel(network.initial_model());
    if (absl::IsNotFound(model.status()) || absl::IsFailedPrecondition(model.status())) {
      violations.Add("network.initial_model", std::string(model.status().message()));
      return ModelCard();
    }
    if (!model.ok()) return model.status();
    network.set_initial_model(model->model.name());  // `models/default` may mean another later
    v1::ModelCard stored = model->model.card();
    auto card = CardFromProto(stored, Geometry::kCorrected);
    if (!card.ok()) return card.status();
    card->size = stored.size();
    for (int i = 0; i < stored.widths_size() && i < 5; ++i) card->widths[i] = stored.widths(i);
    return card;
  }
  const auto& given = network.card().widths();
  if (network.size().empty()) network.set_size(given.empty() ? "base" : "custom");
  const bool custom = network.size() == "custom";
  auto widths = WidthsOf(custom ? "base" : network.size());
  if (!widths.ok()) violations.Add("network.size", "base, small, tiny, or custom with card.widths");
  if (!network.card().geometry().empty() && network.card().geometry() != "corrected")
    violations.Add("network.card.geometry", "new training is `corrected`");
  auto card = CardFromProto(network.card(), Geometry::kCorrected);
  if (!card.ok()) {
    const std::string text(card.status().message());
    if (text.rfind("card.", 0) == 0) {
      violations.AddBelow("network.", card.status());
    } else {
      violations.Add("network.card", text);
    }
    return ModelCard();
  }
  if (!widths.ok()) return card;
  if (custom && given.size() != static_cast<int>(widths->size())) {
    violations.Add("network.card.widths", "a custom network needs the channels of its five levels");
  } else if (custom) {
    std::copy(given.begin(), given.end(), widths->begin());
  } else if (!given.empty() &&
             !std::equal(given.begin(), given.end(), widths->begin(), widths->end())) {
    violations.Add("network.card.widths",
                   absl::StrCat("network.size says them: ", network.size(), " has ",
                                absl::StrJoin(*widths, ", "), "; leave one of the two unset"));
  }
  card->widths = *widths;
  card->size = SizeOf(card->widths);
  if (absl::Status status = ValidateCard(*card); !status.ok()) {
    violations.Add("network.card.widths", std::string(status.message()));
    return ModelCard();
  }
  network.set_size(card->size);
  return card;
}

}  // namespace

void CompleteSpec(const ModelCard& card, int cuda_devices, Spec& spec, Violations& violations) {
  const bool card_has_crop =
      card.crop >= kLeastCrop && card.crop <= kMostCrop && card.crop % 16 == 0;
  Spec::Data& data = *spec.mutable_data();
  if (data.crop() == 0) data.set_crop(card_has_crop ? static_cast<int>(card.crop) : kDefaultCrop);
  violations.CheckRange("data.crop", data.crop(), kLeastCrop, kMostCrop);
  if (data.crop() % 16 != 0)
    violations.Add("data.crop", absl::StrCat(data.crop(), " is no multiple of 16"));
  if (spec.network().initial_model().empty()) {
    ModelCard whole = card;
    whole.crop = data.crop();
    *spec.mutable_network()->mutable_card() = ToProto(whole);
  }
  CompleteMethod(*spec.mutable_method(), violations);
  CompleteAugmentation(*spec.mutable_augmentation(), violations);
  CompleteOptimization(cuda_devices, *spec.mutable_optimization(), violations);
  const bool validates = data.validation_volumes_size() > 0 || !data.validation_filter().empty();
  CompleteUpkeep(spec.optimization().steps(), validates, *spec.mutable_upkeep(), violations);
}

absl::StatusOr<ResolvedJob> ResolveJob(const v1::Job& job, MetadataStore& metadata,
                                       int cuda_devices) {
  Violations violations("job.");
  if (absl::Status status = CheckText(job.display_name(), kMostNameBytes, "display_name");
      !status.ok()) {
    violations.AddBelow("", status);
  }
  violations.SetPrefix("job.spec.");
  ResolvedJob resolved;
  resolved.spec = job.spec();
  auto card = CardOf(metadata, *resolved.spec.mutable_network(), violations);
  if (!card.ok()) return card.status();
  resolved.card = *std::move(card);
  resolved.initial_model = resolved.spec.network().initial_model();
  CompleteSpec(resolved.card, cuda_devices, resolved.spec, violations);
  auto data = ResolveData(resolved.spec.data(), metadata, violations);
  if (!data.ok()) return data.status();
  resolved.data = *std::move(data);
  if (absl::Status status = violations.status(); !status.ok()) return status;
  return resolved;
}

}  // namespace gvsl
