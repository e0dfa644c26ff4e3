// gvsl: the command line of the GVSL service.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "client/cli/command.h"

namespace {

constexpr int kFailed = 1, kBadUsage = 2;

// Keeps SIGINT and SIGTERM for CancelOnSignal. Called before any thread is made: one of gRPC's
// would otherwise receive them, and they would kill the program before it cleans up.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// SIGINT and SIGTERM end the calls under way; the command then reports "interrupted". A second one
// ends at once.
void CancelOnSignal(const sigset_t& signals, gvsl::Client& client) {
  std::thread([signals, &client] {
    int signal = 0;
    sigwait(&signals, &signal);
    client.CancelAll();
    sigwait(&signals, &signal);
    _exit(kFailed);
  }).detach();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("gvsl: volumes into a GVSL server, features and trained networks out of it.");
  app.footer(
      "Every command has an example in its help: gvsl volumes import --help\n"
      "Exit status: 0 done, 1 the request failed (with --json, a google.rpc.Status on standard "
      "output), 2 wrong usage.");
  app.set_version_flag("--version", GVSL_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // --json and --server may stand anywhere
  gvsl::ClientOptions options;
  bool json = false;
  app.add_option("--server", options.server, "HOST:PORT (default 127.0.0.1:8500)")
      ->envname("GVSL_SERVER");
  app.add_option("--timeout", options.timeout_s, "seconds each call may take (default: no limit)")
      ->check(CLI::PositiveNumber);
  app.add_flag("--json", json, "print one JSON document (jobs watch and logs: one a line)");
  gvsl::cli::Action action;
  gvsl::cli::AddVolumesCommands(app, action);
  gvsl::cli::AddModelsCommands(app, action);
  gvsl::cli::AddFeaturesCommands(app, action);
  gvsl::cli::AddRegistrationCommands(app, action);
  gvsl::cli::AddSimilarityCommands(app, action);
  gvsl::cli::AddJobsCommands(app, action);
  gvsl::cli::AddPhantomsCommands(app, action);
  gvsl::cli::AddServerCommands(app, action);
  gvsl::cli::AddCompletionCommand(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  }

  const sigset_t signals = BlockSignals();
  gvsl::Client client(options);
  CancelOnSignal(signals, client);
  gvsl::cli::Context context{client, json};
  absl::Status status = action(context);
  if (!status.ok() && json) gvsl::cli::PrintJsonError(status, context.json_lines);
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status.ok()) {
    status = absl::UnknownError("the output could not be written; is the disk full?");
  }
  if (!status.ok()) std::fprintf(stderr, "gvsl: %s\n", std::string(status.message()).c_str());
  // The signal thread still refers to the client: leave without taking it apart.
  _exit(status.ok() ? 0 : kFailed);
}
