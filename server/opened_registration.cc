#include "server/opened_registration.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/status_reason.h"
#include "server/log.h"
#include "server/names.h"

namespace gvsl {

absl::StatusOr<OpenedRegistration> OpenRegistration(ServerState& state, const std::string& name,
                                                    const std::string& field) {
  auto id = IdOf("registrations", name, field);
  if (!id.ok()) return id.status();
  auto stored = state.registrations->Get(name);
  if (!stored.ok()) return stored.status();
  auto maps = ReadMaps(stored->registration, state.blobs->PathOf(stored->blob_sha256));
  if (!maps.ok()) {
    // It may have been deleted in between.
    if (absl::Status gone = state.registrations->Get(name).status(); !gone.ok()) return gone;
    LogError(absl::StrCat(name, ": ", std::string(maps.status().message())));
    return WithReason(absl::DataLossError(absl::StrCat(
                          name,
                          ": its displacements cannot be read; the server's disk has lost "
                          "them; register the volumes again")),
                      "STORED_DATA_LOST");
  }
  return OpenedRegistration{std::move(stored->registration), *std::move(maps)};
}

absl::StatusOr<DirectedMap> DirectedMapOf(const OpenedRegistration& opened,
                                          v1::Direction direction) {
  if (direction < v1::DIRECTION_UNSPECIFIED || direction > v1::MOVING_TO_FIXED)
    return absl::InvalidArgumentError("direction: FIXED_TO_MOVING or MOVING_TO_FIXED");
  const v1::Registration& message = opened.message;
  auto fixed = FromProto(message.fixed_grid());
  if (!fixed.ok()) return fixed.status();
  auto moving = FromProto(message.moving_grid());
  if (!moving.ok()) return moving.status();
  const SpatialMap* forth = &opened.maps.fixed_to_moving;
  const SpatialMap* back = opened.maps.moving_to_fixed ? &*opened.maps.moving_to_fixed : nullptr;
  if (direction != v1::MOVING_TO_FIXED) {
    return DirectedMap{"fixed_to_moving", forth,           back, *fixed, *moving,
                       message.fixed(),   message.moving()};
  }
  if (back == nullptr) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "direction: ", message.name(), " has no inverse; register with options.inverse")),
        "NO_INVERSE");
  }
  return DirectedMap{"moving_to_fixed", back,           forth, *moving, *fixed,
                     message.moving(),  message.fixed()};
}

}  // namespace gvsl
