// gvsld: the GVSL server.
#include <pthread.h>
#include <signal.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "server/config.h"
#include "server/log.h"
#include "server/server.h"

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "gvsld: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  auto line = gvsl::ReadCommandLine(argc, argv);
  if (!line.ok()) return Fail(line.status());
  if (line->exit_code >= 0) return line->exit_code;

  signal(SIGPIPE, SIG_IGN);  // whoever reads the log may go; the server stays
  // Blocked before any thread is made, so that only sigwait below receives them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto server = gvsl::Server::Start(line->config);
  if (!server.ok()) return Fail(server.status());
  if (!line->port_file.empty()) {
    // Renamed into place: whoever waits for the file never reads half a number.
    const absl::Status written =
        gvsl::WriteWholeFile(line->port_file, absl::StrCat((*server)->port(), "\n"));
    if (!written.ok()) {
      return Fail(
          absl::InternalError(absl::StrCat("--port_file: ", std::string(written.message()))));
    }
  }
  int received = 0;
  sigwait(&signals, &received);
  (*server)->Drain();
  server->reset();
  gvsl::LogInfo("stopped");
  return 0;
}
