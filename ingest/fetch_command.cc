#include "ingest/fetch_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "client/progress.h"
#include "ingest/dicom_fetch.h"
#include "ingest/dicom_logging.h"
#include "ingest/import_command.h"
#include "ingest/private_folder.h"

namespace gvsl {
namespace {

struct FetchArguments {
  ScuOptions fetch;
  UploadArguments upload;
  std::string peer, move_to;
  std::vector<std::string> studies;
  bool dry_run = false, json = false;
};

absl::Status Fetch(FetchArguments arguments) {
  SilenceDicomLog();
  const absl::StatusOr<DicomPeer> peer = ParseDicomPeer(arguments.peer);
  if (!peer.ok()) return peer.status();
  arguments.fetch.peer = *peer;
  const PrivateFolder folder;  // what is fetched names patients
  if (!folder.status().ok()) return folder.status();
  absl::Status first;
  int64_t instances = 0;
  {
    ProgressBar bar("fetching", "instances");
    for (const std::string& study : arguments.studies) {
      const std::string inside =
          absl::StrCat(folder.path(), "/", arguments.upload.import.paths.size());
      std::error_code error;
      std::filesystem::create_directory(inside, error);
      arguments.upload.import.paths.push_back(inside);
      const FetchedStudy came =
          FetchStudy(arguments.fetch, study, inside, arguments.move_to,
                     [&](int64_t count) { bar.Update(instances + count, instances + count); });
      instances += came.instances;
      if (came.status.ok()) continue;
      std::fprintf(stderr, "gvsl-ingest: %s\n", std::string(came.status.message()).c_str());
      if (first.ok()) first = came.status;
    }
  }
  if (!arguments.move_to.empty()) {
    std::printf("%s: %lld instances were sent there\n", arguments.move_to.c_str(),
                static_cast<long long>(instances));
    if (first.ok()) return first;
  } else if (first.ok() || instances > 0) {
    // What came is of use also where something lacks.
    const absl::Status imported =
        ImportAndReport(arguments.upload, arguments.dry_run, arguments.json);
    if (first.ok()) return imported;
  }
  return absl::Status(first.code(), "not everything could be fetched, as told above");
}

}  // namespace

void AddFetchCommand(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<FetchArguments>();
  CLI::App* verb = app->add_subcommand(
      "fetch", "Get studies from an archive by C-GET, and import their CT, MR and PET series");
  verb->add_option("--peer", arguments->peer, "the archive, as AET@HOST:PORT")->required();
  verb->add_option("--study", arguments->studies, "Study Instance UID; may be given several times")
      ->required();
  verb->add_option("--ae_title", arguments->fetch.ae_title, "ours, as the archive knows it")
      ->capture_default_str();
  AddTlsOptions(verb, &arguments->fetch.tls);
  AddUploadOptions(verb, &arguments->upload);
  CLI::Option* dry_run =
      verb->add_flag("--dry_run", arguments->dry_run, "fetch and make the volumes, upload nothing");
  CLI::Option* as_json =
      verb->add_flag("--json", arguments->json, "print one JSON document, as import does");
  verb->add_option("--move", arguments->move_to,
                   "for an archive without C-GET: it sends the series by C-MOVE to this AE title, "
                   "where gvsl-ingest serve receives them")
      ->excludes(dry_run, as_json);
  verb->footer(
      "What is fetched lies in a private folder in $TMPDIR until it is imported.\n\n"
      "Example:\n"
      "  gvsl-ingest fetch --peer PACS@10.0.0.7:104 --study 1.2.840.113619.2.55.3");
  verb->callback([arguments, action] { *action = [arguments] { return Fetch(*arguments); }; });
}

}  // namespace gvsl
