#include "server/volume_conversion.h"

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "server/names.h"

namespace gvsl {
namespace {

constexpr size_t kMostNameBytes = 256, kMostTagBytes = 64, kMostModalityBytes = 16;
constexpr int kMostTags = 64;

absl::Status Below(const std::string& prefix, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(prefix, std::string(status.message())));
}

}  // namespace

absl::Status CheckVolumeText(const v1::Volume& volume, const std::string& prefix) {
  if (absl::Status status =
          CheckText(volume.display_name(), kMostNameBytes, prefix + "display_name");
      !status.ok()) {
    return status;
  }
  if (volume.modality().size() > kMostModalityBytes ||
      volume.modality().find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(prefix, "modality: at most ", kMostModalityBytes,
                                                   " letters A-Z, such as CT or MR"));
  }
  if (volume.tags_size() > kMostTags) {
    return absl::InvalidArgumentError(
        absl::StrCat(prefix, "tags: ", volume.tags_size(), "; at most ", kMostTags));
  }
  for (int i = 0; i < volume.tags_size(); ++i) {
    const std::string field = absl::StrCat(prefix, "tags[", i, "]");
    if (volume.tags(i).empty()) return absl::InvalidArgumentError(field + ": empty");
    if (absl::Status status = CheckText(volume.tags(i), kMostTagBytes, field); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::Status CheckNewVolume(const v1::Volume& volume, const std::string& prefix) {
  if (absl::Status status = CheckVolumeText(volume, prefix); !status.ok()) return status;
  if (volume.voxel_type() < v1::Volume::UINT8 || volume.voxel_type() > v1::Volume::FLOAT) {
    return absl::InvalidArgumentError(
        prefix + "voxel_type: required; one of UINT8, INT16, UINT16, INT32, FLOAT");
  }
  if (volume.kind() < v1::Volume::KIND_UNSPECIFIED || volume.kind() > v1::Volume::LABELS) {
    return absl::InvalidArgumentError(prefix + "kind: IMAGE or LABELS");
  }
  if (volume.kind() == v1::Volume::LABELS && volume.voxel_type() == v1::Volume::FLOAT) {
    return absl::InvalidArgumentError(prefix + "voxel_type: labels need integer voxels, not FLOAT");
  }
  auto grid = FromProto(volume.grid());
  if (!grid.ok()) return Below(prefix, grid.status());
  if (absl::Status status = ValidateGrid(*grid); !status.ok()) return Below(prefix, status);
  return absl::OkStatus();
}

}  // namespace gvsl
