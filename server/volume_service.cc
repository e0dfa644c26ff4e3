#include "server/volume_service.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/preview.h"
#include "imaging/sha256.h"
#include "server/chunks.h"
#include "server/names.h"
#include "server/streams.h"
#include "server/volume_conversion.h"

namespace gvsl {
namespace {

using Uploader = StreamReader<v1::CreateVolumeRequest>;

// What the client asked for, without what only the server says.
absl::StatusOr<v1::Volume> AskedFor(const v1::CreateVolumeRequest::Header& header) {
  if (absl::Status status = CheckRequestId(header.request_id(), "header.request_id"); !status.ok())
    return status;
  if (header.offset() < 0) return absl::InvalidArgumentError("header.offset: negative");
  if (absl::Status status = CheckNewVolume(header.volume(), "header.volume."); !status.ok())
    return status;
  v1::Volume volume = header.volume();
  for (const char* field :
       {"name", "content_sha256", "voxel_bytes", "min_value", "max_value", "create_time"}) {
    volume.GetReflection()->ClearField(&volume, volume.GetDescriptor()->FindFieldByName(field));
  }
  if (volume.kind() == v1::Volume::KIND_UNSPECIFIED) volume.set_kind(v1::Volume::IMAGE);
  return volume;
}

absl::Status Create(ServerState& state, Uploader& stream, v1::Volume* response) {
  v1::CreateVolumeRequest request;
  if (!stream.Read(request) || !request.has_header()) {
    return absl::InvalidArgumentError("header: the stream must open with it");
  }
  const v1::CreateVolumeRequest::Header header = request.header();
  auto volume = AskedFor(header);
  if (!volume.ok()) return volume.status();
  Creation creation;
  creation.request_id = header.request_id();
  creation.request_sha256 = Sha256Of(volume->SerializeAsString());

  // One call at a time holds the upload; only then is it sure that no other has finished it
  // meanwhile.
  const auto earlier = [&]() -> absl::StatusOr<bool> {
    auto made = state.metadata->FindCreation("volumes", creation);
    if (!made.ok()) return made.status();
    if (!made->has_value()) return false;
    auto stored = state.metadata->GetVolume(**made);
    if (!stored.ok()) return stored.status();
    *response = std::move(stored->volume);
    return true;
  };
  auto done = earlier();
  if (!done.ok() || *done) return done.status();
  state.uploads->Expire(int64_t{3600} * state.config.upload_expiry_h());
  auto writer = state.uploads->Begin(creation.request_id, *volume, header.offset());
  if (!writer.ok()) return writer.status();
  done = earlier();
  if (!done.ok() || *done) return done.status();

  bool finished = false;
  std::string sha256;
  while (!finished && stream.Read(request)) {
    switch (request.part_case()) {
      case v1::CreateVolumeRequest::kChunk: {
        const absl::Status status =
            (*writer)->Append(request.chunk().data(), request.chunk().crc32());
        // Such voxels can never become a volume; and half of one must not keep the disk full.
        const std::string reason = ReasonOf(status);
        if (reason == "NON_FINITE_VOXELS" || reason == "DISK_FULL") (*writer)->Discard();
        if (!status.ok()) return status;
        break;
      }
      case v1::CreateVolumeRequest::kFinish:
        finished = true;
        sha256 = absl::AsciiStrToLower(request.finish().voxels_sha256());
        if (!sha256.empty() &&
            (sha256.size() != 64 ||
             sha256.find_first_not_of("0123456789abcdef") != std::string::npos)) {
          return absl::InvalidArgumentError(
              "finish.voxels_sha256: not 64 hexadecimal digits; the upload so far is kept");
        }
        break;
      default:
        return absl::InvalidArgumentError("part: after the header come chunks, then finish");
    }
  }
  if (!finished) {
    return WithReason(
        absl::AbortedError(absl::StrCat("the upload was cut after ", (*writer)->received_bytes(),
                                        " of ", (*writer)->total_bytes(),
                                        " bytes; call again with header.offset to go on")),
        "UPLOAD_CUT");
  }
  if (header.offset() > 0 && sha256.empty()) {
    return absl::InvalidArgumentError(
        "finish.voxels_sha256: required when header.offset is not 0: the bytes of an earlier call "
        "may not have survived a crash of the server");
  }
  auto voxels = (*writer)->Finish(sha256);
  if (!voxels.ok()) return voxels.status();
  StoredVolume stored;
  stored.blob_sha256 = voxels->sha256;
  stored.volume = *std::move(volume);
  stored.volume.set_name("volumes/" + NewId());
  stored.volume.set_content_sha256(ContentDigest(stored.volume, voxels->sha256));
  stored.volume.set_voxel_bytes((*writer)->total_bytes());
  stored.volume.set_min_value(voxels->min);
  stored.volume.set_max_value(voxels->max);
  *stored.volume.mutable_create_time() = Now();
  const absl::Status kept = state.StoreBlob(
      voxels->path, voxels->sha256, [&] { return state.metadata->AddVolume(stored, creation); });
  if (!kept.ok()) return kept;
  (*writer)->Discard();
  if (state.volume_added) state.volume_added(stored.volume.name());
  *response = std::move(stored.volume);
  return absl::OkStatus();
}

absl::Status Update(ServerState& state, const v1::UpdateVolumeRequest& request,
                    v1::Volume* response) {
  auto id = IdOf("volumes", request.volume().name(), "volume.name");
  if (!id.ok()) return id.status();
  if (absl::Status status = CheckVolumeText(request.volume(), "volume."); !status.ok())
    return status;
  std::set<std::string> fields(request.update_mask().paths().begin(),
                               request.update_mask().paths().end());
  if (fields.empty()) fields = {"display_name", "modality", "tags"};
  for (const std::string& field : fields) {
    if (field != "display_name" && field != "modality" && field != "tags") {
      return absl::InvalidArgumentError(
          absl::StrCat("update_mask: \"", field.substr(0, 60),
                       "\" cannot be changed; display_name, modality and tags can"));
    }
  }
  const v1::Volume& wanted = request.volume();
  auto updated = state.metadata->UpdateVolume(wanted.name(), [&](v1::Volume& volume) {
    if (fields.count("display_name") > 0) volume.set_display_name(wanted.display_name());
    if (fields.count("modality") > 0) volume.set_modality(wanted.modality());
    if (fields.count("tags") > 0) *volume.mutable_tags() = wanted.tags();
  });
  if (updated.ok()) *response = *std::move(updated);
  return updated.status();
}

absl::Status Preview(ServerState& state, const v1::PreviewVolumeRequest& request,
                     v1::PreviewVolumeResponse* response) {
  auto id = IdOf("volumes", request.name(), "name");
  if (!id.ok()) return id.status();
  auto stored = state.metadata->GetVolume(request.name());
  if (!stored.ok()) return stored.status();
  auto volume = state.MapVolume(*stored);
  if (!volume.ok()) return volume.status();
  PreviewOptions options;
  options.window_min = request.window_min();
  options.window_max = request.window_max();
  if (request.max_edge() != 0) options.max_edge = request.max_edge();
  // A picture of noise hardly compresses: it gets smaller until a message holds it.
  constexpr int kLeastEdge = 16;
  while (true) {
    auto png = PreviewPng(*volume, options);
    if (!png.ok()) return png.status();
    if (png->size() <= kMaxChunkBytes || options.max_edge <= kLeastEdge) {
      response->set_png(*std::move(png));
      return absl::OkStatus();
    }
    options.max_edge = std::max(kLeastEdge, options.max_edge * 3 / 4);
  }
}

}  // namespace

grpc::ServerReadReactor<v1::CreateVolumeRequest>* VolumeServiceImpl::CreateVolume(
    grpc::CallbackServerContext*, v1::Volume* response) {
  return Uploader::Start(state_.calls, [this, response](Uploader& stream) {
    return Create(state_, stream, response);
  });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::GetUpload(grpc::CallbackServerContext* context,
                                                       const v1::GetUploadRequest* request,
                                                       v1::Upload* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("uploads", request->name(), "name");
    if (!id.ok()) return id.status();
    auto upload = state_.uploads->Get(*id);
    if (upload.ok()) *response = *upload;
    return upload.status();
  });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::DeleteUpload(grpc::CallbackServerContext* context,
                                                          const v1::DeleteUploadRequest* request,
                                                          google::protobuf::Empty*) {
  return HandleUnary(context, state_.calls, [this, request]() -> absl::Status {
    auto id = IdOf("uploads", request->name(), "name");
    return id.ok() ? state_.uploads->Delete(*id) : id.status();
  });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::GetVolume(grpc::CallbackServerContext* context,
                                                       const v1::GetVolumeRequest* request,
                                                       v1::Volume* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto id = IdOf("volumes", request->name(), "name");
    if (!id.ok()) return id.status();
    auto stored = state_.metadata->GetVolume(request->name());
    if (stored.ok()) *response = std::move(stored->volume);
    return stored.status();
  });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::ListVolumes(grpc::CallbackServerContext* context,
                                                         const v1::ListVolumesRequest* request,
                                                         v1::ListVolumesResponse* response) {
  return HandleUnary(context, state_.calls, [this, request, response]() -> absl::Status {
    auto page = state_.metadata->ListVolumes(*request);
    if (!page.ok()) return page.status();
    for (v1::Volume& volume : page->volumes) *response->add_volumes() = std::move(volume);
    response->set_next_page_token(page->next_page_token);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::UpdateVolume(grpc::CallbackServerContext* context,
                                                          const v1::UpdateVolumeRequest* request,
                                                          v1::Volume* response) {
  return HandleUnary(context, state_.calls,
                     [this, request, response] { return Update(state_, *request, response); });
}

grpc::ServerWriteReactor<v1::DownloadVolumeResponse>* VolumeServiceImpl::DownloadVolume(
    grpc::CallbackServerContext* context, const v1::DownloadVolumeRequest* request) {
  using Writer = StreamWriter<v1::DownloadVolumeResponse>;
  return Writer::Start(
      context, state_.calls,
      [this, name = request->name(), offset = request->offset()](Writer& stream) -> absl::Status {
        auto id = IdOf("volumes", name, "name");
        if (!id.ok()) return id.status();
        auto stored = state_.metadata->GetVolume(name);
        if (!stored.ok()) return stored.status();
        if (offset < 0 || offset > stored->volume.voxel_bytes()) {
          return absl::InvalidArgumentError(absl::StrCat("offset: ", offset,
                                                         " lies outside the volume's ",
                                                         stored->volume.voxel_bytes(), " bytes"));
        }
        v1::DownloadVolumeResponse response;
        *response.mutable_volume() = stored->volume;
        if (absl::Status status = stream.Write(response); !status.ok()) return status;
        absl::Status sent = SendFile(state_.blobs->PathOf(stored->blob_sha256), offset,
                                     stored->volume.voxel_bytes(), stream);
        return sent.ok() || absl::IsCancelled(sent) ? sent : state_.Unreadable(name, sent);
      });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::PreviewVolume(grpc::CallbackServerContext* context,
                                                           const v1::PreviewVolumeRequest* request,
                                                           v1::PreviewVolumeResponse* response) {
  return HandleUnary(context, state_.calls,
                     [this, request, response] { return Preview(state_, *request, response); });
}

grpc::ServerUnaryReactor* VolumeServiceImpl::DeleteVolume(grpc::CallbackServerContext* context,
                                                          const v1::DeleteVolumeRequest* request,
                                                          google::protobuf::Empty*) {
  return HandleUnary(context, state_.calls, [this, request]() -> absl::Status {
    auto id = IdOf("volumes", request->name(), "name");
    if (!id.ok()) return id.status();
    absl::Status deleted =
        state_.RemoveBlob([&] { return state_.metadata->DeleteVolume(request->name()); });
    return deleted.ok() ? state_.embeddings->Forget(request->name()) : deleted;
  });
}

}  // namespace gvsl
