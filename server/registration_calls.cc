#include "server/registration_calls.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/image_file.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"
#include "imaging/status_reason.h"
#include "imaging/transform_file.h"
#include "imaging/warp_volume.h"
#include "server/engine_call.h"
#include "server/log.h"
#include "server/model_registry.h"
#include "server/names.h"
#include "server/registration_maps.h"
#include "server/volume_conversion.h"

namespace gvsl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostNameBytes = 256;
constexpr int kMostMatches = 20000;
constexpr auto kTellEvery = std::chrono::milliseconds(100);

// A stored registration with its maps.
struct Opened {
  v1::Registration message;
  RegistrationMaps maps;
};
absl::StatusOr<Opened> Open(ServerState& state, const std::string& name, const std::string& field) {
  auto id = IdOf("registrations", name, field);
  if (!id.ok()) return id.status();
  auto stored = state.registrations->Get(name);
  if (!stored.ok()) return stored.status();
  auto maps = ReadMaps(stored->registration, state.blobs->PathOf(stored->blob_sha256));
  if (!maps.ok()) {
    if (absl::Status gone = state.registrations->Get(name).status(); !gone.ok()) return gone;
    LogError(absl::StrCat(name, ": ", std::string(maps.status().message())));
    return WithReason(absl::DataLossError(absl::StrCat(
                          name,
                          ": its displacements cannot be read; the server's disk has lost "
                          "them; register the volumes again")),
                      "STORED_DATA_LOST");
  }
  return Opened{std::move(stored->registration), *std::move(maps)};
}

// The map of a direction, with the grids that it leads from and to.
struct Way {
  const SpatialMap* map = nullptr;
  const SpatialMap* back = nullptr;  // may be none
  Grid from, to;
};
absl::StatusOr<Way> WayOf(const Opened& opened, v1::Direction direction) {
  if (direction < v1::DIRECTION_UNSPECIFIED || direction > v1::MOVING_TO_FIXED)
    return absl::InvalidArgumentError("direction: FIXED_TO_MOVING or MOVING_TO_FIXED");
  auto fixed = FromProto(opened.message.fixed_grid());
  if (!fixed.ok()) return fixed.status();
  auto moving = FromProto(opened.message.moving_grid());
  if (!moving.ok()) return moving.status();
  const auto& inverse = opened.maps.moving_to_fixed;
  if (direction != v1::MOVING_TO_FIXED) {
    return Way{&opened.maps.fixed_to_moving, inverse ? &*inverse : nullptr, *fixed, *moving};
  }
  if (!inverse) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("direction: ", opened.message.name(),
                                       " has no inverse; register with options.inverse")),
                      "NO_INVERSE");
  }
  return Way{&*inverse, &opened.maps.fixed_to_moving, *moving, *fixed};
}

// The image that a request names, readable; `stored` is the record.
absl::StatusOr<Volume> Mapped(ServerState& state, const std::string& name, const char* field,
                              bool labels) {
  auto stored = VolumeOf(state, name, field, labels);
  if (!stored.ok()) return stored.status();
  return state.MapVolume(*stored);
}

// Fails where a volume of this grid and type, made in memory, takes more than a call may.
absl::Status CheckFits(const ServerState& state, const Grid& grid, VoxelType type) {
  const int64_t bytes = grid.voxel_count() * static_cast<int64_t>(BytesPerVoxel(type));
  if (bytes <= state.memory_bytes()) return absl::OkStatus();
  return WithReason(absl::ResourceExhaustedError(absl::StrCat(
                        "the carried volume takes ", bytes >> 20, " MiB, a call may take ",
                        state.memory_bytes() >> 20, " MiB (memory_limit_mib of gvsld)")),
                    "VOLUME_TOO_LARGE");
}

// Keeps a volume that was made here. Of `about`: display name, modality and tags.
absl::StatusOr<v1::Volume> Store(ServerState& state, const Volume& volume,
                                 const v1::Volume& about) {
  const Scratch scratch(state);
  OutputFile file(scratch.path);
  absl::Status written = file.status();
  if (written.ok()) written = file.Write(volume.bytes(), volume.byte_count(), 0);
  if (written.ok()) written = file.Commit();
  if (!written.ok()) return WithoutPaths(written, {scratch.path});
  StoredVolume stored;
  stored.blob_sha256 = Sha256Of(volume.bytes(), volume.byte_count());
  v1::Volume& message = stored.volume;
  message.set_name("volumes/" + NewId());
  message.set_display_name(about.display_name());
  message.set_modality(about.modality());
  *message.mutable_tags() = about.tags();
  message.set_kind(volume.kind() == VolumeKind::kLabels ? v1::Volume::LABELS : v1::Volume::IMAGE);
  message.set_voxel_type(ToProto(volume.type()));
  *message.mutable_grid() = ToProto(volume.grid());
  message.set_content_sha256(ContentDigest(message, stored.blob_sha256));
  message.set_voxel_bytes(static_cast<int64_t>(volume.byte_count()));
  VisitVoxelType(volume.type(), [&](auto zero) {
    const auto* voxels = volume.voxels<decltype(zero)>();
    const auto [least, greatest] = std::minmax_element(voxels, voxels + volume.voxel_count());
    message.set_min_value(*least);
    message.set_max_value(*greatest);
  });
  *message.mutable_create_time() = Now();
  absl::Status kept = state.StoreBlob(scratch.path, stored.blob_sha256,
                                      [&] { return state.metadata->AddVolume(stored, {}); });
  if (!kept.ok()) return kept;
  if (state.volume_added) state.volume_added(message.name());
  return message;
}

}  // namespace

absl::StatusOr<v1::Registration> MakeRegistration(ServerState& state,
                                                  const v1::RegisterVolumesRequest& request,
                                                  const CancelFunction& cancelled,
                                                  const RegistrationProgressFunction& progress) {
  if (absl::Status status = CheckText(request.display_name(), kMostNameBytes, "display_name");
      !status.ok()) {
    return status;
  }
  if (!request.request_id().empty()) {
    if (absl::Status status = CheckRequestId(request.request_id(), "request_id"); !status.ok())
      return status;
  }
  v1::RegisterVolumesRequest asked = request;
  asked.clear_request_id();
  const Creation creation = {request.request_id(), Sha256Of(asked.SerializeAsString())};
  if (!creation.request_id.empty()) {
    auto made = state.metadata->FindCreation("registrations", creation);
    if (!made.ok()) return made.status();
    if (made->has_value()) {
      auto stored = state.registrations->Get(**made);
      if (!stored.ok()) return stored.status();
      return std::move(stored->registration);
    }
  }
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  auto options = OptionsFrom(request.options(), model->model.card(), state.memory_bytes());
  if (!options.ok()) return options.status();
  auto fixed = Mapped(state, request.fixed(), "fixed", false);
  if (!fixed.ok()) return fixed.status();
  auto moving = Mapped(state, request.moving(), "moving", false);
  if (!moving.ok()) return moving.status();
  RegistrationInput input{&*fixed, &*moving, nullptr, nullptr};
  Volume fixed_mask, moving_mask;
  for (const auto& [name, field, mask, place] :
       {std::tuple(&request.fixed_mask(), "fixed_mask", &fixed_mask, &input.fixed_mask),
        std::tuple(&request.moving_mask(), "moving_mask", &moving_mask, &input.moving_mask)}) {
    if (name->empty()) continue;
    auto mapped = Mapped(state, *name, field, true);
    if (!mapped.ok()) return mapped.status();
    *mask = *std::move(mapped);
    *place = mask;
  }
  Clock::time_point begin, told;
  const RegistrationWatch watch = [&](const RegistrationProgress& now) -> absl::Status {
    if (cancelled()) return absl::CancelledError("cancelled between two steps");
    if (Clock::now() - told < kTellEvery) return absl::OkStatus();
    told = Clock::now();
    v1::RegisterVolumesResponse::Progress message;
    message.set_stage(now.stage);
    message.set_step(now.step);
    message.set_steps(now.steps);
    message.set_similarity(now.similarity);
    return progress(message);
  };
  absl::StatusOr<Registration> result;
  absl::Status done = OnDevice(state, *model, cancelled, [&](Extractor& extractor) {
    begin = Clock::now();
    result = extractor.Register(input, *options, watch);
    return result.status();
  });
  if (!done.ok()) return done;
  const auto compute = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
  StoredRegistration stored;
  v1::Registration& message = stored.registration;
  message.set_name("registrations/" + NewId());
  message.set_display_name(request.display_name());
  message.set_fixed(request.fixed());
  message.set_moving(request.moving());
  *message.mutable_options() = ToProto(*options);
  *message.mutable_model() = model->model.identity();
  FillResult(*result, &message);
  *message.mutable_create_time() = Now();
  message.mutable_compute_time()->set_seconds(compute.count() / 1000);
  message.mutable_compute_time()->set_nanos(static_cast<int32_t>(compute.count() % 1000 * 1000000));
  const Scratch scratch(state);
  auto digest = WriteDisplacements(*result, scratch.path);
  if (!digest.ok()) return WithoutPaths(digest.status(), {scratch.path});
  stored.blob_sha256 = *digest;
  v1::Registration kept;
  absl::Status status = state.StoreBlob(scratch.path, *digest, [&]() -> absl::Status {
    auto added = state.registrations->Add(stored, creation);
    if (added.ok()) kept = *std::move(added);
    return added.status();
  });
  if (!status.ok()) return status;
  return kept;
}

absl::StatusOr<RegistrationVerdict> CompareAligned(ServerState& state, const StoredModel& model,
                                                   const StoredVolume& fixed,
                                                   const StoredVolume& moving,
                                                   const v1::RegistrationOptions& asked,
                                                   const CancelFunction& cancelled, bool admitted) {
  auto options = OptionsFrom(asked, model.model.card(), state.memory_bytes());
  if (!options.ok()) return options.status();
  auto fixed_volume = state.MapVolume(fixed);
  if (!fixed_volume.ok()) return fixed_volume.status();
  auto moving_volume = state.MapVolume(moving);
  if (!moving_volume.ok()) return moving_volume.status();
  RegistrationVerdict verdict;
  absl::Status status = OnDevice(
      state, model, cancelled,
      [&](Extractor& extractor) -> absl::Status {
        auto result = extractor.Register(
            {&*fixed_volume, &*moving_volume, nullptr, nullptr}, *options,
            [&](const RegistrationProgress&) {
              return cancelled() ? absl::CancelledError("cancelled between two steps")
                                 : absl::OkStatus();
            });
        if (result.ok()) verdict = std::move(result->verdict);
        return result.status();
      },
      admitted);
  if (!status.ok()) return status;
  return verdict;
}

absl::Status ApplyRegistration(ServerState& state, const v1::ApplyRegistrationRequest& request,
                               v1::Volume* response) {
  if (absl::Status status = CheckText(request.display_name(), kMostNameBytes, "display_name");
      !status.ok()) {
    return status;
  }
  if (request.label_rule() < v1::ApplyRegistrationRequest::LABEL_RULE_UNSPECIFIED ||
      request.label_rule() > v1::ApplyRegistrationRequest::MAJORITY) {
    return absl::InvalidArgumentError("label_rule: NEAREST or MAJORITY");
  }
  auto opened = Open(state, request.registration(), "registration");
  if (!opened.ok()) return opened.status();
  auto way = WayOf(*opened, request.direction());
  if (!way.ok()) return way.status();
  if (auto id = IdOf("volumes", request.volume(), "volume"); !id.ok()) return id.status();
  auto stored = state.metadata->GetVolume(request.volume());
  if (!stored.ok()) return stored.status();
  auto volume = state.MapVolume(*stored);
  if (!volume.ok()) return volume.status();
  if (absl::Status status = CheckFits(state, way->from, volume->type()); !status.ok())
    return status;
  const LabelRule rule = request.label_rule() == v1::ApplyRegistrationRequest::MAJORITY
                             ? LabelRule::kMajority
                             : LabelRule::kNearest;
  // What the volume does not show looks like its darkest part: air in a CT.
  auto carried = WarpVolume(*volume, *way->map, way->from, rule,
                            static_cast<float>(stored->volume.min_value()));
  if (!carried.ok()) return carried.status();
  v1::Volume about = stored->volume;
  about.set_display_name(request.display_name());
  auto made = Store(state, *carried, about);
  if (!made.ok()) return made.status();
  *response = *std::move(made);
  return absl::OkStatus();
}

absl::Status MatchPoints(ServerState& state, const v1::MatchPointsRequest& request,
                         v1::MatchPointsResponse* response) {
  if (request.points_size() < 1 || request.points_size() > kMostMatches) {
    return absl::InvalidArgumentError(
        absl::StrCat("points: ", request.points_size(), " points; 1 to ", kMostMatches, " a call"));
  }
  for (int i = 0; i < request.points_size(); ++i) {
    const auto& point = request.points(i);
    if (!std::isfinite(point.x_mm()) || !std::isfinite(point.y_mm()) ||
        !std::isfinite(point.z_mm())) {
      return absl::InvalidArgumentError(absl::StrCat("points[", i, "]: not a finite position"));
    }
  }
  auto opened = Open(state, request.registration(), "registration");
  if (!opened.ok()) return opened.status();
  auto way = WayOf(*opened, request.direction());
  if (!way.ok()) return way.status();
  std::vector<Vec3> points;
  for (const auto& point : request.points())
    points.push_back({point.x_mm(), point.y_mm(), point.z_mm()});
  const std::vector<Vec3> matches = MapPoints(*way->map, points);
  std::vector<Vec3> back;
  if (way->back != nullptr) back = MapPoints(*way->back, matches);
  for (size_t i = 0; i < matches.size(); ++i) {
    auto* match = response->add_matches();
    match->mutable_point()->set_x_mm(matches[i][0]);
    match->mutable_point()->set_y_mm(matches[i][1]);
    match->mutable_point()->set_z_mm(matches[i][2]);
    const Vec3 index = way->to.PhysicalToIndex(matches[i]);
    for (int axis = 0; axis < 3; ++axis) {
      if (!(index[axis] >= -0.5 && index[axis] <= static_cast<double>(way->to.size[axis]) - 0.5))
        match->set_out_of_view(true);
    }
    if (back.empty()) continue;
    match->set_cycle_distance_mm(std::hypot(back[i][0] - points[i][0], back[i][1] - points[i][1],
                                            back[i][2] - points[i][2]));
  }
  return absl::OkStatus();
}

absl::StatusOr<RegistrationFile> FileOf(ServerState& state,
                                        const v1::DownloadRegistrationFileRequest& request) {
  using Request = v1::DownloadRegistrationFileRequest;
  if (request.file() < Request::WARPED || request.file() > Request::LEARN2REG_FIELD)
    return absl::InvalidArgumentError("file: required; one of WARPED to LEARN2REG_FIELD");
  auto opening = Open(state, request.name(), "name");
  if (!opening.ok()) return opening.status();
  const auto opened = std::make_shared<Opened>(*std::move(opening));
  auto way = WayOf(*opened, request.file() == Request::MOVING_TO_FIXED_COMPOSED_FIELD
                                ? v1::MOVING_TO_FIXED
                                : v1::FIXED_TO_MOVING);
  if (!way.ok()) return way.status();
  const auto none = [&](const std::string& why) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("file: ", opened->message.name(), " ", why)),
        "NO_SUCH_FILE");
  };
  const SpatialMap& map = *way->map;  // of `opened`, which the file keeps
  switch (request.file()) {
    case Request::FIXED_TO_MOVING_AFFINE:
      return RegistrationFile{
          "fixed_to_moving_affine.tfm",
          [opened, &map](const std::string& path) { return WriteItkAffine(map.affine, path); }};
    case Request::FIXED_TO_MOVING_FIELD:
      if (map.displacement.empty()) return none("has no displacements: its map is affine alone");
      return RegistrationFile{"fixed_to_moving_field.nii.gz",
                              [opened, &map](const std::string& path) {
                                return WriteDisplacementField(map.displacement, path);
                              }};
    case Request::FIXED_TO_MOVING_COMPOSED_FIELD:
    case Request::MOVING_TO_FIXED_COMPOSED_FIELD: {
      absl::Status fits = CheckFits(state, way->from, VoxelType::kFloat32);
      if (!fits.ok()) return fits;
      const char* name = request.file() == Request::FIXED_TO_MOVING_COMPOSED_FIELD
                             ? "fixed_to_moving_composed_field.nii.gz"
                             : "moving_to_fixed_composed_field.nii.gz";
      return RegistrationFile{name, [opened, &map, from = way->from](const std::string& path) {
                                return WriteDisplacementField(ComposedField(map, from), path);
                              }};
    }
    case Request::LEARN2REG_FIELD:
      return RegistrationFile{"fixed_to_moving_learn2reg.nii.gz",
                              [opened, &map, way = *way](const std::string& path) {
                                return WriteLearn2RegField(map, way.from, way.to, path);
                              }};
    default:
      break;
  }
  auto moving = state.metadata->GetVolume(opened->message.moving());
  if (absl::IsNotFound(moving.status())) return none("has lost its moving volume: it was deleted");
  if (!moving.ok()) return moving.status();
  auto mapped = state.MapVolume(*moving);
  if (!mapped.ok()) return mapped.status();
  if (absl::Status fits = CheckFits(state, way->from, mapped->type()); !fits.ok()) return fits;
  const auto volume = std::make_shared<Volume>(*std::move(mapped));
  return RegistrationFile{
      "warped.nii.gz",
      [opened, &map, volume, from = way->from,
       outside = static_cast<float>(moving->volume.min_value())](const std::string& path) {
        auto warped = WarpVolume(*volume, map, from, LabelRule::kNearest, outside);
        return warped.ok() ? WriteVolume(*warped, path) : warped.status();
      }};
}

}  // namespace gvsl
