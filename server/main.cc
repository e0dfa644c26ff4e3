// gvsld: the GVSL server.
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/config.h"
#include "server/log.h"
#include "server/server.h"

namespace {

// Written aside and renamed: whoever waits for the file never reads half a number.
bool WritePort(const std::string& path, int port) {
  const std::string aside = path + ".new";
  if (!(std::ofstream(aside) << port << "\n").flush()) return false;
  return std::rename(aside.c_str(), path.c_str()) == 0;
}

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
  if (!line->port_file.empty() && !WritePort(line->port_file, (*server)->port())) {
    return Fail(absl::InternalError(absl::StrCat("--port_file: cannot write ", line->port_file)));
  }
  int received = 0;
  sigwait(&signals, &received);
  (*server)->Drain();
  server->reset();
  gvsl::LogInfo("stopped");
  return 0;
}
