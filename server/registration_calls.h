// What the calls that make registrations do, on the device.
#ifndef GVSL_SERVER_REGISTRATION_CALLS_H_
#define GVSL_SERVER_REGISTRATION_CALLS_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/registrations.pb.h"
#include "server/server_state.h"

namespace gvsl {

// Told how far a registration is; what it returns, unless OK, ends the work.
using RegistrationProgressFunction =
    std::function<absl::Status(const v1::RegisterVolumesResponse::Progress&)>;

// Registers two volumes in a turn on the device and keeps the result.
absl::StatusOr<v1::Registration> MakeRegistration(ServerState& state,
                                                  const v1::RegisterVolumesRequest& request,
                                                  const CancelFunction& cancelled,
                                                  const RegistrationProgressFunction& progress);

// Registers a candidate (moving) to a query (fixed) and keeps nothing. `admitted`: as OnDevice.
absl::StatusOr<Registration> CompareAligned(ServerState& state, const StoredModel& model,
                                            const StoredVolume& fixed, const StoredVolume& moving,
                                            const RegistrationOptions& options,
                                            const CancelFunction& cancelled, bool admitted);

}  // namespace gvsl

#endif  // GVSL_SERVER_REGISTRATION_CALLS_H_
