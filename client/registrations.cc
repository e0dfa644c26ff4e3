// Registrations of the client library; declared in client/client.h.
#include <algorithm>

#include "client/channel.h"
#include "client/wire.h"
#include "imaging/output_file.h"

namespace gvsl {

absl::StatusOr<v1::Registration> Client::RegisterVolumes(v1::RegisterVolumesRequest request,
                                                         const RegistrationFunction& progress) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  v1::RegisterVolumesResponse message;
  absl::Status status = impl_->Call([&](grpc::ClientContext& context) {
    auto reader = impl_->similarity->RegisterVolumes(&context, request);
    while (reader->Read(&message)) {
      if (message.has_progress() && progress) progress(message.progress());
    }
    return reader->Finish();
  });
  if (!status.ok()) return status;
  if (!message.has_registration())
    return absl::DataLossError("the server sent no registration; try again");
  return std::move(*message.mutable_registration());
}

absl::StatusOr<v1::Registration> Client::GetRegistration(const std::string& name) {
  v1::GetRegistrationRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Registration>(
      [&](grpc::ClientContext& context, v1::Registration* response) {
        return impl_->similarity->GetRegistration(&context, request, response);
      });
}

absl::StatusOr<std::vector<v1::Registration>> Client::ListRegistrations(
    v1::ListRegistrationsRequest request, int64_t limit) {
  std::vector<v1::Registration> registrations;
  do {
    if (limit > 0) {
      request.set_page_size(static_cast<int32_t>(
          std::min<int64_t>(limit - static_cast<int64_t>(registrations.size()), 1000)));
    }
    auto page = impl_->Unary<v1::ListRegistrationsResponse>(
        [&](grpc::ClientContext& context, v1::ListRegistrationsResponse* response) {
          return impl_->similarity->ListRegistrations(&context, request, response);
        });
    if (!page.ok()) return page.status();
    for (v1::Registration& registration : *page->mutable_registrations())
      registrations.push_back(std::move(registration));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() &&
           (limit == 0 || static_cast<int64_t>(registrations.size()) < limit));
  return registrations;
}

absl::Status Client::DeleteRegistration(const std::string& name) {
  v1::DeleteRegistrationRequest request;
  request.set_name(name);
  return impl_
      ->Unary<google::protobuf::Empty>(
          [&](grpc::ClientContext& context, google::protobuf::Empty* response) {
            return impl_->similarity->DeleteRegistration(&context, request, response);
          })
      .status();
}

absl::StatusOr<v1::Volume> Client::ApplyRegistration(v1::ApplyRegistrationRequest request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  return impl_->Unary<v1::Volume>([&](grpc::ClientContext& context, v1::Volume* response) {
    return impl_->similarity->ApplyRegistration(&context, request, response);
  });
}

absl::StatusOr<v1::Volume> Client::TransferLabels(v1::TransferLabelsRequest request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  return impl_->Unary<v1::Volume>([&](grpc::ClientContext& context, v1::Volume* response) {
    return impl_->similarity->TransferLabels(&context, request, response);
  });
}

absl::StatusOr<v1::MatchPointsResponse> Client::MatchPoints(const v1::MatchPointsRequest& request,
                                                            const ProgressFunction& progress) {
  const int most = request.registration().empty() ? kMostFeatureMatches : kMostMatches;
  v1::MatchPointsResponse all;
  v1::MatchPointsRequest part = request;
  for (int first = 0; first == 0 || first < request.points_size(); first += most) {
    const int last = std::min(request.points_size(), first + most);
    part.clear_points();
    for (int i = first; i < last; ++i) *part.add_points() = request.points(i);
    auto answer = impl_->Unary<v1::MatchPointsResponse>(
        [&](grpc::ClientContext& context, v1::MatchPointsResponse* response) {
          return impl_->similarity->MatchPoints(&context, part, response);
        });
    if (!answer.ok()) return answer.status();
    if (all.has_model() && answer->model().fingerprint() != all.model().fingerprint()) {
      return absl::AbortedError("the default model was changed meanwhile; name one and try again");
    }
    all.MergeFrom(*answer);
    if (progress) progress(last, request.points_size());
  }
  return all;
}

absl::Status Client::DownloadRegistrationFile(const v1::DownloadRegistrationFileRequest& request,
                                              const std::string& path,
                                              const ProgressFunction& progress) {
  absl::Status local;
  absl::Status status = impl_->Call([&](grpc::ClientContext& context) {
    OutputFile file(path);
    local = file.status();
    auto reader = impl_->similarity->DownloadRegistrationFile(&context, request);
    v1::DownloadRegistrationFileResponse message;
    int64_t received = 0, total = 0;
    while (local.ok() && reader->Read(&message)) {
      if (message.has_header()) {
        total = message.header().total_bytes();
        continue;
      }
      const std::string& data = message.chunk().data();
      local = ChecksumOf(data) == message.chunk().crc32()
                  ? file.Write(data.data(), data.size(), received)
                  : absl::DataLossError("a chunk was damaged on its way");
      received += static_cast<int64_t>(data.size());
      if (progress) progress(received, total);
    }
    if (!local.ok()) context.TryCancel();
    grpc::Status result = reader->Finish();
    if (local.ok() && result.ok() && received != total)
      local = absl::DataLossError("the file came incomplete; try again");
    if (local.ok() && result.ok()) local = file.Commit();
    return result;
  });
  return local.ok() ? status : local;
}

}  // namespace gvsl
