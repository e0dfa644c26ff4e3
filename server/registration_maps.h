// Registrations between the wire, the disk and the model room: options, verdicts, and maps, whose
// fields of displacements are a blob.
#ifndef GVSL_SERVER_REGISTRATION_MAPS_H_
#define GVSL_SERVER_REGISTRATION_MAPS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/models.pb.h"
#include "gvsl/v1/registrations.pb.h"
#include "model/registration.h"
#include "server/registration_store.h"

namespace gvsl {

// Every default filled in: `use_network` is what the model can do, and `max_voxels` what fits into
// `memory_bytes`. Ranges are judged by Register. INVALID_ARGUMENT (an unknown value of an enum);
// RESOURCE_EXHAUSTED: `max_voxels` takes more memory.
absl::StatusOr<RegistrationOptions> OptionsFrom(const v1::RegistrationOptions& message,
                                                const v1::ModelCard& card, int64_t memory_bytes);
v1::RegistrationOptions ToProto(const RegistrationOptions& options);
v1::RegistrationVerdict ToProto(const RegistrationVerdict& verdict);

// Verdict, grids and maps, without the displacements themselves.
void FillResult(const Registration& result, v1::Registration* message);

// The displacements, float32 in the order of DisplacementField: of fixed_to_moving, then of
// moving_to_fixed. Returns the file's SHA-256.
absl::StatusOr<std::string> WriteDisplacements(const Registration& result, const std::string& path);

struct RegistrationMaps {
  SpatialMap fixed_to_moving;
  std::optional<SpatialMap> moving_to_fixed;
};
// DATA_LOSS: the file is missing or of another length.
absl::StatusOr<RegistrationMaps> ReadMaps(const v1::Registration& message, const std::string& path);

}  // namespace gvsl

#endif  // GVSL_SERVER_REGISTRATION_MAPS_H_
