// SimilarityService (proto/gvsl/v1/similarity.proto): translates between the wire and the catalog
// of embeddings.
#ifndef GVSL_SERVER_SIMILARITY_SERVICE_H_
#define GVSL_SERVER_SIMILARITY_SERVICE_H_

#include "gvsl/v1/similarity.grpc.pb.h"
#include "server/server_state.h"

namespace gvsl {

class SimilarityServiceImpl final : public v1::SimilarityService::CallbackService {
 public:
  explicit SimilarityServiceImpl(ServerState& state) : state_(state) {}

  grpc::ServerUnaryReactor* SearchVolumes(grpc::CallbackServerContext* context,
                                          const v1::SearchVolumesRequest* request,
                                          v1::SearchVolumesResponse* response) override;
  grpc::ServerWriteReactor<v1::BackfillEmbeddingsResponse>* BackfillEmbeddings(
      grpc::CallbackServerContext* context, const v1::BackfillEmbeddingsRequest* request) override;

 private:
  ServerState& state_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_SIMILARITY_SERVICE_H_
