// SimilarityService (proto/gvsl/v1/similarity.proto): translates between the wire, the catalog
// of embeddings, and registrations.
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

  grpc::ServerWriteReactor<v1::RegisterVolumesResponse>* RegisterVolumes(
      grpc::CallbackServerContext* context, const v1::RegisterVolumesRequest* request) override;
  grpc::ServerUnaryReactor* GetRegistration(grpc::CallbackServerContext* context,
                                            const v1::GetRegistrationRequest* request,
                                            v1::Registration* response) override;
  grpc::ServerUnaryReactor* ListRegistrations(grpc::CallbackServerContext* context,
                                              const v1::ListRegistrationsRequest* request,
                                              v1::ListRegistrationsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteRegistration(grpc::CallbackServerContext* context,
                                               const v1::DeleteRegistrationRequest* request,
                                               google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ApplyRegistration(grpc::CallbackServerContext* context,
                                              const v1::ApplyRegistrationRequest* request,
                                              v1::Volume* response) override;
  grpc::ServerUnaryReactor* TransferLabels(grpc::CallbackServerContext* context,
                                           const v1::TransferLabelsRequest* request,
                                           v1::Volume* response) override;
  grpc::ServerUnaryReactor* MatchPoints(grpc::CallbackServerContext* context,
                                        const v1::MatchPointsRequest* request,
                                        v1::MatchPointsResponse* response) override;
  grpc::ServerWriteReactor<v1::DownloadRegistrationFileResponse>* DownloadRegistrationFile(
      grpc::CallbackServerContext* context,
      const v1::DownloadRegistrationFileRequest* request) override;

 private:
  ServerState& state_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_SIMILARITY_SERVICE_H_
