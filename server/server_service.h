// ServerService (proto/gvsl/v1/server.proto): how the server is.
#ifndef GVSL_SERVER_SERVER_SERVICE_H_
#define GVSL_SERVER_SERVER_SERVICE_H_

#include "gvsl/v1/server.grpc.pb.h"
#include "server/server_state.h"

namespace gvsl {

class ServerServiceImpl final : public v1::ServerService::CallbackService {
 public:
  explicit ServerServiceImpl(ServerState& state) : state_(state) {}
  grpc::ServerUnaryReactor* GetServerStatus(grpc::CallbackServerContext* context,
                                            const v1::GetServerStatusRequest* request,
                                            v1::ServerStatus* response) override;

 private:
  ServerState& state_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_SERVER_SERVICE_H_
