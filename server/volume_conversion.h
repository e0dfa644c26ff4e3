// Checks of the wire's volumes (grids: client/wire.h).
#ifndef GVSL_SERVER_VOLUME_CONVERSION_H_
#define GVSL_SERVER_VOLUME_CONVERSION_H_

#include <string>

#include "absl/status/status.h"
#include "gvsl/v1/volumes.pb.h"
#include "imaging/volume.h"

namespace gvsl {

inline VolumeKind KindOf(const v1::Volume& volume) {
  return volume.kind() == v1::Volume::LABELS ? VolumeKind::kLabels : VolumeKind::kImage;
}

// What a client may say of a new volume. INVALID_ARGUMENT that opens with the field below `prefix`.
absl::Status CheckNewVolume(const v1::Volume& volume, const std::string& prefix);
// display_name, modality and tags, also for updates.
absl::Status CheckVolumeText(const v1::Volume& volume, const std::string& prefix);

}  // namespace gvsl

#endif  // GVSL_SERVER_VOLUME_CONVERSION_H_
