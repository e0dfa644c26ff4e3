// A stored registration made ready to be applied.
#ifndef GVSL_SERVER_OPENED_REGISTRATION_H_
#define GVSL_SERVER_OPENED_REGISTRATION_H_

#include <string>

#include "absl/status/statusor.h"
#include "gvsl/v1/registrations.pb.h"
#include "server/registration_maps.h"
#include "server/server_state.h"

namespace gvsl {

struct OpenedRegistration {
  v1::Registration message;
  RegistrationMaps maps;
};
// Reads the maps of the registration that a request's `field` names. INVALID_ARGUMENT, NOT_FOUND,
// DATA_LOSS (STORED_DATA_LOST).
absl::StatusOr<OpenedRegistration> OpenRegistration(ServerState& state, const std::string& name,
                                                    const std::string& field);

// The map of one direction.
struct DirectedMap {
  std::string name;                  // "fixed_to_moving" or "moving_to_fixed"
  const SpatialMap* map = nullptr;   // of the opened registration
  const SpatialMap* back = nullptr;  // may be none
  Grid from, to;                     // of the two volumes
  std::string from_volume, to_volume;
};
// INVALID_ARGUMENT (no such direction), FAILED_PRECONDITION (NO_INVERSE).
absl::StatusOr<DirectedMap> DirectedMapOf(const OpenedRegistration& opened,
                                          v1::Direction direction);

}  // namespace gvsl

#endif  // GVSL_SERVER_OPENED_REGISTRATION_H_
