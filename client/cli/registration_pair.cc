#include "client/cli/registration_pair.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/progress.h"
#include "client/reports.h"
#include "imaging/output_file.h"
#include "imaging/transform_file.h"

namespace gvsl::cli {

using FileRequest = v1::DownloadRegistrationFileRequest;

void AddPairOptions(CLI::App* verb, PairOptions& options) {
  verb->add_option("FIXED", options.fixed,
                   "the volume that stays: stored name or file (uploaded first)")
      ->required();
  verb->add_option("MOVING", options.moving,
                   "the volume that is brought onto it: stored name or file")
      ->required();
  verb->add_option("--model", options.model, "models/{id} (default: the server's default model)");
  verb->add_option("--refine", options.refine,
                   "steps of instance optimisation a level, 0 to 1000 (default 50)")
      ->check(CLI::Range(0, 1000));
  verb->add_flag("--no-network", options.no_network,
                 "start from the initialisation alone, not from the model's answer");
  verb->add_flag("--no-deformation", options.no_deformation, "the linear part alone");
  verb->add_flag("--discrete", options.discrete,
                 "search large displacements before the deformable steps");
  verb->add_option("--init", options.initialisation,
                   "auto, none, centre_of_view or centre_of_mass (default auto)")
      ->check(CLI::IsMember({"auto", "none", "centre_of_view", "centre_of_mass"}));
  verb->add_option("--linear", options.linear, "none, rigid or affine (default affine)")
      ->check(CLI::IsMember({"none", "rigid", "affine"}));
  verb->add_option("--metric", options.metric,
                   "weights of local correlation, MIND-SSC and dense features (default 1,0,0)")
      ->delimiter(',')
      ->expected(3);
  verb->add_option("--smoothness", options.smoothness,
                   "weight of the field's smoothness (default 0.5)");
  verb->add_flag("--inverse", options.inverse, "make the map from moving to fixed space, too");
  verb->add_flag("--consistency", options.consistency,
                 "register the other way round as well, and tell how far both disagree");
  verb->add_option("--fixed-mask", options.fixed_mask, "label map: only what is not 0 counts");
  verb->add_option("--moving-mask", options.moving_mask, "label map: only what is not 0 counts");
  verb->add_option("--modality", options.modality,
                   "modality of files that are uploaded first, such as CT or MR");
}

namespace {

absl::StatusOr<v1::RegisterVolumesRequest> RequestOf(Context& context, const PairOptions& options) {
  v1::RegisterVolumesRequest request;
  ImportOptions labels = options;
  labels.kind = "labels";
  for (const auto& [path, how, set] :
       {std::tuple(&options.fixed, static_cast<const ImportOptions*>(&options),
                   request.mutable_fixed()),
        std::tuple(&options.moving, static_cast<const ImportOptions*>(&options),
                   request.mutable_moving()),
        std::tuple(&options.fixed_mask, static_cast<const ImportOptions*>(&labels),
                   request.mutable_fixed_mask()),
        std::tuple(&options.moving_mask, static_cast<const ImportOptions*>(&labels),
                   request.mutable_moving_mask())}) {
    if (path->empty()) continue;
    auto name = NameOfVolume(context, *path, *how);
    if (!name.ok()) return name.status();
    *set = *name;
  }
  request.set_model(options.model);
  request.set_display_name(options.display_name);
  auto& wanted = *request.mutable_options();
  if (options.no_network) wanted.set_use_network(false);
  if (options.no_deformation) wanted.set_deformable(false);
  if (options.refine) wanted.set_refine_steps(*options.refine);
  if (options.smoothness) wanted.set_smoothness_weight(*options.smoothness);
  if (!options.metric.empty()) {
    wanted.mutable_metric()->set_lncc(options.metric[0]);
    wanted.mutable_metric()->set_mind(options.metric[1]);
    wanted.mutable_metric()->set_features(options.metric[2]);
  }
  wanted.set_discrete_stage(options.discrete);
  wanted.set_inverse(options.inverse);
  wanted.set_consistency(options.consistency);
  v1::RegistrationOptions::Initialisation initialisation = v1::RegistrationOptions::AUTO;
  if (!options.initialisation.empty()) {
    (void)v1::RegistrationOptions::Initialisation_Parse(
        absl::AsciiStrToUpper(options.initialisation), &initialisation);
  }
  wanted.set_initialisation(initialisation);
  if (options.linear == "none") wanted.set_linear(v1::RegistrationOptions::NO_LINEAR);
  if (options.linear == "rigid") wanted.set_linear(v1::RegistrationOptions::RIGID);
  return request;
}

}  // namespace

absl::StatusOr<v1::Registration> Register(Context& context, const PairOptions& options) {
  auto request = RequestOf(context, options);
  if (!request.ok()) return request.status();
  ProgressBar bar("registering");
  return context.client.RegisterVolumes(
      *request, [&bar](const v1::RegisterVolumesResponse::Progress& progress) {
        bar.Show(progress.steps() > 0 ? static_cast<double>(progress.step()) / progress.steps() : 0,
                 absl::StrFormat("%s  similarity %.3f", progress.stage(), progress.similarity()));
      });
}

absl::Status Judged(const v1::Registration& registration) {
  if (registration.verdict().quality() != v1::RegistrationVerdict::FAILED) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(registration.name(), " FAILED: ", registration.verdict().reason()));
}

void PrintRegistration(Context& context, const v1::Registration& registration) {
  if (context.json) return PrintJson(registration);
  PrintTable(RegistrationFigures(registration));
}

void AddFileOptions(CLI::App* verb, FileOptions& files) {
  const auto add = [&](const char* flags, std::string& path, const char* help, const char* ending) {
    verb->add_option(flags, path, help)->check(EndsIn({ending}));
  };
  add("-o,--output", files.warped, "the moving volume on the fixed grid", ".nii.gz");
  add("--affine", files.affine, "the affine part of fixed_to_moving, ITK transform", ".tfm");
  add("--field", files.field,
      "the displacements of fixed_to_moving in LPS mm, applied before the affine part, for ITK and "
      "ANTs",
      ".nii.gz");
  add("--composed-field", files.composed_field, "the whole of fixed_to_moving in one field",
      ".nii.gz");
  add("--learn2reg", files.learn2reg,
      "fixed_to_moving in voxels, as Learn2Reg has it; for volumes of the same size", ".nii.gz");
  verb->add_flag("--moving-to-fixed", files.moving_to_fixed,
                 "the files of the other direction: the fixed volume on the moving grid, and "
                 "moving_to_fixed; needs a registration made with --inverse");
  add("--report", files.report,
      "one page with the figures and pictures: checkerboards, overlays, warped grid, Jacobian",
      ".html");
}

namespace {

absl::Status Fetch(Context& context, const std::string& name, FileRequest::File file,
                   bool moving_to_fixed, const std::string& path) {
  FileRequest request;
  request.set_name(name);
  request.set_file(file);
  if (moving_to_fixed) request.set_direction(v1::MOVING_TO_FIXED);
  ProgressBar bar("downloading");
  absl::Status status = context.client.DownloadRegistrationFile(
      request, path, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  bar.Clear();
  return status;
}

// A folder that is gone when its scope ends.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::error_code error;
    path_ = (std::filesystem::temp_directory_path(error) / "gvsl.XXXXXX").string();
    if (mkdtemp(path_.data()) == nullptr) {
      status_ = absl::InternalError(
          absl::StrCat("cannot make a folder for temporary files: ", std::strerror(errno)));
    }
  }
  ~ScratchFolder() {
    std::error_code error;
    if (status_.ok()) std::filesystem::remove_all(path_, error);
  }
  const absl::Status& status() const { return status_; }
  std::string operator/(const char* name) const { return absl::StrCat(path_, "/", name); }

 private:
  std::string path_;
  absl::Status status_;
};

absl::StatusOr<SpatialMap> FetchMap(Context& context, const v1::Registration& registration) {
  const ScratchFolder folder;
  if (!folder.status().ok()) return folder.status();
  const std::string affine = folder / "affine.tfm", field = folder / "field.nii.gz";
  absl::Status status = Fetch(context, registration.name(), FileRequest::AFFINE, false, affine);
  if (!status.ok()) return status;
  SpatialMap map;
  auto its_affine = ReadItkAffine(affine);
  if (!its_affine.ok()) return its_affine.status();
  map.affine = *its_affine;
  if (!registration.has_fixed_to_moving_lattice()) return map;
  status = Fetch(context, registration.name(), FileRequest::FIELD, false, field);
  if (!status.ok()) return status;
  auto displacement = ReadDisplacementField(field);
  if (!displacement.ok()) return displacement.status();
  map.displacement = *std::move(displacement);
  return map;
}

absl::Status WriteReport(Context& context, const v1::Registration& registration,
                         const std::string& path) {
  auto map = FetchMap(context, registration);
  if (!map.ok()) return map.status();
  ProgressBar bar("downloading");
  const ProgressFunction show = [&bar](int64_t done, int64_t total) { bar.Update(done, total); };
  auto fixed = context.client.Download(registration.fixed(), show);
  if (!fixed.ok()) return fixed.status();
  auto moving = context.client.Download(registration.moving(), show);
  bar.Clear();
  if (!moving.ok()) return moving.status();
  auto page = RegistrationReport(registration, *fixed, *moving, *map);
  return page.ok() ? WriteWholeFile(path, *page) : page.status();
}

}  // namespace

absl::Status WriteFiles(Context& context, const v1::Registration& registration,
                        const FileOptions& files) {
  const auto wrote = [&](const std::string& path) {
    if (!context.json) std::printf("wrote %s\n", path.c_str());
  };
  for (const auto& [file, path] :
       {std::pair(FileRequest::WARPED, &files.warped),
        std::pair(FileRequest::AFFINE, &files.affine), std::pair(FileRequest::FIELD, &files.field),
        std::pair(FileRequest::COMPOSED_FIELD, &files.composed_field),
        std::pair(FileRequest::LEARN2REG_FIELD, &files.learn2reg)}) {
    if (path->empty()) continue;
    absl::Status status = Fetch(context, registration.name(), file, files.moving_to_fixed, *path);
    if (!status.ok()) return status;
    wrote(*path);
  }
  if (files.report.empty()) return absl::OkStatus();
  absl::Status status = WriteReport(context, registration, files.report);
  if (status.ok()) wrote(files.report);
  return status;
}

}  // namespace gvsl::cli
