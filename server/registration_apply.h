// What the calls that use stored registrations do: carry volumes and points over, and write files.
// None needs more memory than a few slices beside the maps; all look at `cancelled` between slabs.
#ifndef GVSL_SERVER_REGISTRATION_APPLY_H_
#define GVSL_SERVER_REGISTRATION_APPLY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/registrations.pb.h"
#include "gvsl/v1/volumes.pb.h"
#include "server/server_state.h"

namespace gvsl {

absl::Status ApplyRegistration(ServerState& state, const v1::ApplyRegistrationRequest& request,
                               const CancelFunction& cancelled, v1::Volume* response);
absl::Status TransferLabels(ServerState& state, const v1::TransferLabelsRequest& request,
                            const CancelFunction& cancelled, v1::Volume* response);
absl::Status MatchPoints(ServerState& state, const v1::MatchPointsRequest& request,
                         const CancelFunction& cancelled, v1::MatchPointsResponse* response);

// Writes the file that a request names; its name is that on the wire, appended to `path_prefix`.
struct RegistrationFile {
  std::string file_name, path;
};
absl::StatusOr<RegistrationFile> WriteRegistrationFile(
    ServerState& state, const v1::DownloadRegistrationFileRequest& request,
    const std::string& path_prefix, const CancelFunction& cancelled);

}  // namespace gvsl

#endif  // GVSL_SERVER_REGISTRATION_APPLY_H_
