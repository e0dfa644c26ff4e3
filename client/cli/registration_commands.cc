// gvsl register, match, transfer, registrations.
#include <google/protobuf/util/time_util.h>

#include <cstdio>
#include <optional>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/points_file.h"
#include "client/progress.h"
#include "imaging/image_file.h"
#include "imaging/output_file.h"

namespace gvsl::cli {
namespace {

using FileRequest = v1::DownloadRegistrationFileRequest;

constexpr char kFixedHelp[] = "the volume that stays: stored name or file (uploaded first)";
constexpr char kMovingHelp[] = "the volume that is brought onto it: stored name or file";

// How two volumes are registered, or the registration that was made before.
struct PairOptions : ImportOptions {
  std::string fixed, moving, model, fixed_mask, moving_mask, initialisation, linear, display_name;
  std::optional<int> refine;
  std::optional<double> smoothness;
  std::vector<double> metric;
  bool no_network = false, no_deformation = false, discrete = false, inverse = false,
       consistency = false;
};

void AddPairOptions(CLI::App* verb, PairOptions& options) {
  verb->add_option("FIXED", options.fixed, kFixedHelp)->required();
  verb->add_option("MOVING", options.moving, kMovingHelp)->required();
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

// A registration that FAILED is no success, whatever else was done with it.
absl::Status Judged(const v1::Registration& registration) {
  if (registration.verdict().quality() != v1::RegistrationVerdict::FAILED) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(registration.name(), " FAILED: ", registration.verdict().reason()));
}

void PrintRegistration(Context& context, const v1::Registration& registration) {
  if (context.json) return PrintJson(registration);
  const auto& verdict = registration.verdict();
  std::vector<std::vector<std::string>> rows = {
      {"name", registration.name()},
      {"fixed", registration.fixed()},
      {"moving", registration.moving()},
      {"model", registration.model().model()},
      {"quality", absl::StrCat(v1::RegistrationVerdict::Quality_Name(verdict.quality()), ": ",
                               verdict.reason())},
      {"correlation",
       absl::StrFormat("%.4f, before %.4f", verdict.ncc_after(), verdict.ncc_before())},
      {"local correlation",
       absl::StrFormat("%.4f, before %.4f", verdict.local_ncc_after(), verdict.local_ncc_before())},
      {"overlap", absl::StrFormat("%.1f %%", verdict.overlap_percent())},
      {"Jacobian", absl::StrFormat("%.3f to %.3f, %.3f %% folded, SDlogJ %.4f",
                                   verdict.jacobian_min(), verdict.jacobian_max(),
                                   verdict.folding_percent(), verdict.sd_log_jacobian())}};
  if (verdict.has_inverse_consistency_mm()) {
    rows.push_back(
        {"inverse consistency", absl::StrFormat("%.3f mm", verdict.inverse_consistency_mm())});
  }
  if (verdict.has_feature_residual_after()) {
    rows.push_back(
        {"feature residual", absl::StrFormat("%.4f, before %.4f", verdict.feature_residual_after(),
                                             verdict.feature_residual_before())});
  }
  rows.push_back({"time on the device",
                  google::protobuf::util::TimeUtil::ToString(registration.compute_time())});
  PrintTable(rows);
}

absl::Status Download(Context& context, const std::string& name, FileRequest::File file,
                      const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  FileRequest request;
  request.set_name(name);
  request.set_file(file);
  ProgressBar bar("downloading");
  absl::Status status = context.client.DownloadRegistrationFile(
      request, path, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  bar.Clear();
  if (status.ok() && !context.json) std::printf("wrote %s\n", path.c_str());
  return status;
}

// Where the files of a registration go; empty: nowhere.
struct FileOptions {
  std::string warped, affine, field, composed_field, inverse_field, learn2reg;
};
void AddFileOptions(CLI::App* verb, FileOptions& files) {
  const auto add = [&](const char* flags, std::string& path, const char* help,
                       std::vector<std::string> endings) {
    verb->add_option(flags, path, help)->check(EndsIn(std::move(endings)));
  };
  add("-o,--output", files.warped, "the moving volume on the fixed grid", {".nii.gz"});
  add("--affine", files.affine, "the affine part of fixed_to_moving, ITK transform", {".tfm"});
  add("--field", files.field,
      "the displacements of fixed_to_moving in LPS mm, applied before the affine part, for ITK and "
      "ANTs",
      {".nii.gz"});
  add("--composed-field", files.composed_field, "the whole of fixed_to_moving in one field",
      {".nii.gz"});
  add("--inverse-field", files.inverse_field,
      "the whole of moving_to_fixed in one field (needs --inverse)", {".nii.gz"});
  add("--learn2reg", files.learn2reg, "fixed_to_moving in voxels, as Learn2Reg has it",
      {".nii.gz"});
}
absl::Status DownloadFiles(Context& context, const std::string& name, const FileOptions& files) {
  for (const auto& [file, path] :
       {std::pair(FileRequest::WARPED, &files.warped),
        std::pair(FileRequest::FIXED_TO_MOVING_AFFINE, &files.affine),
        std::pair(FileRequest::FIXED_TO_MOVING_FIELD, &files.field),
        std::pair(FileRequest::FIXED_TO_MOVING_COMPOSED_FIELD, &files.composed_field),
        std::pair(FileRequest::MOVING_TO_FIXED_COMPOSED_FIELD, &files.inverse_field),
        std::pair(FileRequest::LEARN2REG_FIELD, &files.learn2reg)}) {
    if (absl::Status status = Download(context, name, file, *path); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void AddRegister(CLI::App& app, Action& action) {
  struct Options : PairOptions {
    FileOptions files;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(app, "register", "Bring one volume onto another; the result is kept",
                           "gvsl register fixed.nii.gz moving.nii.gz -o warped.nii.gz --affine "
                           "fixed_to_moving.tfm --field fixed_to_moving.nii.gz");
  AddPairOptions(verb, *options);
  AddFileOptions(verb, options->files);
  verb->add_option("--name", options->display_name, "display name; never a patient's");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto registration = Register(context, *options);
      if (!registration.ok()) return registration.status();
      PrintRegistration(context, *registration);
      absl::Status status = DownloadFiles(context, registration->name(), options->files);
      return status.ok() ? Judged(*registration) : status;
    };
  });
}

void AddMatch(CLI::App& app, Action& action) {
  struct Options : PairOptions {
    std::string points, output;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(app, "match", "Where points of one volume lie in another, in LPS mm",
                           "gvsl match fixed.nii.gz moving.nii.gz --points landmarks.csv");
  AddPairOptions(verb, *options);
  verb->add_option("--points", options->points, "CSV of x,y,z in mm in the fixed volume")
      ->required();
  verb->add_option("-o,--output", options->output, "CSV to write (default: standard output)");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto points = ReadPoints(options->points);
      if (!points.ok()) return points.status();
      auto registration = Register(context, *options);
      if (!registration.ok()) return registration.status();
      v1::MatchPointsRequest request;
      request.set_registration(registration->name());
      for (const Vec3& point : *points) {
        auto* added = request.add_points();
        added->set_x_mm(point[0]);
        added->set_y_mm(point[1]);
        added->set_z_mm(point[2]);
      }
      auto answer = context.client.MatchPoints(request);
      if (!answer.ok()) return answer.status();
      std::string csv = "x_mm,y_mm,z_mm,out_of_view,cycle_distance_mm\n";
      for (const auto& match : answer->matches()) {
        absl::StrAppendFormat(&csv, "%.4f,%.4f,%.4f,%d,", match.point().x_mm(),
                              match.point().y_mm(), match.point().z_mm(), match.out_of_view());
        if (match.has_cycle_distance_mm())
          absl::StrAppendFormat(&csv, "%.4f", match.cycle_distance_mm());
        csv += "\n";
      }
      if (!options->output.empty()) {
        if (absl::Status status = WriteWholeFile(options->output, csv); !status.ok()) return status;
      }
      if (context.json) {
        PrintJson(*answer);
      } else if (options->output.empty()) {
        std::fputs(csv.c_str(), stdout);
      } else {
        std::printf("wrote %s\n", options->output.c_str());
      }
      return Judged(*registration);
    };
  });
}

struct ApplyOptions {
  std::string output, rule = "nearest";
  bool inverse_way = false;
};
void AddApplyOptions(CLI::App* verb, ApplyOptions& options) {
  verb->add_option("-o,--output", options.output, "file to write")
      ->required()
      ->check(EndsIn({".nii", ".nii.gz", ".mha"}));
  verb->add_option("--label-rule", options.rule, "nearest or majority (default nearest)")
      ->check(CLI::IsMember({"nearest", "majority"}));
}
// Carries a stored volume over; the server keeps no copy of what comes out.
absl::Status ApplyTo(Context& context, const std::string& registration, const std::string& volume,
                     const ApplyOptions& options) {
  v1::ApplyRegistrationRequest request;
  request.set_registration(registration);
  request.set_volume(volume);
  if (options.inverse_way) request.set_direction(v1::MOVING_TO_FIXED);
  if (options.rule == "majority") request.set_label_rule(v1::ApplyRegistrationRequest::MAJORITY);
  auto made = context.client.ApplyRegistration(request);
  if (!made.ok()) return made.status();
  absl::Status status;
  {
    ProgressBar bar("downloading");
    auto carried = context.client.Download(
        made->name(), [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
    status = carried.ok() ? WriteVolume(*carried, options.output) : carried.status();
  }
  absl::Status deleted = context.client.DeleteVolume(made->name());
  if (!status.ok()) return status;
  if (!context.json) std::printf("wrote %s\n", options.output.c_str());
  return deleted;
}

void AddTransfer(CLI::App& app, Action& action) {
  struct Options : PairOptions {
    std::string labels;
    ApplyOptions apply;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(app, "transfer", "Carry a label map of the moving volume over to the fixed one",
              "gvsl transfer fixed.nii.gz moving.nii.gz --labels moving_labels.nii.gz -o "
              "fixed_labels.nii.gz");
  AddPairOptions(verb, *options);
  verb->add_option("--labels", options->labels, "label map in the moving volume's space")
      ->required();
  AddApplyOptions(verb, options->apply);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      ImportOptions as_labels;
      as_labels.kind = "labels";
      auto labels = NameOfVolume(context, options->labels, as_labels);
      if (!labels.ok()) return labels.status();
      auto registration = Register(context, *options);
      if (!registration.ok()) return registration.status();
      absl::Status status = ApplyTo(context, registration->name(), *labels, options->apply);
      if (!status.ok()) return status;
      PrintRegistration(context, *registration);
      return Judged(*registration);
    };
  });
}

void AddList(CLI::App& group, Action& action) {
  struct Options {
    std::string filter;
    int64_t limit = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "list", "List registrations, newest first",
                           "gvsl registrations list --filter 'quality = GOOD'");
  verb->add_option("--filter", options->filter,
                   "comparisons of display_name, fixed, moving, quality and create_time, joined by "
                   "AND");
  verb->add_option("--limit", options->limit, "at most so many (default: all)")
      ->check(CLI::PositiveNumber);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::ListRegistrationsRequest request;
      request.set_filter(options->filter);
      auto registrations = context.client.ListRegistrations(request, options->limit);
      if (!registrations.ok()) return registrations.status();
      if (context.json) {
        v1::ListRegistrationsResponse list;
        for (auto& registration : *registrations)
          *list.add_registrations() = std::move(registration);
        PrintJson(list);
        return absl::OkStatus();
      }
      std::vector<std::vector<std::string>> rows = {
          {"NAME", "DISPLAY NAME", "QUALITY", "CORRELATION", "FIXED", "MOVING"}};
      for (const auto& registration : *registrations) {
        const auto& verdict = registration.verdict();
        rows.push_back({registration.name(), registration.display_name(),
                        v1::RegistrationVerdict::Quality_Name(verdict.quality()),
                        absl::StrFormat("%.4f", verdict.ncc_after()), registration.fixed(),
                        registration.moving()});
      }
      PrintTable(rows);
      return absl::OkStatus();
    };
  });
}

// A verb about one registration.
template <typename Work>
CLI::App* AddOne(CLI::App& group, Action& action, const char* verb_name, const char* what,
                 const std::string& example, Work work) {
  auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(group, verb_name, what, example);
  verb->add_option("REGISTRATION", *name, "registrations/{id}")->required();
  verb->callback([name, work, &action] {
    action = [name, work](Context& context) { return work(context, *name); };
  });
  return verb;
}

}  // namespace

void AddRegistrationCommands(CLI::App& app, Action& action) {
  AddRegister(app, action);
  AddMatch(app, action);
  AddTransfer(app, action);
  CLI::App* group = app.add_subcommand("registrations", "Stored registrations");
  group->require_subcommand(1);
  AddList(*group, action);
  AddOne(*group, action, "show", "What a registration is worth",
         "gvsl registrations show registrations/3f2a",
         [](Context& context, const std::string& name) -> absl::Status {
           auto registration = context.client.GetRegistration(name);
           if (registration.ok()) PrintRegistration(context, *registration);
           return registration.status();
         });
  auto volume = std::make_shared<std::string>();
  auto apply = std::make_shared<ApplyOptions>();
  CLI::App* verb = AddOne(*group, action, "apply",
                          "Carry an image or a label map over, without registering again",
                          "gvsl registrations apply registrations/3f2a --volume volumes/9b1c -o "
                          "carried.nii.gz",
                          [volume, apply](Context& context, const std::string& name) {
                            return ApplyTo(context, name, *volume, *apply);
                          });
  verb->add_option("--volume", *volume, "volumes/{id} of the moving space")->required();
  verb->add_flag("--moving-to-fixed", apply->inverse_way,
                 "the other way: a volume of the fixed space onto the moving grid");
  AddApplyOptions(verb, *apply);
  auto files = std::make_shared<FileOptions>();
  AddFileOptions(AddOne(*group, action, "download", "Files for ITK, ANTs, 3D Slicer and Learn2Reg",
                        "gvsl registrations download registrations/3f2a --composed-field "
                        "fixed_to_moving.nii.gz",
                        [files](Context& context, const std::string& name) {
                          return DownloadFiles(context, name, *files);
                        }),
                 *files);
  AddOne(*group, action, "delete", "Delete a registration",
         "gvsl registrations delete registrations/3f2a",
         [](Context& context, const std::string& name) {
           return context.client.DeleteRegistration(name);
         });
}

}  // namespace gvsl::cli
