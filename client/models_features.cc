// Models, features and status of the client library; declared in client/client.h.
#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/wire.h"
#include "imaging/output_file.h"

namespace gvsl {

absl::Status Client::CheckHealth() {
  // grpc.health.v1 through a generic call: HealthCheckRequest with no service is no bytes at all,
  // and SERVING in HealthCheckResponse is field 1, varint 1.
  static constexpr char kServing[] = "\x08\x01";
  std::string answer;
  absl::Status status = impl_->Once([&](grpc::ClientContext& context) -> grpc::Status {
    grpc::GenericStub stub(impl_->channel);
    grpc::CompletionQueue queue;
    grpc::ByteBuffer request(nullptr, 0), response;
    auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
    call->StartCall();
    grpc::Status result;
    call->Finish(&response, &result, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    std::vector<grpc::Slice> slices;
    if (result.ok() && response.Dump(&slices).ok()) {
      for (const grpc::Slice& slice : slices) {
        answer.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
      }
    }
    return result;
  });
  if (!status.ok()) return status;
  if (answer == kServing) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("gvsld at ", impl_->options.server, " is not serving; it is stopping"));
}

absl::StatusOr<v1::ServerStatus> Client::GetServerStatus() {
  return impl_->Unary<v1::ServerStatus>(
      [&](grpc::ClientContext& context, v1::ServerStatus* response) {
        return impl_->status->GetServerStatus(&context, {}, response);
      });
}

absl::StatusOr<v1::Model> Client::ImportModel(const std::string& path,
                                              v1::ImportModelRequest::Header header,
                                              const ProgressFunction& progress) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(path.substr(0, 200), ": ", error.message()));
  header.set_total_bytes(static_cast<int64_t>(size));
  if (header.request_id().empty()) header.set_request_id(NewRequestId());
  absl::Status local;
  auto model = impl_->Unary<v1::Model>([&](grpc::ClientContext& context, v1::Model* response) {
    std::ifstream in(path, std::ios::binary);
    auto writer = impl_->models->ImportModel(&context, response);
    v1::ImportModelRequest message;
    *message.mutable_header() = header;
    bool good = writer->Write(message);
    for (int64_t sent = 0; good && sent < header.total_bytes();) {
      std::string& data = *message.mutable_chunk()->mutable_data();
      data.resize(
          static_cast<size_t>(std::min<int64_t>(header.total_bytes() - sent, kMaxChunkBytes)));
      if (!in.read(data.data(), static_cast<std::streamsize>(data.size()))) {
        local = absl::DataLossError(absl::StrCat(path, ": cannot be read"));
        context.TryCancel();
        break;
      }
      message.mutable_chunk()->set_crc32(ChecksumOf(data));
      good = writer->Write(message);
      sent += static_cast<int64_t>(data.size());
      if (good && progress) progress(sent, header.total_bytes());
    }
    writer->WritesDone();
    return writer->Finish();
  });
  if (!local.ok()) return local;
  return model;
}

absl::StatusOr<v1::Model> Client::CreateModel(v1::CreateModelRequest request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  return impl_->Unary<v1::Model>([&](grpc::ClientContext& context, v1::Model* response) {
    return impl_->models->CreateModel(&context, request, response);
  });
}

absl::StatusOr<v1::Model> Client::GetModel(const std::string& name) {
  v1::GetModelRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Model>([&](grpc::ClientContext& context, v1::Model* response) {
    return impl_->models->GetModel(&context, request, response);
  });
}

absl::StatusOr<std::vector<v1::Model>> Client::ListModels() {
  std::vector<v1::Model> models;
  v1::ListModelsRequest request;
  do {
    auto page = impl_->Unary<v1::ListModelsResponse>(
        [&](grpc::ClientContext& context, v1::ListModelsResponse* response) {
          return impl_->models->ListModels(&context, request, response);
        });
    if (!page.ok()) return page.status();
    for (v1::Model& model : *page->mutable_models()) models.push_back(std::move(model));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return models;
}

absl::StatusOr<v1::Model> Client::ExportModel(const v1::ExportModelRequest& request,
                                              const std::string& path,
                                              const ProgressFunction& progress) {
  v1::Model model;
  absl::Status local;
  absl::Status status = impl_->Call([&](grpc::ClientContext& context) {
    OutputFile file(path);
    local = file.status();
    auto reader = impl_->models->ExportModel(&context, request);
    v1::ExportModelResponse message;
    int64_t received = 0;
    while (local.ok() && reader->Read(&message)) {
      if (message.has_model()) {
        model = message.model();
        continue;
      }
      const std::string& data = message.chunk().data();
      local = ChecksumOf(data) == message.chunk().crc32()
                  ? file.Write(data.data(), data.size(), received)
                  : absl::DataLossError("a chunk was damaged on its way");
      received += static_cast<int64_t>(data.size());
      if (progress) progress(received, model.parameter_count() * 4);
    }
    if (!local.ok()) context.TryCancel();
    grpc::Status result = reader->Finish();
    if (local.ok() && result.ok()) local = file.Commit();
    return result;
  });
  if (!local.ok()) return local;
  if (!status.ok()) return status;
  return model;
}

absl::StatusOr<v1::Model> Client::SetDefaultModel(const std::string& name) {
  v1::SetDefaultModelRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Model>([&](grpc::ClientContext& context, v1::Model* response) {
    return impl_->models->SetDefaultModel(&context, request, response);
  });
}

absl::Status Client::DeleteModel(const std::string& name) {
  v1::DeleteModelRequest request;
  request.set_name(name);
  return impl_
      ->Unary<google::protobuf::Empty>(
          [&](grpc::ClientContext& context, google::protobuf::Empty* response) {
            return impl_->models->DeleteModel(&context, request, response);
          })
      .status();
}

absl::StatusOr<v1::ExtractGlobalResponse> Client::ExtractGlobal(
    const v1::ExtractGlobalRequest& request) {
  return impl_->Unary<v1::ExtractGlobalResponse>(
      [&](grpc::ClientContext& context, v1::ExtractGlobalResponse* response) {
        return impl_->features->ExtractGlobal(&context, request, response);
      });
}

absl::StatusOr<v1::ExtractDenseResponse::Header> Client::ExtractDense(
    const v1::ExtractDenseRequest& request, DenseReceiver& receiver,
    const ProgressFunction& progress) {
  v1::ExtractDenseResponse::Header header;
  absl::Status local;
  bool begun = false;
  const auto receive = [&](grpc::ClientContext& context) {
    auto reader = impl_->features->ExtractDense(&context, request);
    v1::ExtractDenseResponse message;
    std::string slice;  // of the slice under way
    size_t slice_bytes = 0;
    int64_t received = 0, z = 0;
    while (local.ok() && reader->Read(&message)) {
      if (message.has_header()) {
        header = message.header();
        auto grid = FromProto(header.grid());
        if (!grid.ok()) {
          local = grid.status();
          break;
        }
        slice_bytes =
            static_cast<size_t>(header.total_bytes() / std::max<int64_t>(grid->size[2], 1));
        begun = slice_bytes > 0;
        if (begun) local = receiver.Begin(header);
        continue;
      }
      const std::string& data = message.chunk().data();
      if (!begun || ChecksumOf(data) != message.chunk().crc32()) {
        local = absl::DataLossError("a chunk was damaged on its way; try again");
        break;
      }
      for (size_t at = 0; local.ok() && at < data.size();) {
        const size_t part = std::min(data.size() - at, slice_bytes - slice.size());
        slice.append(data, at, part);
        at += part;
        if (slice.size() < slice_bytes) continue;
        local = receiver.Slice(z++, slice.data());
        slice.clear();
      }
      received += static_cast<int64_t>(data.size());
      if (progress) progress(received, header.total_bytes());
    }
    if (!local.ok()) context.TryCancel();
    grpc::Status result = reader->Finish();
    if (local.ok() && result.ok() && received != header.total_bytes()) {
      local = absl::DataLossError("the stream ended early; try again");
    }
    return result;
  };
  RetryPolicy policy(std::random_device{}());
  while (true) {
    absl::Status status = impl_->Once(receive);
    if (!local.ok()) return local;
    if (status.ok()) return header;
    // Once features have begun to come they are not asked for again: the receiver has them already.
    if (begun || !impl_->WaitToRetry(policy, status)) return status;
  }
}

absl::StatusOr<v1::SampleFeaturesResponse> Client::SampleFeatures(
    const v1::SampleFeaturesRequest& request) {
  return impl_->Unary<v1::SampleFeaturesResponse>(
      [&](grpc::ClientContext& context, v1::SampleFeaturesResponse* response) {
        return impl_->features->SampleFeatures(&context, request, response);
      });
}

absl::StatusOr<v1::PoolFeaturesResponse> Client::PoolFeatures(
    const v1::PoolFeaturesRequest& request) {
  return impl_->Unary<v1::PoolFeaturesResponse>(
      [&](grpc::ClientContext& context, v1::PoolFeaturesResponse* response) {
        return impl_->features->PoolFeatures(&context, request, response);
      });
}

}  // namespace gvsl
