#include "trainer/task.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/sha256.h"
#include "trainer/card_conversion.h"

namespace gvsl {
namespace {

using Spec = v1::PretrainingSpec;

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty())
      text = absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  std::string text;
};

std::string Deterministic(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

MethodOptions MethodOf(const Spec::Method& method) {
  MethodOptions options;
  if (method.has_similarity_weight()) options.similarity_weight = method.similarity_weight();
  if (method.has_smoothness_weight()) options.smoothness_weight = method.smoothness_weight();
  if (method.has_restoration_weight()) options.restoration_weight = method.restoration_weight();
  if (method.ncc_window() > 0) options.ncc_window = method.ncc_window();
  options.signed_correlation = method.signed_correlation();
  if (method.has_z_matching()) options.z_matching = method.z_matching();
  if (method.has_fundament()) options.fundament = method.fundament();
  if (method.has_affine_head()) options.affine_head = method.affine_head();
  return options;
}

AugmentationOptions AugmentationOf(const Spec::Augmentation& from) {
  AugmentationOptions to;
  if (from.has_rotation_deg()) to.rotation_deg = from.rotation_deg();
  if (from.has_scale()) to.scale = from.scale();
  if (from.has_translation()) to.translation = from.translation();
  if (from.has_shear_deg()) to.shear_deg = from.shear_deg();
  if (from.has_elastic_voxels()) to.elastic_voxels = from.elastic_voxels();
  if (from.has_spatial_probability()) to.spatial_probability = from.spatial_probability();
  to.same_for_both = from.same_for_both();
  if (from.has_inpainting_probability()) to.inpainting_probability = from.inpainting_probability();
  if (from.has_shuffling_probability()) to.shuffling_probability = from.shuffling_probability();
  if (from.has_intensity_probability()) to.intensity_probability = from.intensity_probability();
  if (from.has_inversion_probability()) to.inversion_probability = from.inversion_probability();
  return to;
}

OptimizationOptions OptimizationOf(const Spec::Optimization& from) {
  OptimizationOptions to;
  if (from.steps() > 0) to.steps = from.steps();
  if (from.batch_size() > 0) to.batch_size = from.batch_size();
  if (from.accumulation() > 0) to.accumulation = from.accumulation();
  if (from.has_learning_rate()) to.learning_rate = from.learning_rate();
  to.decoupled_decay = from.optimizer() == Spec::Optimization::ADAMW;
  to.weight_decay = from.has_weight_decay() ? from.weight_decay() : to.decoupled_decay ? 0.01 : 0;
  to.warmup_steps = from.warmup_steps();
  if (from.schedule() == Spec::Optimization::COSINE) to.schedule = Schedule::kCosine;
  if (from.schedule() == Spec::Optimization::POLYNOMIAL) to.schedule = Schedule::kPolynomial;
  to.rate_by_fan_in = from.rate_by_fan_in();
  to.clip_norm = from.clip_norm();
  to.ema_decay = from.ema_decay();
  to.half_precision =
      from.precision() != Spec::Optimization::SINGLE;  // on the CPU it means nothing
  to.seed = from.seed();
  return to;
}

UpkeepOptions UpkeepOf(const Spec::Upkeep& from, int64_t steps) {
  UpkeepOptions to;
  const int64_t twentieth = std::clamp<int64_t>(steps / 20, 1, 1000);
  const auto set = [](int64_t value, int64_t otherwise) { return value > 0 ? value : otherwise; };
  to.report_every = set(from.report_every(), to.report_every);
  to.validate_every = set(from.validate_every(), twentieth);
  to.validation_pairs = set(from.validation_pairs(), to.validation_pairs);
  to.checkpoint_every = set(from.checkpoint_every(), twentieth);
  to.keep_checkpoints = set(from.keep_checkpoints(), to.keep_checkpoints);
  to.picture_every = set(from.picture_every(), to.validate_every);
  to.early_stopping = from.early_stopping();
  return to;
}

// The initial model's, trained on in the corrected geometry; else the spec's.
absl::StatusOr<ModelCard> CardOf(const v1::TrainingTask& task) {
  const Spec::Network& network = task.spec().network();
  if (!task.initial_model_path().empty()) {
    auto info = ReadModelInfo(task.initial_model_path());
    if (!info.ok()) return info.status();
    info->card.geometry = Geometry::kCorrected;
    return info->card;
  }
  auto card = CardFromProto(network.card(), Geometry::kCorrected);
  if (!card.ok()) return card;
  const auto& given = network.card().widths();
  if (given.size() == static_cast<int>(card->widths.size())) {
    std::copy(given.begin(), given.end(), card->widths.begin());
  } else if (!network.size().empty()) {
    auto widths = WidthsOf(network.size());
    if (!widths.ok()) return widths.status();
    card->widths = *widths;
  }
  card->size = SizeOf(card->widths);
  return card;
}

absl::StatusOr<std::vector<SourceVolume>> SourcesOf(
    const google::protobuf::RepeatedPtrField<v1::TrainingTask::TrainingVolume>& volumes) {
  std::vector<SourceVolume> sources;
  for (const auto& volume : volumes) {
    auto grid = FromProto(volume.grid());
    if (!grid.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("task.textproto: ", volume.name(), ": ", grid.status().message()));
    }
    sources.push_back({volume.name(), volume.path(), volume.voxels_sha256(), *grid,
                       FromProto(volume.voxel_type()), volume.modality()});
  }
  return sources;
}

}  // namespace

absl::StatusOr<v1::TrainingTask> ReadTask(const std::string& folder) {
  const std::string path = folder + "/task.textproto";
  std::ifstream file(path);
  if (!file) return absl::NotFoundError("task.textproto is not there; is this a job's folder?");
  std::stringstream text;
  text << file.rdbuf();
  v1::TrainingTask task;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text.str(), &task)) {
    return absl::InvalidArgumentError(absl::StrCat("task.textproto: ", error.text));
  }
  return task;
}

absl::StatusOr<TrainingSetup> SetupOf(const v1::TrainingTask& task, const std::string& folder) {
  const Spec& spec = task.spec();
  TrainingSetup setup;
  auto card = CardOf(task);
  if (!card.ok()) return card.status();
  setup.card = *card;
  TrainingOptions& options = setup.options;
  options.crop = spec.data().crop() > 0 ? spec.data().crop() : setup.card.crop;
  options.method = MethodOf(spec.method());
  options.augmentation = AugmentationOf(spec.augmentation());
  options.optimization = OptimizationOf(spec.optimization());
  options.upkeep = UpkeepOf(spec.upkeep(), options.optimization.steps);
  if (options.crop % 16 != 0 || options.crop < 32 || options.crop > 256) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.crop: ", options.crop, "; it is a multiple of 16 in 32 to 256"));
  }
  if (options.method.ncc_window % 2 == 0 || options.method.ncc_window > 31) {
    return absl::InvalidArgumentError(
        absl::StrCat("method.ncc_window: ", options.method.ncc_window, "; it is odd and 3 to 31"));
  }
  setup.card.crop = options.crop;
  setup.card.has_heads = true;
  if (absl::Status status = ValidateCard(setup.card); !status.ok()) return status;

  auto training = SourcesOf(task.training()), validation = SourcesOf(task.validation());
  if (!training.ok()) return training.status();
  if (!validation.ok()) return validation.status();
  setup.training = *std::move(training);
  setup.validation = *std::move(validation);
  setup.initial_model_path = task.initial_model_path();
  setup.cache_folder = task.cache_dir();
  setup.cache_bytes = task.cache_bytes();
  setup.folder = folder;
  setup.run_digest = RunDigest(task, setup);
  setup.provenance = [task](int64_t step, const std::optional<LossValues>& losses,
                            const std::optional<ValidationReport>& validation_report) {
    return ProvenanceOf(task, step, losses, validation_report);
  };
  return setup;
}

std::string RunDigest(const v1::TrainingTask& task, const TrainingSetup& setup) {
  Spec spec = task.spec();
  spec.clear_upkeep();                              // what is looked at and kept changes no weights
  spec.mutable_optimization()->clear_world_size();  // nor does who computes them
  std::string text = Deterministic(spec) + task.data_sha256();
  // A volume's modality, which chooses its intensities, may be changed after the job was created.
  for (const auto* volumes : {&setup.training, &setup.validation}) {
    absl::StrAppend(&text, "\n", volumes->size());
    for (const SourceVolume& volume : *volumes)
      absl::StrAppend(&text, " ", CacheKey(volume, setup.card));
  }
  return Sha256Of(text);
}

int ThreadsOfRank(const v1::TrainingTask& task, int cores) {
  const int ranks = std::max(1, task.spec().optimization().world_size());
  return std::max(1, (task.threads() > 0 ? task.threads() : cores) / ranks);
}

std::string ProvenanceOf(const v1::TrainingTask& task, int64_t step,
                         const std::optional<LossValues>& losses,
                         const std::optional<ValidationReport>& validation) {
  Spec settings = task.spec();
  settings.clear_data();  // may name thousands of volumes; its digest stands for it
  settings.mutable_network()->clear_card();
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(settings, &text);
  nlohmann::json provenance = {{"method", "GVSL pre-training (He et al., CVPR 2023)"},
                               {"program", absl::StrCat("gvsl-trainer ", GVSL_VERSION)},
                               {"job", task.job()},
                               {"settings", nlohmann::json::parse(text, nullptr, false)},
                               {"data_sha256", task.data_sha256()},
                               {"training_volumes", task.training_size()},
                               {"validation_volumes", task.validation_size()},
                               {"step", step}};
  if (losses) {
    provenance["training_loss"] = {{"total", losses->total},
                                   {"similarity", losses->similarity},
                                   {"smoothness", losses->smoothness},
                                   {"restoration", losses->restoration}};
  }
  if (validation) {
    provenance["validation"] = {{"step", validation->step},
                                {"total", validation->losses.total},
                                {"ncc_before", validation->ncc_before},
                                {"ncc_after", validation->ncc_after},
                                {"restoration", validation->losses.restoration},
                                {"folding_percent", validation->folding_percent}};
  }
  return provenance.dump();
}

v1::JobLosses ToProto(const LossValues& losses) {
  v1::JobLosses message;
  message.set_total(losses.total);
  message.set_similarity(losses.similarity);
  message.set_smoothness(losses.smoothness);
  message.set_restoration(losses.restoration);
  return message;
}

}  // namespace gvsl
