// Server: everything that gvsld is, without the process around it.
//
//   auto server = Server::Start(config);           // listens
//   (*server)->Drain();                            // SIGTERM
#ifndef GVSL_SERVER_SERVER_H_
#define GVSL_SERVER_SERVER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "gvsl/v1/server_config.pb.h"

namespace gvsl {

class Server {
 public:
  // `config` is complete (ReadCommandLine). The status says what a person must change.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const v1::ServerConfig& config);
  // Cancels what still runs.
  ~Server();

  int port() const;
  // Readiness off, no new work; running calls get drain_timeout_s, then they are cancelled.
  void Drain();

 private:
  Server();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_SERVER_H_
