// ModelService (proto/gvsl/v1/models.proto): translates between the wire, model files and the
// stores.
#ifndef GVSL_SERVER_MODEL_SERVICE_H_
#define GVSL_SERVER_MODEL_SERVICE_H_

#include "gvsl/v1/models.grpc.pb.h"
#include "server/server_state.h"

namespace gvsl {

class ModelServiceImpl final : public v1::ModelService::CallbackService {
 public:
  explicit ModelServiceImpl(ServerState& state) : state_(state) {}

  grpc::ServerReadReactor<v1::ImportModelRequest>* ImportModel(grpc::CallbackServerContext* context,
                                                               v1::Model* response) override;
  grpc::ServerUnaryReactor* CreateModel(grpc::CallbackServerContext* context,
                                        const v1::CreateModelRequest* request,
                                        v1::Model* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerWriteReactor<v1::ExportModelResponse>* ExportModel(
      grpc::CallbackServerContext* context, const v1::ExportModelRequest* request) override;
  grpc::ServerUnaryReactor* SetDefaultModel(grpc::CallbackServerContext* context,
                                            const v1::SetDefaultModelRequest* request,
                                            v1::Model* response) override;
  grpc::ServerUnaryReactor* DeleteModel(grpc::CallbackServerContext* context,
                                        const v1::DeleteModelRequest* request,
                                        google::protobuf::Empty* response) override;

 private:
  ServerState& state_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_MODEL_SERVICE_H_
