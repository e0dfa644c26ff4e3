#include "server/registration_apply.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/image_file.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"
#include "imaging/status_reason.h"
#include "imaging/transform_file.h"
#include "imaging/warp_volume.h"
#include "server/engine_call.h"
#include "server/model_registry.h"
#include "server/names.h"
#include "server/opened_registration.h"
#include "server/volume_conversion.h"

namespace gvsl {
namespace {

constexpr size_t kMostNameBytes = 256;

constexpr double kSamePlaceMm = 1e-3;  // lattices this near are one

absl::Status Proceed(const CancelFunction& cancelled) {
  return cancelled() ? absl::CancelledError("cancelled between two slabs") : absl::OkStatus();
}

// Raw voxels of a volume that was carried over.
struct Carried {
  std::string sha256;
  double min_value = 0, max_value = 0;
};

// Carries a volume onto map.from, into the file `path`. What the volume does not show looks like
// its darkest part: air in a CT.
absl::StatusOr<Carried> Carry(const Volume& volume, double outside, const DirectedMap& map,
                              LabelRule rule, const CancelFunction& cancelled,
                              const std::string& path) {
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  Sha256 hash;
  Carried carried;
  int64_t offset = 0;
  const auto write = [&](const uint8_t* bytes, size_t count) -> absl::Status {
    VisitVoxelType(volume.type(), [&](auto zero) {
      using T = decltype(zero);
      const T* voxels = reinterpret_cast<const T*>(bytes);
      const auto [least, greatest] = std::minmax_element(voxels, voxels + count / sizeof(T));
      const double low = *least, high = *greatest;
      carried.min_value = offset == 0 ? low : std::min(carried.min_value, low);
      carried.max_value = offset == 0 ? high : std::max(carried.max_value, high);
    });
    hash.Update(bytes, count);
    absl::Status status = file.Write(bytes, count, offset);
    offset += static_cast<int64_t>(count);
    return status.ok() ? Proceed(cancelled) : status;
  };
  absl::Status status =
      WarpSlabs(volume, *map.map, map.from, rule, static_cast<float>(outside), write);
  if (status.ok()) status = file.Commit();
  if (!status.ok()) return status;
  carried.sha256 = hash.Finish();
  return carried;
}

// What one request made before, under its id.
absl::StatusOr<std::optional<v1::Volume>> MadeBefore(ServerState& state, const Creation& creation) {
  if (creation.request_id.empty()) return std::nullopt;
  auto made = state.metadata->FindCreation("volumes", creation);
  if (!made.ok()) return made.status();
  if (!made->has_value()) return std::nullopt;
  auto stored = state.metadata->GetVolume(**made);
  if (!stored.ok()) return stored.status();
  return std::move(stored->volume);
}

// A label map that is not on its own volume's grid belongs to another one.
absl::Status CheckSameLattice(const v1::Grid& message, const Grid& expected,
                              const std::string& volume) {
  auto grid = FromProto(message);
  if (!grid.ok()) return grid.status();
  bool same = grid->size == expected.size;
  for (int corner = 0; same && corner < 8; ++corner) {
    Vec3 index;
    for (int i = 0; i < 3; ++i)
      index[i] = corner >> i & 1 ? static_cast<double>(expected.size[i] - 1) : 0;
    const Vec3 a = grid->IndexToPhysical(index), b = expected.IndexToPhysical(index);
    for (int i = 0; i < 3; ++i) same = same && std::abs(a[i] - b[i]) <= kSamePlaceMm;
  }
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "labels: it does not lie on the grid of ", volume, " (", grid->size[0], " x ", grid->size[1],
      " x ", grid->size[2], " voxels against ", expected.size[0], " x ", expected.size[1], " x ",
      expected.size[2], ", or elsewhere in space); name the label map of that volume, or resample ",
      "it; ApplyRegistration (gvsl registrations apply) takes any grid"));
}

// ApplyRegistration, and with `own_labels` TransferLabels.
absl::Status Apply(ServerState& state, const v1::ApplyRegistrationRequest& request,
                   const std::string& request_sha256, bool own_labels,
                   const CancelFunction& cancelled, v1::Volume* response) {
  using Request = v1::ApplyRegistrationRequest;
  if (absl::Status status = CheckText(request.display_name(), kMostNameBytes, "display_name");
      !status.ok()) {
    return status;
  }
  if (!request.request_id().empty()) {
    if (absl::Status status = CheckRequestId(request.request_id(), "request_id"); !status.ok())
      return status;
  }
  if (request.label_rule() < Request::LABEL_RULE_UNSPECIFIED ||
      request.label_rule() > Request::MAJORITY) {
    return absl::InvalidArgumentError("label_rule: NEAREST or MAJORITY");
  }
  const Creation creation = {request.request_id(), request_sha256};
  auto before = MadeBefore(state, creation);
  if (!before.ok()) return before.status();
  if (before->has_value()) {
    *response = **std::move(before);
    return absl::OkStatus();
  }
  auto opened = OpenRegistration(state, request.registration(), "registration");
  if (!opened.ok()) return opened.status();
  auto map = DirectedMapOf(*opened, request.direction());
  if (!map.ok()) return map.status();
  const char* field = own_labels ? "labels" : "volume";
  if (auto id = IdOf("volumes", request.volume(), field); !id.ok()) return id.status();
  auto source = own_labels ? VolumeOf(state, request.volume(), field, true)
                           : state.metadata->GetVolume(request.volume());
  if (!source.ok()) return source.status();
  if (own_labels) {
    absl::Status same = CheckSameLattice(source->volume.grid(), map->to, map->to_volume);
    if (!same.ok()) return same;
  }
  auto voxels = state.MapVolume(*source);
  if (!voxels.ok()) return voxels.status();
  const Scratch scratch(state);
  auto carried =
      Carry(*voxels, source->volume.min_value(), *map,
            request.label_rule() == Request::MAJORITY ? LabelRule::kMajority : LabelRule::kNearest,
            cancelled, scratch.path);
  if (!carried.ok()) return WithoutPaths(carried.status(), {scratch.path}, kScratchFile);
  StoredVolume stored;
  stored.blob_sha256 = carried->sha256;
  v1::Volume& message = stored.volume;
  message = source->volume;  // modality, tags, kind and type stay
  message.set_name("volumes/" + NewId());
  message.set_display_name(request.display_name());
  *message.mutable_grid() = ToProto(map->from);
  message.set_content_sha256(ContentDigest(message, stored.blob_sha256));
  message.set_voxel_bytes(map->from.voxel_count() *
                          static_cast<int64_t>(BytesPerVoxel(voxels->type())));
  message.set_min_value(carried->min_value);
  message.set_max_value(carried->max_value);
  *message.mutable_create_time() = Now();
  absl::Status kept = state.StoreBlob(scratch.path, stored.blob_sha256,
                                      [&] { return state.metadata->AddVolume(stored, creation); });
  if (!kept.ok()) {
    // The same request may have been faster, on another thread.
    auto made = MadeBefore(state, creation);
    if (!made.ok() || !made->has_value()) return kept;
    *response = **std::move(made);
    return absl::OkStatus();
  }
  if (state.volume_added) state.volume_added(message.name());
  *response = message;
  return absl::OkStatus();
}

// The volume that a map leads to, on the grid that it leads from.
absl::Status WriteWarped(ServerState& state, const DirectedMap& map,
                         const absl::Status& lost_volume, const CancelFunction& cancelled,
                         const std::string& path) {
  auto source = state.metadata->GetVolume(map.to_volume);
  if (absl::IsNotFound(source.status())) return lost_volume;
  if (!source.ok()) return source.status();
  auto voxels = state.MapVolume(*source);
  if (!voxels.ok()) return voxels.status();
  const Scratch scratch(state);
  auto carried =
      Carry(*voxels, source->volume.min_value(), map, LabelRule::kNearest, cancelled, scratch.path);
  if (!carried.ok()) return WithoutPaths(carried.status(), {scratch.path}, kScratchFile);
  auto warped = Volume::Map(scratch.path, map.from, voxels->type(), voxels->kind());
  if (!warped.ok()) return WithoutPaths(warped.status(), {scratch.path}, kScratchFile);
  return WriteVolume(*warped, path);
}

}  // namespace

absl::Status ApplyRegistration(ServerState& state, const v1::ApplyRegistrationRequest& request,
                               const CancelFunction& cancelled, v1::Volume* response) {
  v1::ApplyRegistrationRequest asked = request;
  asked.clear_request_id();
  return Apply(state, request, Sha256Of(asked.SerializeAsString()), false, cancelled, response);
}

absl::Status TransferLabels(ServerState& state, const v1::TransferLabelsRequest& request,
                            const CancelFunction& cancelled, v1::Volume* response) {
  v1::TransferLabelsRequest asked = request;
  asked.clear_request_id();
  v1::ApplyRegistrationRequest apply;
  apply.set_registration(request.registration());
  apply.set_volume(request.labels());
  apply.set_direction(request.direction());
  apply.set_label_rule(request.label_rule());
  apply.set_display_name(request.display_name());
  apply.set_request_id(request.request_id());
  return Apply(state, apply, Sha256Of("labels " + asked.SerializeAsString()), true, cancelled,
               response);
}

absl::StatusOr<RegistrationFile> WriteRegistrationFile(
    ServerState& state, const v1::DownloadRegistrationFileRequest& request,
    const std::string& path_prefix, const CancelFunction& cancelled) {
  using Request = v1::DownloadRegistrationFileRequest;
  auto opened = OpenRegistration(state, request.name(), "name");
  if (!opened.ok()) return opened.status();
  auto map = DirectedMapOf(*opened, request.direction());
  if (!map.ok()) return map.status();
  const auto none = [&](const std::string& why) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("file: ", opened->message.name(), " ", why)),
        "NO_SUCH_FILE");
  };
  const ProceedFunction proceed = [&] { return Proceed(cancelled); };
  RegistrationFile file;
  const auto named = [&](const char* what) {
    file.file_name = absl::StrCat(map->name, "_", what);
    file.path = absl::StrCat(path_prefix, "_", file.file_name);
    return file.path;
  };
  absl::Status status;
  switch (request.file()) {
    case Request::WARPED:
      status = WriteWarped(state, *map,
                           none(absl::StrCat("has lost ", map->to_volume, ": it was deleted")),
                           cancelled, named("warped.nii.gz"));
      break;
    case Request::AFFINE:
      status = WriteItkAffine(map->map->affine, named("affine.tfm"));
      break;
    case Request::FIELD:
      if (map->map->displacement.empty())
        return none("has no displacements: its map is affine alone");
      status = WriteDisplacementField(map->map->displacement, named("field.nii.gz"));
      break;
    case Request::COMPOSED_FIELD:
      status = WriteComposedField(*map->map, map->from, named("composed_field.nii.gz"), proceed);
      break;
    case Request::LEARN2REG_FIELD:
      if (map->from.size != map->to.size) {
        return none(
            "is of two volumes of different sizes, for which Learn2Reg has no fields; resample one "
            "and register again, or take COMPOSED_FIELD");
      }
      status =
          WriteLearn2RegField(*map->map, map->from, map->to, named("learn2reg.nii.gz"), proceed);
      break;
    default:
      return absl::InvalidArgumentError(
          "file: required; WARPED, AFFINE, FIELD, COMPOSED_FIELD or LEARN2REG_FIELD");
  }
  if (!status.ok()) return WithoutPaths(status, {file.path}, kScratchFile);
  return file;
}

}  // namespace gvsl
