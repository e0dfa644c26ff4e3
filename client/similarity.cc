// Similarity of the client library; declared in client/client.h.
#include "client/channel.h"

namespace gvsl {

absl::StatusOr<v1::SearchVolumesResponse> Client::SearchVolumes(
    const v1::SearchVolumesRequest& request) {
  return impl_->Unary<v1::SearchVolumesResponse>(
      [&](grpc::ClientContext& context, v1::SearchVolumesResponse* response) {
        return impl_->similarity->SearchVolumes(&context, request, response);
      });
}

absl::StatusOr<v1::BackfillEmbeddingsResponse> Client::BackfillEmbeddings(
    const v1::BackfillEmbeddingsRequest& request, const BackfillFunction& progress) {
  v1::BackfillEmbeddingsResponse message;
  absl::Status status = impl_->Call([&](grpc::ClientContext& context) {
    auto reader = impl_->similarity->BackfillEmbeddings(&context, request);
    while (reader->Read(&message)) {
      if (progress) progress(message);
    }
    return reader->Finish();
  });
  if (!status.ok()) return status;
  return message;
}

}  // namespace gvsl
