#include "server/registration_calls.h"

#include <chrono>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"
#include "server/engine_call.h"
#include "server/model_registry.h"
#include "server/names.h"
#include "server/registration_maps.h"

namespace gvsl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostNameBytes = 256;

constexpr auto kTellEvery = std::chrono::milliseconds(100);

// The voxels of the volume that a request's field names.
absl::StatusOr<Volume> Mapped(ServerState& state, const std::string& name, const char* field,
                              bool labels) {
  auto stored = VolumeOf(state, name, field, labels);
  if (!stored.ok()) return stored.status();
  return state.MapVolume(*stored);
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
  if (!digest.ok()) return WithoutPaths(digest.status(), {scratch.path}, kScratchFile);
  stored.blob_sha256 = *digest;
  if (cancelled()) return absl::CancelledError("cancelled before the registration was kept");
  v1::Registration kept;
  absl::Status status = state.StoreBlob(scratch.path, *digest, [&]() -> absl::Status {
    auto added = state.registrations->Add(stored, creation);
    if (!added.ok()) return added.status();
    kept = *std::move(added);
    // Where the same request was faster, its result counts and this blob is not needed.
    return kept.name() == message.name() ? absl::OkStatus() : absl::AlreadyExistsError("");
  });
  if (!kept.name().empty()) return kept;
  return status;
}

absl::StatusOr<Registration> CompareAligned(ServerState& state, const StoredModel& model,
                                            const StoredVolume& fixed, const StoredVolume& moving,
                                            const RegistrationOptions& options,
                                            const CancelFunction& cancelled, bool admitted) {
  auto fixed_volume = state.MapVolume(fixed);
  if (!fixed_volume.ok()) return fixed_volume.status();
  auto moving_volume = state.MapVolume(moving);
  if (!moving_volume.ok()) return moving_volume.status();
  absl::StatusOr<Registration> result;
  absl::Status status = OnDevice(
      state, model, cancelled,
      [&](Extractor& extractor) {
        result = extractor.Register(
            {&*fixed_volume, &*moving_volume, nullptr, nullptr}, options,
            [&](const RegistrationProgress&) {
              return cancelled() ? absl::CancelledError("cancelled between two steps")
                                 : absl::OkStatus();
            });
        return result.status();
      },
      admitted);
  if (!status.ok()) return status;
  return result;
}

}  // namespace gvsl
