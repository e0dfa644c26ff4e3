// Volumes of the client library; declared in client/client.h.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/wire.h"
#include "imaging/sha256.h"
#include "imaging/status_reason.h"

namespace gvsl {
namespace {

// One call of an upload, from header.offset on.
grpc::Status Send(v1::VolumeService::Stub& stub, grpc::ClientContext& context,
                  const v1::CreateVolumeRequest& header, const Volume& volume,
                  const std::string& sha256, const ProgressFunction& progress,
                  v1::Volume* response) {
  response->Clear();
  auto writer = stub.CreateVolume(&context, response);
  v1::CreateVolumeRequest message;
  bool good = writer->Write(header);
  const int64_t total = static_cast<int64_t>(volume.byte_count());
  int64_t at = header.header().offset();
  while (good && at < total) {
    const size_t count = static_cast<size_t>(std::min<int64_t>(total - at, kMaxChunkBytes));
    std::string& data = *message.mutable_chunk()->mutable_data();
    data.assign(reinterpret_cast<const char*>(volume.bytes()) + at, count);
    message.mutable_chunk()->set_crc32(ChecksumOf(data));
    good = writer->Write(message);
    at += static_cast<int64_t>(count);
    if (good && progress) progress(at, total);
  }
  if (good) {
    message.mutable_finish()->set_voxels_sha256(sha256);
    writer->WriteLast(message, grpc::WriteOptions());
  }
  return writer->Finish();
}

}  // namespace

absl::StatusOr<v1::Volume> Client::Upload(const Volume& volume, const v1::Volume& about,
                                          const ProgressFunction& progress) {
  const std::string sha256 = Sha256Of(volume.bytes(), volume.byte_count());
  v1::CreateVolumeRequest opening;
  auto* header = opening.mutable_header();
  v1::Volume& asked = *header->mutable_volume();
  asked.set_display_name(about.display_name());
  asked.set_modality(about.modality());
  *asked.mutable_tags() = about.tags();
  asked.set_kind(volume.kind() == VolumeKind::kLabels ? v1::Volume::LABELS : v1::Volume::IMAGE);
  asked.set_voxel_type(ToProto(volume.type()));
  *asked.mutable_grid() = ToProto(volume.grid());
  // Named by content and words: importing the same again finds the same, also a half of it.
  const std::string identity = absl::StrCat(asked.SerializeAsString(), sha256);
  header->set_request_id(Sha256Of(identity));

  RetryPolicy policy(std::random_device{}());
  int64_t furthest = 0;
  while (true) {
    v1::GetUploadRequest where;
    where.set_name("uploads/" + header->request_id());
    v1::Upload held;
    absl::Status status = impl_->Once([&](grpc::ClientContext& context) {
      return impl_->volumes->GetUpload(&context, where, &held);
    });
    header->set_offset(status.ok() ? held.received_bytes() : 0);
    if (header->offset() > furthest) policy.Progressed();
    furthest = std::max(furthest, header->offset());
    if (status.ok() || status.code() == absl::StatusCode::kNotFound) {
      v1::Volume made;
      status = impl_->Once([&](grpc::ClientContext& context) {
        return Send(*impl_->volumes, context, opening, volume, sha256, progress, &made);
      });
      if (status.ok()) return made;
      // The half that the server held was of another upload: from the beginning.
      if (ReasonOf(status) == "OFFSET_MISMATCH" && header->offset() > 0) {
        v1::DeleteUploadRequest drop;
        drop.set_name(where.name());
        google::protobuf::Empty empty;
        (void)impl_->Once([&](grpc::ClientContext& context) {
          return impl_->volumes->DeleteUpload(&context, drop, &empty);
        });
        status = absl::UnavailableError("the upload begins again");
      }
      // A chunk damaged on its way, a cut, or another call that writes the same: the rest is to
      // come.
      const std::string reason = ReasonOf(status);
      if (reason == "UPLOAD_CUT" || reason == "UPLOAD_IN_USE" || reason == "CHECKSUM_MISMATCH") {
        status = absl::UnavailableError(std::string(status.message()));
      }
    }
    if (!impl_->WaitToRetry(policy, status)) return status;
  }
}

absl::StatusOr<Volume> Client::Download(const std::string& name, const ProgressFunction& progress) {
  absl::StatusOr<Volume> volume = absl::UnknownError("no answer");
  v1::Volume record;
  int64_t received = 0, total = -1;
  RetryPolicy policy(std::random_device{}());
  while (true) {
    absl::Status wrong;
    absl::Status status = impl_->Once([&](grpc::ClientContext& context) {
      v1::DownloadVolumeRequest request;
      request.set_name(name);
      request.set_offset(received);
      auto reader = impl_->volumes->DownloadVolume(&context, request);
      v1::DownloadVolumeResponse message;
      while (wrong.ok() && reader->Read(&message)) {
        if (message.has_volume()) {
          if (total >= 0) continue;  // resumed
          auto grid = FromProto(message.volume().grid());
          if (grid.ok()) {
            volume = Volume::Allocate(*grid, FromProto(message.volume().voxel_type()),
                                      message.volume().kind() == v1::Volume::LABELS
                                          ? VolumeKind::kLabels
                                          : VolumeKind::kImage);
          }
          wrong = grid.ok() ? volume.status() : grid.status();
          if (!wrong.ok()) break;
          volume->set_modality(message.volume().modality());
          total = static_cast<int64_t>(volume->byte_count());
          record = message.volume();
          continue;
        }
        const std::string& data = message.chunk().data();
        if (total < 0 || static_cast<int64_t>(data.size()) > total - received ||
            ChecksumOf(data) != message.chunk().crc32()) {
          wrong = absl::UnavailableError("a chunk was damaged on its way");
          break;
        }
        std::memcpy(volume->mutable_bytes() + received, data.data(), data.size());
        received += static_cast<int64_t>(data.size());
        policy.Progressed();
        if (progress) progress(received, total);
      }
      if (!wrong.ok()) context.TryCancel();
      return reader->Finish();
    });
    if (!wrong.ok()) status = wrong;
    if (status.ok() && received != total) status = absl::UnavailableError("the download was cut");
    if (status.ok() && ContentDigest(record, Sha256Of(volume->bytes(), volume->byte_count())) !=
                           record.content_sha256()) {
      return WithReason(
          absl::DataLossError(absl::StrCat(name,
                                           ": what came is not what was stored; the server's "
                                           "disk has damaged it. Uploading the same volume "
                                           "again mends it")),
          "STORED_DATA_LOST");
    }
    if (status.ok()) return volume;
    if (!impl_->WaitToRetry(policy, status)) return status;
  }
}

absl::StatusOr<v1::Volume> Client::GetVolume(const std::string& name) {
  v1::GetVolumeRequest request;
  request.set_name(name);
  return impl_->Unary<v1::Volume>([&](grpc::ClientContext& context, v1::Volume* response) {
    return impl_->volumes->GetVolume(&context, request, response);
  });
}

absl::StatusOr<std::vector<v1::Volume>> Client::ListVolumes(v1::ListVolumesRequest request,
                                                            int64_t limit) {
  std::vector<v1::Volume> volumes;
  do {
    request.set_page_size(static_cast<int32_t>(
        limit > 0 ? std::min<int64_t>(limit - static_cast<int64_t>(volumes.size()), 1000) : 1000));
    auto page = impl_->Unary<v1::ListVolumesResponse>(
        [&](grpc::ClientContext& context, v1::ListVolumesResponse* response) {
          return impl_->volumes->ListVolumes(&context, request, response);
        });
    if (!page.ok()) return page.status();
    for (v1::Volume& volume : *page->mutable_volumes()) volumes.push_back(std::move(volume));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() &&
           (limit <= 0 || static_cast<int64_t>(volumes.size()) < limit));
  return volumes;
}

absl::StatusOr<v1::Volume> Client::UpdateVolume(const v1::UpdateVolumeRequest& request) {
  return impl_->Unary<v1::Volume>([&](grpc::ClientContext& context, v1::Volume* response) {
    return impl_->volumes->UpdateVolume(&context, request, response);
  });
}

absl::StatusOr<std::string> Client::PreviewVolume(const v1::PreviewVolumeRequest& request) {
  auto answer = impl_->Unary<v1::PreviewVolumeResponse>(
      [&](grpc::ClientContext& context, v1::PreviewVolumeResponse* response) {
        return impl_->volumes->PreviewVolume(&context, request, response);
      });
  if (!answer.ok()) return answer.status();
  return answer->png();
}

absl::Status Client::DeleteVolume(const std::string& name) {
  v1::DeleteVolumeRequest request;
  request.set_name(name);
  return impl_
      ->Unary<google::protobuf::Empty>(
          [&](grpc::ClientContext& context, google::protobuf::Empty* response) {
            return impl_->volumes->DeleteVolume(&context, request, response);
          })
      .status();
}

}  // namespace gvsl
