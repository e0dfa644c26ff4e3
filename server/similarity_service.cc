#include "server/similarity_service.h"

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/embedder.h"
#include "server/engine_call.h"
#include "server/streams.h"
#include "server/volume_query.h"

namespace gvsl {
namespace {

constexpr int kDefaultTopK = 10, kMostTopK = 1000;
static_assert(kMostTopK + 1 <= static_cast<int>(EmbeddingStore::kMostKeys));

absl::Status Search(ServerState& state, const v1::SearchVolumesRequest& request,
                    const CancelFunction& cancelled, v1::SearchVolumesResponse* response) {
  const int top_k = request.top_k() == 0 ? kDefaultTopK : request.top_k();
  if (top_k < 1 || top_k > kMostTopK) {
    return absl::InvalidArgumentError(absl::StrCat("top_k: ", request.top_k(), " must lie in 1 to ",
                                                   kMostTopK, ", or be 0 for ", kDefaultTopK));
  }
  // A wrong filter is told before the device computes anything.
  if (auto filter = ParseVolumeFilter(request.filter()); !filter.ok()) return filter.status();
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  auto volume = VolumeOf(state, request.volume(), "volume", false);
  if (!volume.ok()) return volume.status();
  auto query = EmbeddingOf(state, *model, *volume, cancelled);
  if (!query.ok()) return query.status();
  const std::string& fingerprint = model->model.identity().fingerprint();
  auto answer =
      state.embeddings->Search(fingerprint, *query, top_k, request.filter(), volume->volume.name());
  if (!answer.ok()) return answer.status();
  if (answer->candidates == 0) {
    auto embedded = state.embeddings->store().Count(fingerprint);
    if (!embedded.ok()) return embedded.status();
    if (*embedded <= 1) {  // the query's own
      return WithReason(
          absl::FailedPreconditionError(absl::StrCat(
              model->model.name(), " has embedded no other volume yet; embed what is stored (gvsl ",
              "embeddings backfill --model ", model->model.name(),
              "), and set auto_embed in gvsld's configuration for what comes")),
          "NO_EMBEDDINGS");
    }
  }
  for (CatalogHit& found : answer->hits) {
    auto* hit = response->add_hits();
    hit->set_volume(std::move(found.volume.volume));
    hit->set_display_name(std::move(found.volume.display_name));
    hit->set_modality(std::move(found.volume.modality));
    hit->set_global_similarity(found.similarity);
  }
  *response->mutable_model() = model->model.identity();
  response->set_candidate_count(answer->candidates);
  response->set_exact(answer->exact);
  return absl::OkStatus();
}

absl::Status Backfill(ServerState& state, const v1::BackfillEmbeddingsRequest& request,
                      const CancelFunction& cancelled,
                      StreamWriter<v1::BackfillEmbeddingsResponse>& stream) {
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  auto total = state.embeddings->store().CountMissing(model->model.identity().fingerprint(),
                                                      request.filter());
  if (!total.ok()) return total.status();
  v1::BackfillEmbeddingsResponse progress;
  progress.set_total(*total);
  *progress.mutable_model() = model->model.identity();
  const auto send = [&]() {
    v1::BackfillEmbeddingsResponse message = progress;
    return stream.Write(message);
  };
  if (absl::Status status = send(); !status.ok()) return status;
  return EmbedMissing(state, *model, request.filter(), cancelled,
                      [&](const std::string& volume, const absl::Status& status) {
                        progress.clear_failure();
                        if (status.ok()) {
                          progress.set_embedded(progress.embedded() + 1);
                        } else {
                          progress.set_failed(progress.failed() + 1);
                          progress.mutable_failure()->set_volume(volume);
                          progress.mutable_failure()->set_reason(std::string(status.message()));
                        }
                        return send();
                      });
}

}  // namespace

grpc::ServerUnaryReactor* SimilarityServiceImpl::SearchVolumes(
    grpc::CallbackServerContext* context, const v1::SearchVolumesRequest* request,
    v1::SearchVolumesResponse* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return Search(state_, *request, CancelledBy(context), response);
  });
}

grpc::ServerWriteReactor<v1::BackfillEmbeddingsResponse>* SimilarityServiceImpl::BackfillEmbeddings(
    grpc::CallbackServerContext* context, const v1::BackfillEmbeddingsRequest* request) {
  using Writer = StreamWriter<v1::BackfillEmbeddingsResponse>;
  return Writer::Start(context, state_.calls, [this, context, request = *request](Writer& stream) {
    return Backfill(state_, request, CancelledBy(context), stream);
  });
}

}  // namespace gvsl
