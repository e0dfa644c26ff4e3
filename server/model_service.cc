#include "server/model_service.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"
#include "model/model_file.h"
#include "server/chunks.h"
#include "server/model_registry.h"
#include "server/names.h"
#include "server/streams.h"
#include "trainer/card_conversion.h"

namespace gvsl {
namespace {

using Importer = StreamReader<v1::ImportModelRequest>;

constexpr int64_t kMaxModelBytes = int64_t{8} << 30;
constexpr size_t kMostNameBytes = 256;

// Receives the file's bytes into `path`.
absl::Status Receive(Importer& stream, int64_t total, const std::string& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (file == nullptr) return WriteError("cannot keep the model file", errno);
  v1::ImportModelRequest request;
  int64_t received = 0;
  absl::Status status;
  while (status.ok() && stream.Read(request)) {
    const std::string& data = request.chunk().data();
    if (!request.has_chunk()) {
      status = absl::InvalidArgumentError("part: after the header come chunks");
    } else if (ChecksumOf(data) != request.chunk().crc32()) {
      status = WithReason(
          absl::DataLossError(absl::StrCat("the chunk at byte ", received,
                                           " is not what its checksum says; import again")),
          "CHECKSUM_MISMATCH");
    } else if ((received += static_cast<int64_t>(data.size())) > total) {
      status = absl::InvalidArgumentError("chunk.data: more bytes than header.total_bytes");
    } else if (std::fwrite(data.data(), 1, data.size(), file.get()) != data.size()) {
      status = WriteError("cannot keep the model file", errno);
    }
  }
  if (std::fclose(file.release()) != 0 && status.ok())
    status = WriteError("cannot keep the model file", errno);
  if (status.ok() && received != total) {
    status = absl::DataLossError(
        absl::StrCat("the stream ended after ", received, " of ", total, " bytes; import again"));
  }
  return status;
}

absl::Status Import(ServerState& state, Importer& stream, v1::Model* response) {
  v1::ImportModelRequest request;
  if (!stream.Read(request) || !request.has_header()) {
    return absl::InvalidArgumentError("header: the stream must open with it");
  }
  const v1::ImportModelRequest::Header header = request.header();
  if (absl::Status status = CheckText(header.display_name(), kMostNameBytes, "header.display_name");
      !status.ok()) {
    return status;
  }
  if (!header.request_id().empty()) {
    if (absl::Status status = CheckRequestId(header.request_id(), "header.request_id");
        !status.ok())
      return status;
  }
  if (header.total_bytes() < 1 || header.total_bytes() > kMaxModelBytes) {
    return absl::InvalidArgumentError(absl::StrCat("header.total_bytes: ", header.total_bytes(),
                                                   "; a model file has 1 to ", kMaxModelBytes,
                                                   " bytes"));
  }
  auto card =
      CardFromProto(header.card(), Geometry::kOfficial);  // `.pth` files are the official code's
  if (!card.ok()) return card.status();
  const Creation creation = {header.request_id(), Sha256Of(header.SerializeAsString())};
  auto before = ModelMadeBefore(state, creation, response);
  if (!before.ok() || *before) return before.status();
  const Scratch received(state), converted(state);
  if (absl::Status status = Receive(stream, header.total_bytes(), received.path); !status.ok())
    return status;
  if (header.card().ByteSizeLong() > 0 && CarriesCard(received.path)) {
    return absl::InvalidArgumentError(
        "header.card: a safetensors file of GVSL carries its own card; import it without one");
  }
  auto info = ImportModelFile(received.path, *card, converted.path, state.memory_bytes());
  if (!info.ok()) return WithoutPaths(info.status(), {received.path, converted.path});
  return RegisterModel(state, converted.path, *info, header.display_name(), creation, response);
}

absl::Status Create(ServerState& state, const v1::CreateModelRequest& request,
                    v1::Model* response) {
  if (absl::Status status = CheckText(request.display_name(), kMostNameBytes, "display_name");
      !status.ok())
    return status;
  if (!request.request_id().empty()) {
    if (absl::Status status = CheckRequestId(request.request_id(), "request_id"); !status.ok())
      return status;
  }
  auto widths = WidthsOf(request.size());
  if (!widths.ok()) return widths.status();
  auto card = CardFromProto(request.card(), Geometry::kCorrected);
  if (!card.ok()) return card.status();
  card->size = request.size();
  card->widths = *widths;
  if (card->provenance.empty()) card->provenance = absl::StrCat("untrained, seed ", request.seed());
  const Creation creation = {request.request_id(), Sha256Of(request.SerializeAsString())};
  auto before = ModelMadeBefore(state, creation, response);
  if (!before.ok() || *before) return before.status();
  const Scratch file(state);
  auto info = [&] {
    const std::lock_guard<std::mutex> lock(state.model_file_mutex);
    return CreateModelFile(*card, request.seed(), file.path);
  }();
  if (!info.ok()) return WithoutPaths(info.status(), {file.path});
  return RegisterModel(state, file.path, *info, request.display_name(), creation, response);
}

absl::Status Export(ServerState& state, const v1::ExportModelRequest& request,
                    StreamWriter<v1::ExportModelResponse>& stream) {
  auto id = IdOf("models", request.name(), "name");
  if (!id.ok()) return id.status();
  if (request.format() < v1::ExportModelRequest::FORMAT_UNSPECIFIED ||
      request.format() > v1::ExportModelRequest::PTH) {
    return absl::InvalidArgumentError("format: SAFETENSORS or PTH");
  }
  auto stored = state.metadata->GetModel(request.name());
  if (!stored.ok()) return stored.status();
  v1::ExportModelResponse response;
  *response.mutable_model() = stored->model;
  std::string path = state.blobs->PathOf(stored->blob_sha256);
  const std::string& name = stored->model.name();
  // The header says how long the file must be.
  if (absl::Status whole = ReadModelInfo(path).status(); !whole.ok()) {
    return state.Unreadable(name, whole);
  }
  const Scratch pth(state);
  if (request.format() == v1::ExportModelRequest::PTH) {
    const std::lock_guard<std::mutex> lock(state.model_file_mutex);
    if (absl::Status status = ExportPth(path, pth.path); !status.ok()) {
      return WithoutPaths(status, {path, pth.path});
    }
    path = pth.path;
  }
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return state.Unreadable(name, absl::NotFoundError(error.message()));
  if (absl::Status status = stream.Write(response); !status.ok()) return status;
  absl::Status sent = SendFile(path, 0, static_cast<int64_t>(size), stream);
  return sent.ok() || absl::IsCancelled(sent) ? sent : state.Unreadable(name, sent);
}

}  // namespace

grpc::ServerReadReactor<v1::ImportModelRequest>* ModelServiceImpl::ImportModel(
    grpc::CallbackServerContext*, v1::Model* response) {
  return Importer::Start(state_.calls, [this, response](Importer& stream) {
    return Import(state_, stream, response);
  });
}

grpc::ServerUnaryReactor* ModelServiceImpl::CreateModel(grpc::CallbackServerContext* context,
                                                        const v1::CreateModelRequest* request,
                                                        v1::Model* response) {
  return HandleUnary(context, state_.calls,
                     [this, request, response] { return Create(state_, *request, response); });
}

grpc::ServerUnaryReactor* ModelServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* request,
                                                     v1::Model* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("models", request->name(), "name");
    if (!id.ok()) return id.status();
    auto stored = state_.metadata->GetModel(request->name());
    if (stored.ok()) *response = std::move(stored->model);
    return stored.status();
  });
}

grpc::ServerUnaryReactor* ModelServiceImpl::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest* request,
                                                       v1::ListModelsResponse* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto page = state_.metadata->ListModels(*request);
    if (!page.ok()) return page.status();
    for (v1::Model& model : page->models) *response->add_models() = std::move(model);
    response->set_next_page_token(page->next_page_token);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::ExportModelResponse>* ModelServiceImpl::ExportModel(
    grpc::CallbackServerContext* context, const v1::ExportModelRequest* request) {
  using Writer = StreamWriter<v1::ExportModelResponse>;
  return Writer::Start(context, state_.calls, [this, request = *request](Writer& stream) {
    return Export(state_, request, stream);
  });
}

grpc::ServerUnaryReactor* ModelServiceImpl::SetDefaultModel(
    grpc::CallbackServerContext* context, const v1::SetDefaultModelRequest* request,
    v1::Model* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("models", request->name(), "name");
    if (!id.ok()) return id.status();
    auto stored = state_.metadata->GetModel(request->name());
    if (!stored.ok()) return stored.status();
    *response = std::move(stored->model);
    response->set_is_default(true);
    return state_.metadata->SetDefaultModel(response->name());
  });
}

grpc::ServerUnaryReactor* ModelServiceImpl::DeleteModel(grpc::CallbackServerContext* context,
                                                        const v1::DeleteModelRequest* request,
                                                        google::protobuf::Empty*) {
  return HandleUnary(context, state_.calls, [this, request]() -> absl::Status {
    auto id = IdOf("models", request->name(), "name");
    if (!id.ok()) return id.status();
    auto stored = state_.metadata->GetModel(request->name());  // `models/default` by its own name
    if (!stored.ok()) return stored.status();
    return state_.RemoveBlob([&] { return state_.metadata->DeleteModel(stored->model.name()); });
  });
}

}  // namespace gvsl
