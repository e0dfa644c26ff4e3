// gvsl-ingest: the DICOM side of the service. One file a verb; each adds itself to
// the command line and leaves its action to be run once the whole line has proved right.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "ingest/fetch_command.h"
#include "ingest/import_command.h"
#include "ingest/phantom_command.h"
#include "ingest/results_command.h"
#include "ingest/serve_command.h"
#include "ingest/status_command.h"

namespace {

constexpr int kRequestFailed = 1;
constexpr int kBadUsage = 2;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("DICOM ingestion of the GVSL service.", "gvsl-ingest");
  app.require_subcommand(1);
  app.footer(
      "Example:\n  gvsl-ingest import /data/studies\n  gvsl-ingest phantom --count 3 -o "
      "phantoms\n\n"
      "Exit codes: 0, 1 the request failed, 2 bad usage.");
  gvsl::Action action;
  gvsl::AddImportCommand(&app, &action);
  gvsl::AddFetchCommand(&app, &action);
  gvsl::AddResultsCommand(&app, &action);
  gvsl::AddServeCommand(&app, &action);
  gvsl::AddStatusCommand(&app, &action);
  gvsl::AddPhantomCommand(&app, &action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;  // --help is told as an error, too
  }
  if (absl::Status status = action(); !status.ok()) {
    std::fprintf(stderr, "gvsl-ingest: %s\n", std::string(status.message()).c_str());
    return kRequestFailed;
  }
  return 0;
}
