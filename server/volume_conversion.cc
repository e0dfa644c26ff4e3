#include "server/volume_conversion.h"

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/sha256.h"
#include "server/names.h"

namespace gvsl {
namespace {

constexpr size_t kMostNameBytes = 256, kMostTagBytes = 64, kMostModalityBytes = 16;
constexpr int kMostTags = 64;

absl::Status Below(const std::string& prefix, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(prefix, std::string(status.message())));
}

v1::ModelCard::Intensity ToProto(const IntensityRule& rule) {
  v1::ModelCard::Intensity message;
  switch (rule.method) {
    case IntensityRule::Method::kWindow:
      message.set_method(v1::ModelCard::Intensity::WINDOW);
      break;
    case IntensityRule::Method::kMinMax:
      message.set_method(v1::ModelCard::Intensity::MIN_MAX);
      break;
    case IntensityRule::Method::kPercentile:
      message.set_method(v1::ModelCard::Intensity::PERCENTILE);
  }
  message.set_shift(rule.shift);
  message.set_low(rule.low);
  message.set_high(rule.high);
  return message;
}

void ReadRule(const v1::ModelCard::Intensity& message, IntensityRule& rule) {
  switch (message.method()) {
    case v1::ModelCard::Intensity::WINDOW:
      rule.method = IntensityRule::Method::kWindow;
      break;
    case v1::ModelCard::Intensity::MIN_MAX:
      rule.method = IntensityRule::Method::kMinMax;
      break;
    case v1::ModelCard::Intensity::PERCENTILE:
      rule.method = IntensityRule::Method::kPercentile;
      break;
    default:
      break;
  }
  rule.shift = message.shift();
  rule.low = message.low();
  rule.high = message.high();
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

std::string ContentDigest(const v1::Volume& volume, const std::string& voxels_sha256) {
  // The voxels' own digest stands for them; numbers as they lie in memory, little-endian on the
  // wire as here.
  std::string head =
      absl::StrCat(v1::Volume::VoxelType_Name(volume.voxel_type()), "/",
                   KindOf(volume) == VolumeKind::kLabels ? "LABELS" : "IMAGE", "/", voxels_sha256);
  for (const auto* numbers :
       {&volume.grid().spacing_mm(), &volume.grid().origin_mm(), &volume.grid().direction()}) {
    head.append(reinterpret_cast<const char*>(numbers->data()),
                sizeof(double) * static_cast<size_t>(numbers->size()));
  }
  for (int64_t size : volume.grid().size()) absl::StrAppend(&head, "/", size);
  Sha256 hash;
  hash.Update(head.data(), head.size());
  return hash.Finish();
}

v1::ModelCard ToProto(const ModelCard& card) {
  v1::ModelCard message;
  message.set_size(card.size);
  for (int64_t width : card.widths) message.add_widths(static_cast<int32_t>(width));
  message.set_geometry(card.geometry == Geometry::kOfficial ? "official" : "corrected");
  message.set_orientation(card.orientation);
  for (double spacing : card.spacing_mm) message.add_spacing_mm(spacing);
  *message.mutable_ct() = ToProto(card.ct);
  *message.mutable_other() = ToProto(card.other);
  message.set_crop(static_cast<int32_t>(card.crop));
  message.set_has_heads(card.has_heads);
  message.set_provenance(card.provenance);
  return message;
}

absl::StatusOr<ModelCard> CardFromProto(const v1::ModelCard& message, Geometry geometry) {
  ModelCard card;
  card.geometry = geometry;
  if (message.geometry() == "official") {
    card.geometry = Geometry::kOfficial;
  } else if (message.geometry() == "corrected") {
    card.geometry = Geometry::kCorrected;
  } else if (!message.geometry().empty()) {
    return absl::InvalidArgumentError("card.geometry: official or corrected");
  }
  if (!message.orientation().empty()) card.orientation = message.orientation();
  if (message.spacing_mm_size() == 3) {
    for (int i = 0; i < 3; ++i) card.spacing_mm[i] = message.spacing_mm(i);
  } else if (message.spacing_mm_size() != 0) {
    return absl::InvalidArgumentError("card.spacing_mm: needs three values");
  }
  if (message.has_ct()) ReadRule(message.ct(), card.ct);
  if (message.has_other()) ReadRule(message.other(), card.other);
  if (message.crop() != 0) card.crop = message.crop();
  card.provenance = message.provenance();
  if (absl::Status status = ValidateCard(card); !status.ok()) return status;
  return card;
}

v1::ModelIdentity IdentityOf(const std::string& name, const ModelInfo& info) {
  v1::ModelIdentity identity;
  identity.set_model(name);
  identity.set_weights_sha256(info.weights_sha256);
  identity.set_preprocessing_sha256(info.preprocessing_sha256);
  identity.set_fingerprint(info.fingerprint);
  return identity;
}

}  // namespace gvsl
