// FeatureService (proto/gvsl/v1/features.proto): translates between the wire and the inference
// engine.
#ifndef GVSL_SERVER_FEATURE_SERVICE_H_
#define GVSL_SERVER_FEATURE_SERVICE_H_

#include "gvsl/v1/features.grpc.pb.h"
#include "server/server_state.h"

namespace gvsl {

class FeatureServiceImpl final : public v1::FeatureService::CallbackService {
 public:
  explicit FeatureServiceImpl(ServerState& state) : state_(state) {}

  grpc::ServerUnaryReactor* ExtractGlobal(grpc::CallbackServerContext* context,
                                          const v1::ExtractGlobalRequest* request,
                                          v1::ExtractGlobalResponse* response) override;
  grpc::ServerWriteReactor<v1::ExtractDenseResponse>* ExtractDense(
      grpc::CallbackServerContext* context, const v1::ExtractDenseRequest* request) override;
  grpc::ServerUnaryReactor* SampleFeatures(grpc::CallbackServerContext* context,
                                           const v1::SampleFeaturesRequest* request,
                                           v1::SampleFeaturesResponse* response) override;
  grpc::ServerUnaryReactor* PoolFeatures(grpc::CallbackServerContext* context,
                                         const v1::PoolFeaturesRequest* request,
                                         v1::PoolFeaturesResponse* response) override;

 private:
  ServerState& state_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_FEATURE_SERVICE_H_
