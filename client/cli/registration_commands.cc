// gvsl register, match, transfer, registrations.
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/registration_pair.h"
#include "client/points_file.h"
#include "client/progress.h"
#include "imaging/image_file.h"
#include "imaging/output_file.h"

namespace gvsl::cli {
namespace {

void AddRegister(CLI::App& app, Action& action) {
  struct Options : PairOptions {
    FileOptions files;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(app, "register", "Bring one volume onto another; the result is kept",
              "gvsl register fixed.nii.gz moving.nii.gz -o warped.nii.gz --affine "
              "fixed_to_moving.tfm --field fixed_to_moving.nii.gz --report report.html");
  AddPairOptions(verb, *options);
  AddFileOptions(verb, options->files);
  verb->add_option("--name", options->display_name, "display name; never a patient's");
  verb->callback([options, &action] {
    if (options->files.moving_to_fixed) options->inverse = true;  // or there would be no such file
    action = [options](Context& context) -> absl::Status {
      auto registration = Register(context, *options);
      if (!registration.ok()) return registration.status();
      PrintRegistration(context, *registration);
      absl::Status status = WriteFiles(context, *registration, options->files);
      return status.ok() ? Judged(*registration) : status;
    };
  });
}

struct PointOptions {
  std::string points, output;
};
void AddPointOptions(CLI::App* verb, PointOptions& options) {
  verb->add_option("--points", options.points, "CSV of x,y,z in mm, LPS, in the volume they are of")
      ->required();
  verb->add_option("-o,--output", options.output, "CSV to write (default: standard output)");
}

// Matches the points of a file and writes a table, one line a point.
absl::Status Match(Context& context, v1::MatchPointsRequest request, const PointOptions& options) {
  auto points = ReadPoints(options.points);
  if (!points.ok()) return points.status();
  for (const Vec3& point : *points) {
    auto* added = request.add_points();
    added->set_x_mm(point[0]);
    added->set_y_mm(point[1]);
    added->set_z_mm(point[2]);
  }
  absl::StatusOr<v1::MatchPointsResponse> answer = absl::UnknownError("");
  {
    ProgressBar bar("matching", "points");
    answer = context.client.MatchPoints(
        request, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  }
  if (!answer.ok()) return answer.status();
  std::string csv = "x_mm,y_mm,z_mm,out_of_view,cycle_distance_mm,score\n";
  for (const auto& match : answer->matches()) {
    if (match.has_point()) {
      absl::StrAppendFormat(&csv, "%.4f,%.4f,%.4f,", match.point().x_mm(), match.point().y_mm(),
                            match.point().z_mm());
    } else {
      csv += ",,,";
    }
    absl::StrAppendFormat(&csv, "%d,", match.out_of_view());
    if (match.has_cycle_distance_mm())
      absl::StrAppendFormat(&csv, "%.4f", match.cycle_distance_mm());
    csv += ",";
    if (match.has_score()) absl::StrAppendFormat(&csv, "%.4f", match.score());
    csv += "\n";
  }
  if (!options.output.empty()) {
    if (absl::Status status = WriteWholeFile(options.output, csv); !status.ok()) return status;
  }
  if (context.json) {
    PrintJson(*answer);
  } else if (options.output.empty()) {
    std::fputs(csv.c_str(), stdout);
  } else {
    std::printf("wrote %s\n", options.output.c_str());
  }
  return absl::OkStatus();
}

void AddMatch(CLI::App& app, Action& action) {
  struct Options : PairOptions {
    PointOptions points;
    std::string by = "registration";
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(app, "match", "Where points of one volume lie in another, in LPS mm",
                           "gvsl match fixed.nii.gz moving.nii.gz --points landmarks.csv");
  AddPairOptions(verb, *options);
  AddPointOptions(verb, options->points);
  verb->add_option("--by", options->by,
                   "registration, or features: by the model's dense features, each point alone "
                   "(default registration)")
      ->check(CLI::IsMember({"registration", "features"}));
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      // A wrong file is told before anything is computed.
      if (auto points = ReadPoints(options->points.points); !points.ok()) return points.status();
      v1::MatchPointsRequest request;
      if (options->by == "features") {
        auto fixed = NameOfVolume(context, options->fixed, *options);
        if (!fixed.ok()) return fixed.status();
        auto moving = NameOfVolume(context, options->moving, *options);
        if (!moving.ok()) return moving.status();
        request.set_fixed(*fixed);
        request.set_moving(*moving);
        request.set_model(options->model);
        return Match(context, request, options->points);
      }
      auto registration = Register(context, *options);
      if (!registration.ok()) return registration.status();
      request.set_registration(registration->name());
      absl::Status status = Match(context, request, options->points);
      return status.ok() ? Judged(*registration) : status;
    };
  });
}

struct ApplyOptions {
  std::string output, rule = "nearest";
  bool moving_to_fixed = false;

  v1::ApplyRegistrationRequest::LabelRule label_rule() const {
    return rule == "majority" ? v1::ApplyRegistrationRequest::MAJORITY
                              : v1::ApplyRegistrationRequest::NEAREST;
  }
};
void AddApplyOptions(CLI::App* verb, ApplyOptions& options) {
  verb->add_option("-o,--output", options.output, "file to write")
      ->required()
      ->check(EndsIn({".nii", ".nii.gz", ".mha"}));
  verb->add_option("--label-rule", options.rule, "nearest or majority (default nearest)")
      ->check(CLI::IsMember({"nearest", "majority"}));
}
// Downloads a volume that was carried over; the server keeps no copy of it. Returns its record.
absl::StatusOr<v1::Volume> Take(Context& context, absl::StatusOr<v1::Volume> made,
                                const std::string& output) {
  if (!made.ok()) return made;
  absl::Status status;
  {
    ProgressBar bar("downloading");
    auto carried = context.client.Download(
        made->name(), [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
    status = carried.ok() ? WriteVolume(*carried, output) : carried.status();
  }
  absl::Status deleted = context.client.DeleteVolume(made->name());
  if (!status.ok()) return status;
  if (!deleted.ok()) return deleted;
  if (!context.json) std::printf("wrote %s\n", output.c_str());
  made->clear_name();
  return made;
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
  verb->add_option("--labels", options->labels, "label map on the moving volume's grid")
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
      v1::TransferLabelsRequest request;
      request.set_registration(registration->name());
      request.set_labels(*labels);
      request.set_label_rule(options->apply.label_rule());
      auto carried = Take(context, context.client.TransferLabels(request), options->apply.output);
      if (!carried.ok()) return carried.status();
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
  CLI::App* verb = AddOne(
      *group, action, "apply", "Carry an image or a label map over, without registering again",
      "gvsl registrations apply registrations/3f2a --volume volumes/9b1c -o carried.nii.gz",
      [volume, apply](Context& context, const std::string& name) {
        v1::ApplyRegistrationRequest request;
        request.set_registration(name);
        request.set_volume(*volume);
        if (apply->moving_to_fixed) request.set_direction(v1::MOVING_TO_FIXED);
        request.set_label_rule(apply->label_rule());
        auto carried = Take(context, context.client.ApplyRegistration(request), apply->output);
        if (carried.ok() && context.json) PrintJson(*carried);
        return carried.status();
      });
  verb->add_option("--volume", *volume, "volumes/{id} of the moving space")->required();
  AddApplyOptions(verb, *apply);
  verb->add_flag("--moving-to-fixed", apply->moving_to_fixed,
                 "the other way: a volume of the fixed space onto the moving grid");
  auto points = std::make_shared<PointOptions>();
  auto backward = std::make_shared<bool>(false);
  verb = AddOne(*group, action, "match", "Where points lie, without registering again",
                "gvsl registrations match registrations/3f2a --points landmarks.csv",
                [points, backward](Context& context, const std::string& name) {
                  v1::MatchPointsRequest request;
                  request.set_registration(name);
                  if (*backward) request.set_direction(v1::MOVING_TO_FIXED);
                  return Match(context, request, *points);
                });
  AddPointOptions(verb, *points);
  verb->add_flag("--moving-to-fixed", *backward, "the other way: points of the moving space");
  auto files = std::make_shared<FileOptions>();
  AddFileOptions(AddOne(*group, action, "download",
                        "Files for ITK, ANTs, 3D Slicer and Learn2Reg, and a page for people",
                        "gvsl registrations download registrations/3f2a --composed-field "
                        "fixed_to_moving.nii.gz",
                        [files](Context& context, const std::string& name) -> absl::Status {
                          auto registration = context.client.GetRegistration(name);
                          if (!registration.ok()) return registration.status();
                          if (context.json) PrintJson(*registration);
                          return WriteFiles(context, *registration, *files);
                        }),
                 *files);
  AddOne(*group, action, "delete", "Delete a registration",
         "gvsl registrations delete registrations/3f2a",
         [](Context& context, const std::string& name) {
           return context.client.DeleteRegistration(name);
         });
}

}  // namespace gvsl::cli
