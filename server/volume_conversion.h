// Checks of the wire's volumes, and model cards between the wire and our own types (grids:
// client/wire.h).
#ifndef GVSL_SERVER_VOLUME_CONVERSION_H_
#define GVSL_SERVER_VOLUME_CONVERSION_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/models.pb.h"
#include "gvsl/v1/volumes.pb.h"
#include "imaging/volume.h"
#include "model/model_file.h"

namespace gvsl {

inline VolumeKind KindOf(const v1::Volume& volume) {
  return volume.kind() == v1::Volume::LABELS ? VolumeKind::kLabels : VolumeKind::kImage;
}

// What a client may say of a new volume. INVALID_ARGUMENT that opens with the field below `prefix`.
absl::Status CheckNewVolume(const v1::Volume& volume, const std::string& prefix);
// display_name, modality and tags, also for updates.
absl::Status CheckVolumeText(const v1::Volume& volume, const std::string& prefix);

// Equal for equal voxel type, kind, geometry and voxels.
std::string ContentDigest(const v1::Volume& volume, const std::string& voxels_sha256);

v1::ModelCard ToProto(const ModelCard& card);
// A card for a file that has none: the paper's settings, and what the message sets.
absl::StatusOr<ModelCard> CardFromProto(const v1::ModelCard& card, Geometry geometry);
v1::ModelIdentity IdentityOf(const std::string& name, const ModelInfo& info);

}  // namespace gvsl

#endif  // GVSL_SERVER_VOLUME_CONVERSION_H_
