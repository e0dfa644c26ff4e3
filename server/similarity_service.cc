#include "server/similarity_service.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/status_reason.h"
#include "server/chunks.h"
#include "server/embedder.h"
#include "server/engine_call.h"
#include "server/model_registry.h"
#include "server/names.h"
#include "server/registration_apply.h"
#include "server/registration_calls.h"
#include "server/registration_maps.h"
#include "server/streams.h"
#include "server/volume_query.h"

namespace gvsl {
namespace {

constexpr int kDefaultTopK = 10, kMostTopK = 1000, kMostRerank = 50, kMostRegions = 8;

constexpr int kRerankSteps = 30;
constexpr int64_t kRerankVoxels = 131072;
static_assert(kMostTopK + 1 <= static_cast<int>(EmbeddingStore::kMostKeys));

double ScoreOf(const RegistrationVerdict& verdict, const v1::ServerConfig::RerankWeights& weights) {
  double score =
      weights.ncc() * verdict.ncc_after - weights.deformation() * verdict.deformation_energy;
  if (verdict.feature_residual_after)
    score += weights.features() * (1 - *verdict.feature_residual_after);
  return score;
}

// How hits are registered to the query: quickly, and well enough to compare.
absl::StatusOr<RegistrationOptions> RerankOptions(const ServerState& state,
                                                  const StoredModel& model,
                                                  const v1::SearchVolumesRequest& request) {
  v1::RegistrationOptions asked = request.rerank_options();
  if (!asked.has_refine_steps()) asked.set_refine_steps(kRerankSteps);
  if (asked.max_voxels() == 0) asked.set_max_voxels(kRerankVoxels);
  auto options = OptionsFrom(asked, model.model.card(), state.memory_bytes());
  if (!options.ok()) return options.status();
  options->regions = request.regions();
  return options;
}

// Errors of CompareAligned in the words of a search: its fixed volume is the query.
absl::Status OfSearch(const absl::Status& status) {
  const std::string words(status.message());
  const char* field = absl::StartsWith(words, "options.")  ? "rerank_"
                      : absl::StartsWith(words, "fixed: ") ? "volume: its image is the fixed one; "
                                                           : "";
  return WithReason(absl::Status(status.code(), field + words), ReasonOf(status).c_str());
}

// Registers the first hits to the query and puts them into the order of what comes out.
absl::Status Rerank(ServerState& state, const StoredModel& model, const StoredVolume& query,
                    const v1::SearchVolumesRequest& request, const RegistrationOptions& options,
                    const CancelFunction& cancelled, v1::SearchVolumesResponse* response) {
  auto& hits = *response->mutable_hits();
  const int count = std::min(request.rerank(), hits.size());
  for (int i = 0; i < count; ++i) {
    auto stored = state.metadata->GetVolume(hits[i].volume());
    auto aligned = stored.ok()
                       ? CompareAligned(state, model, query, *stored, options, cancelled, i > 0)
                       : absl::StatusOr<Registration>(stored.status());
    auto& similarity = *hits[i].mutable_aligned();
    if (!aligned.ok()) {
      // What is wrong with one hit alone (constant, too small, far away, deleted since) is its
      // verdict.
      const std::string words(aligned.status().message());
      if (!absl::IsNotFound(aligned.status()) && !absl::StartsWith(words, "moving: ") &&
          !absl::StartsWith(words, "fixed, moving: ")) {
        return OfSearch(aligned.status());
      }
      similarity.mutable_verdict()->set_quality(v1::RegistrationVerdict::FAILED);
      similarity.mutable_verdict()->set_reason(words);
      continue;
    }
    similarity.set_score(ScoreOf(aligned->verdict, state.config.rerank_weights()));
    *similarity.mutable_verdict() = ToProto(aligned->verdict);
    if (!aligned->regions) continue;
    *similarity.mutable_regions()->mutable_grid() = ToProto(aligned->regions->grid);
    similarity.mutable_regions()->mutable_ncc()->Add(aligned->regions->ncc.begin(),
                                                     aligned->regions->ncc.end());
  }
  const auto failed = [](const v1::SearchHit& hit) {
    return hit.aligned().verdict().quality() == v1::RegistrationVerdict::FAILED;
  };
  std::stable_sort(hits.begin(), hits.begin() + count,
                   [&](const v1::SearchHit& a, const v1::SearchHit& b) {
                     return std::pair(failed(a), -a.aligned().score()) <
                            std::pair(failed(b), -b.aligned().score());
                   });
  return absl::OkStatus();
}

absl::Status Search(ServerState& state, const v1::SearchVolumesRequest& request,
                    const CancelFunction& cancelled, v1::SearchVolumesResponse* response) {
  const int top_k = request.top_k() == 0 ? kDefaultTopK : request.top_k();
  if (top_k < 1 || top_k > kMostTopK) {
    return absl::InvalidArgumentError(absl::StrCat("top_k: ", request.top_k(), " must lie in 1 to ",
                                                   kMostTopK, ", or be 0 for ", kDefaultTopK));
  }
  if (request.rerank() < 0 || request.rerank() > kMostRerank) {
    return absl::InvalidArgumentError(
        absl::StrCat("rerank: ", request.rerank(), " must lie in 0 to ", kMostRerank));
  }
  if (request.regions() < 0 || request.regions() > kMostRegions) {
    return absl::InvalidArgumentError(absl::StrCat(
        "regions: ", request.regions(), " along each axis; it must lie in 0 to ", kMostRegions));
  }
  // A wrong filter is told before the device computes anything.
  if (auto filter = ParseVolumeFilter(request.filter()); !filter.ok()) return filter.status();
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  auto volume = VolumeOf(state, request.volume(), "volume", false);
  if (!volume.ok()) return volume.status();
  auto rerank_options = RerankOptions(state, *model, request);
  if (!rerank_options.ok()) return OfSearch(rerank_options.status());
  auto query = EmbeddingOf(state, *model, *volume, cancelled);
  if (!query.ok()) return query.status();
  const std::string& fingerprint = model->model.identity().fingerprint();
  auto answer = state.embeddings->Search(fingerprint, *query, std::max(top_k, request.rerank()),
                                         request.filter(), volume->volume.name());
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
  if (request.rerank() > 0) {
    absl::Status status =
        Rerank(state, *model, *volume, request, *rerank_options, cancelled, response);
    if (!status.ok()) return status;
  }
  if (response->hits_size() > top_k)
    response->mutable_hits()->DeleteSubrange(top_k, response->hits_size() - top_k);
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

absl::Status Register(ServerState& state, const v1::RegisterVolumesRequest& request,
                      const CancelFunction& cancelled,
                      StreamWriter<v1::RegisterVolumesResponse>& stream) {
  v1::RegisterVolumesResponse message;
  bool holds_device = false;
  auto made = MakeRegistration(state, request, cancelled,
                               [&](const v1::RegisterVolumesResponse::Progress& progress) {
                                 if (!std::exchange(holds_device, true)) stream.HoldDevice();
                                 *message.mutable_progress() = progress;
                                 return stream.Write(message);
                               });
  stream.ReleaseDevice();
  if (!made.ok()) return made.status();
  *message.mutable_registration() = *std::move(made);
  return stream.Write(message);
}

absl::Status Download(ServerState& state, const v1::DownloadRegistrationFileRequest& request,
                      const CancelFunction& cancelled,
                      StreamWriter<v1::DownloadRegistrationFileResponse>& stream) {
  auto file = WriteRegistrationFile(state, request, state.ScratchPath(), cancelled);
  if (!file.ok()) return file.status();
  std::error_code error;
  const auto removed = absl::MakeCleanup([&] { std::filesystem::remove(file->path, error); });
  v1::DownloadRegistrationFileResponse response;
  response.mutable_header()->set_file_name(file->file_name);
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(file->path, error));
  if (error) return absl::InternalError("the file that was written is gone; try again");
  response.mutable_header()->set_total_bytes(bytes);
  if (absl::Status status = stream.Write(response); !status.ok()) return status;
  return WithoutPaths(SendFile(file->path, 0, bytes, stream), {file->path}, kScratchFile);
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

grpc::ServerWriteReactor<v1::RegisterVolumesResponse>* SimilarityServiceImpl::RegisterVolumes(
    grpc::CallbackServerContext* context, const v1::RegisterVolumesRequest* request) {
  using Writer = StreamWriter<v1::RegisterVolumesResponse>;
  return Writer::Start(context, state_.calls, [this, context, request = *request](Writer& stream) {
    return Register(state_, request, CancelledBy(context), stream);
  });
}

grpc::ServerUnaryReactor* SimilarityServiceImpl::GetRegistration(
    grpc::CallbackServerContext* context, const v1::GetRegistrationRequest* request,
    v1::Registration* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("registrations", request->name(), "name");
    if (!id.ok()) return id.status();
    auto stored = state_.registrations->Get(request->name());
    if (stored.ok()) *response = std::move(stored->registration);
    return stored.status();
  });
}

grpc::ServerUnaryReactor* SimilarityServiceImpl::ListRegistrations(
    grpc::CallbackServerContext* context, const v1::ListRegistrationsRequest* request,
    v1::ListRegistrationsResponse* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto page = state_.registrations->List(*request);
    if (page.ok()) *response = *std::move(page);
    return page.status();
  });
}

grpc::ServerUnaryReactor* SimilarityServiceImpl::DeleteRegistration(
    grpc::CallbackServerContext* context, const v1::DeleteRegistrationRequest* request,
    google::protobuf::Empty*) {
  return HandleUnary(context, state_.calls, [this, request]() -> absl::Status {
    auto id = IdOf("registrations", request->name(), "name");
    if (!id.ok()) return id.status();
    return state_.RemoveBlob([&] { return state_.registrations->Delete(request->name()); });
  });
}

grpc::ServerUnaryReactor* SimilarityServiceImpl::ApplyRegistration(
    grpc::CallbackServerContext* context, const v1::ApplyRegistrationRequest* request,
    v1::Volume* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return gvsl::ApplyRegistration(state_, *request, CancelledBy(context), response);
  });
}

grpc::ServerUnaryReactor* SimilarityServiceImpl::TransferLabels(
    grpc::CallbackServerContext* context, const v1::TransferLabelsRequest* request,
    v1::Volume* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return gvsl::TransferLabels(state_, *request, CancelledBy(context), response);
  });
}

grpc::ServerUnaryReactor* SimilarityServiceImpl::MatchPoints(grpc::CallbackServerContext* context,
                                                             const v1::MatchPointsRequest* request,
                                                             v1::MatchPointsResponse* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return gvsl::MatchPoints(state_, *request, CancelledBy(context), response);
  });
}

grpc::ServerWriteReactor<v1::DownloadRegistrationFileResponse>*
SimilarityServiceImpl::DownloadRegistrationFile(
    grpc::CallbackServerContext* context, const v1::DownloadRegistrationFileRequest* request) {
  using Writer = StreamWriter<v1::DownloadRegistrationFileResponse>;
  return Writer::Start(context, state_.calls, [this, context, request = *request](Writer& stream) {
    return Download(state_, request, CancelledBy(context), stream);
  });
}

}  // namespace gvsl
