#include "ingest/import_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/client.h"
#include "client/progress.h"
#include "client/text_table.h"
#include "ingest/dicom_logging.h"
#include "ingest/importer.h"

namespace gvsl {
namespace {

using nlohmann::json;

struct ImportArguments {
  ImportOptions options;
  ClientOptions client;
  std::string key_file;
  bool dry_run = false, json = false;
};

std::string GridText(const Grid& grid) {
  return absl::StrFormat("%dx%dx%d, %.4gx%.4gx%.4g mm", grid.size[0], grid.size[1], grid.size[2],
                         grid.spacing_mm[0], grid.spacing_mm[1], grid.spacing_mm[2]);
}

std::string StateText(const ImportedVolume& volume) {
  if (!volume.status.ok()) return "NOT UPLOADED";
  return volume.name.empty() ? "fit to upload" : volume.name;
}

// Control characters of a file's text must not steer the terminal.
std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text;
}

void PrintReport(const ImportReport& report) {
  std::vector<std::vector<std::string>> rows = {
      {"SERIES", "MODALITY", "INSTANCES", "VOLUME", "STATE"}};
  for (const ImportedSeries& series : report.series) {
    const std::string title = series.series_instance_uid.empty() ? "(files of no series)"
                              : series.description.empty()       ? series.series_instance_uid
                                                                 : Printable(series.description);
    const std::string counts = VerdictCounts(series.ledger);
    if (series.volumes.empty()) {
      rows.push_back({title, series.modality, counts, "-",
                      series.status.ok() ? "no volume" : "NOT CONVERTED"});
    }
    for (const ImportedVolume& volume : series.volumes) {
      const bool first = &volume == &series.volumes.front();
      rows.push_back(
          {first ? title : "", first ? series.modality : "", first ? counts : "",
           absl::StrCat(GridText(volume.grid), volume.label.empty() ? "" : ", ",
                        Printable(volume.label), volume.geometry.resampled ? ", resampled" : ""),
           StateText(volume)});
    }
  }
  PrintTable(rows);
  // Why something is in no volume: each reason once a series, with its first file.
  for (const ImportedSeries& series : report.series) {
    std::map<Verdict, const LedgerEntry*> reasons;
    for (const LedgerEntry& entry : series.ledger) {
      if (entry.verdict != Verdict::kUsed) reasons.emplace(entry.verdict, &entry);
    }
    for (const auto& [verdict, entry] : reasons) {
      std::printf("%s: %s: %s\n", VerdictName(verdict), entry->path.c_str(),
                  Printable(entry->detail).c_str());
    }
  }
}

json StatusJson(const absl::Status& status) {
  return status.ok() ? json() : json(std::string(status.message()));
}

json VolumeJson(const ImportedVolume& volume) {
  json slices = json::array();
  for (const SliceSource& slice : volume.slices) {
    slices.push_back({{"sopInstanceUid", slice.sop_instance_uid}, {"frame", slice.frame}});
  }
  return {{"name", volume.name},
          {"displayName", volume.display_name},
          {"label", volume.label},
          {"size", volume.grid.size},
          {"spacingMm", volume.grid.spacing_mm},
          {"originMm", volume.grid.origin_mm},
          {"direction", volume.grid.direction},
          {"voxelType", VoxelTypeName(volume.type)},
          {"resampled", volume.geometry.resampled},
          {"tiltDegrees", volume.geometry.tilt_degrees},
          {"minStepMm", volume.geometry.min_step_mm},
          {"maxStepMm", volume.geometry.max_step_mm},
          {"slices", slices},
          {"error", StatusJson(volume.status)}};
}

void PrintJsonReport(const ImportReport& report) {
  json all = {{"series", json::array()}, {"unreadablePaths", json::array()}};
  for (const absl::Status& path : report.paths) all["unreadablePaths"].push_back(path.message());
  for (const ImportedSeries& series : report.series) {
    json volumes = json::array(), instances = json::array();
    for (const ImportedVolume& volume : series.volumes) volumes.push_back(VolumeJson(volume));
    for (const LedgerEntry& entry : series.ledger) {
      instances.push_back({{"path", entry.path},
                           {"sopInstanceUid", entry.sop_instance_uid},
                           {"verdict", VerdictName(entry.verdict)},
                           {"detail", entry.detail}});
    }
    all["series"].push_back({{"studyInstanceUid", series.study_instance_uid},
                             {"seriesInstanceUid", series.series_instance_uid},
                             {"modality", series.modality},
                             {"description", series.description},
                             {"volumes", volumes},
                             {"instances", instances},
                             {"error", StatusJson(series.status)}});
  }
  // Texts of files may be in any character set.
  std::puts(all.dump(2, ' ', false, json::error_handler_t::replace).c_str());
}

// Says what failed, each on standard error; OK if nothing did.
absl::Status Outcome(const ImportReport& report) {
  int64_t instances = 0, volumes = 0, failures = 0;
  absl::Status first;
  const auto fail = [&](const absl::Status& status) {
    if (status.ok()) return;
    // One lost server is told once, not once a series.
    if (failures++ == 0 || status != first) {
      std::fprintf(stderr, "gvsl-ingest: %s\n", std::string(status.message()).c_str());
    }
    if (first.ok()) first = status;
  };
  for (const absl::Status& path : report.paths) fail(path);
  for (const ImportedSeries& series : report.series) {
    instances += static_cast<int64_t>(series.ledger.size());
    fail(series.status);
    for (const ImportedVolume& volume : series.volumes) {
      fail(volume.status);
      volumes += volume.status.ok();
    }
  }
  if (failures > 0) {
    return absl::Status(first.code(),
                        absl::StrCat(volumes, " volumes done, ", failures,
                                     " failures, named above; the files are as they were, and the "
                                     "same command goes on from here"));
  }
  if (instances == 0) return absl::NotFoundError("there are no files in what was given");
  return absl::OkStatus();
}

absl::Status Run(const ImportArguments& arguments) {
  SilenceDicomLog();
  const absl::StatusOr<Pseudonyms> pseudonyms = Pseudonyms::FromKeyFile(arguments.key_file);
  if (!pseudonyms.ok()) return pseudonyms.status();
  std::optional<Client> client;
  if (!arguments.dry_run) {
    client.emplace(arguments.client);
    // Before an hour of reading.
    if (absl::Status status = client->CheckHealth(); !status.ok()) return status;
  }
  ImportReport report;
  {
    std::optional<ProgressBar> bar;
    const char* drawn = nullptr;
    report = Import(arguments.options, *pseudonyms, client ? &*client : nullptr,
                    [&](const char* step, const char* unit, int64_t done, int64_t total) {
                      if (step != drawn) bar.emplace(step, unit);
                      drawn = step;
                      bar->Update(done, total);
                    });
  }
  if (arguments.json) {
    PrintJsonReport(report);
  } else {
    PrintReport(report);
  }
  return Outcome(report);
}

}  // namespace

void AddImportCommand(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<ImportArguments>();
  arguments->key_file = DefaultKeyFile();
  CLI::App* verb = app->add_subcommand(
      "import", "Make volumes of the DICOM series in folders, and upload them under pseudonyms");
  verb->add_option("PATH", arguments->options.paths, "folders, with all below them, and files")
      ->required();
  verb->add_option("--server", arguments->client.server, "HOST:PORT")
      ->envname("GVSL_SERVER")
      ->capture_default_str();
  verb->add_flag("--dry_run", arguments->dry_run, "make the volumes, send nothing");
  verb->add_flag("--json", arguments->json,
                 "print one JSON document: every volume with its slices, every file with its "
                 "verdict. It holds identifiers of the files");
  verb->add_option("--tag", arguments->options.tags,
                   "word to filter by; may be given several times")
      ->take_all()
      ->allow_extra_args(false);  // the words after a tag are paths
  verb->add_flag("--split_at_gaps", arguments->options.series.split_at_gaps,
                 "where slices are missing, make a volume of each side instead of refusing both");
  verb->add_option("--key_file", arguments->key_file,
                   "key of the pseudonyms, made if absent: keep it, and keep it secret")
      ->capture_default_str();
  verb->add_option("--threads", arguments->options.series.threads, "default 0: all cores")
      ->check(CLI::Range(0, 1024));
  verb->footer(
      "Patients stay unknown to the server: it receives voxels, geometry, modality, and keyed\n"
      "pseudonyms as tags. Importing the same files again makes nothing twice.\n\n"
      "Example:\n"
      "  gvsl-ingest import --dry_run /mnt/cd\n"
      "  gvsl-ingest import --tag trial-7 --server 10.0.0.5:8500 /data/studies");
  verb->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace gvsl
