#include "client/cli/command.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/progress.h"
#include "google/rpc/error_details.pb.h"
#include "imaging/image_file.h"
#include "imaging/status_reason.h"

namespace gvsl::cli {
namespace {

std::string JsonOf(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = pretty;
  options.always_print_primitive_fields = true;
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  return text;
}

}  // namespace

CLI::Validator NotNegative() {
  return CLI::Validator(
      [](const std::string& text) {
        return text.rfind('-', 0) == 0 ? text + " is below 0" : std::string();
      },
      "", "not negative");
}

CLI::App* AddVerb(CLI::App& group, const std::string& name, const std::string& what,
                  const std::string& example) {
  CLI::App* verb = group.add_subcommand(name, what);
  verb->footer("Example:\n  " + example);
  return verb;
}

void AddImportOptions(CLI::App* verb, ImportOptions& options) {
  verb->add_option("--kind", options.kind, "image or labels (default image)")
      ->check(CLI::IsMember({"image", "labels"}));
  verb->add_option(
      "--modality", options.modality,
      "DICOM modality of the files, such as CT (voxels in HU) or MR; decides the intensity rule");
}

absl::StatusOr<v1::Volume> ImportPath(Context& context, const std::string& path,
                                      const ImportOptions& options) {
  ReadOptions read;
  read.kind = options.kind == "labels" ? VolumeKind::kLabels : VolumeKind::kImage;
  auto volume = ReadVolume(path, read);
  if (!volume.ok()) return volume.status();
  v1::Volume about;
  about.set_display_name(options.name.empty() ? std::filesystem::path(path).filename().string()
                                              : options.name);
  about.set_modality(options.modality);
  about.mutable_tags()->Assign(options.tags.begin(), options.tags.end());
  ProgressBar bar("uploading " + about.display_name().substr(0, 40));
  return context.client.Upload(*volume, about,
                               [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
}

absl::StatusOr<std::string> NameOfVolume(Context& context, const std::string& name_or_path,
                                         const ImportOptions& options) {
  std::error_code error;
  if (name_or_path.rfind("volumes/", 0) == 0 &&
      !std::filesystem::exists(name_or_path.substr(0, 4000), error)) {
    return name_or_path;
  }
  auto volume = ImportPath(context, name_or_path, options);
  if (!volume.ok()) return volume.status();
  return volume->name();
}

absl::StatusOr<std::vector<double>> ParseTriple(const std::string& text) {
  std::vector<double> values;
  for (const auto& part : absl::StrSplit(text, ',')) {
    double value = 0;
    if (!absl::SimpleAtod(part, &value) || !std::isfinite(value)) break;
    values.push_back(value);
  }
  if (values.size() == 3 && std::count(text.begin(), text.end(), ',') == 2) return values;
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text.substr(0, 60), "\" is not three numbers with commas, such as 1,1,2.5"));
}

std::function<std::string(const std::string&)> EndsIn(std::vector<std::string> endings) {
  return [endings](const std::string& path) -> std::string {
    for (const std::string& ending : endings) {
      if (absl::EndsWith(path, ending)) return "";
    }
    return absl::StrCat("\"", path.substr(0, 200), "\" must end in ",
                        absl::StrJoin(endings, " or "));
  };
}

void PrintJson(const google::protobuf::Message& message) {
  std::fputs(JsonOf(message, true).c_str(), stdout);
}

void PrintJsonLine(const google::protobuf::Message& message) {
  std::puts(JsonOf(message, false).c_str());
}

void PrintJsonError(const absl::Status& status, bool line) {
  google::rpc::Status error;
  error.set_code(static_cast<int32_t>(status.code()));
  error.set_message(std::string(status.message()));
  if (const std::string reason = ReasonOf(status); !reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    info.set_domain("gvsl");
    error.add_details()->PackFrom(info);
  }
  line ? PrintJsonLine(error) : PrintJson(error);
}

std::string BytesText(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

}  // namespace gvsl::cli
