#include "server/registration_maps.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

// Of the finest level (model/registration.h).
constexpr int64_t kBytesAVoxel = 150, kMindBytesAVoxel = 100, kBytesAChannel = 8;
constexpr int64_t kLeastVoxels = 4096;

v1::AffineMap ToProto(const AffineMap& map) {
  v1::AffineMap message;
  for (const Vec3& row : map.matrix) message.mutable_matrix()->Add(row.begin(), row.end());
  message.mutable_translation_mm()->Add(map.translation_mm.begin(), map.translation_mm.end());
  return message;
}

absl::StatusOr<AffineMap> FromProto(const v1::AffineMap& message) {
  if (message.matrix_size() != 9 || message.translation_mm_size() != 3)
    return absl::DataLossError("a stored registration has no affine map");
  AffineMap map;
  for (int i = 0; i < 9; ++i) map.matrix[i / 3][i % 3] = message.matrix(i);
  std::copy(message.translation_mm().begin(), message.translation_mm().end(),
            map.translation_mm.begin());
  return map;
}

void FillMap(const SpatialMap& map, v1::AffineMap* affine, v1::Grid* (v1::Registration::*lattice)(),
             v1::Registration* message) {
  *affine = ToProto(map.affine);
  if (!map.displacement.empty()) *(message->*lattice)() = gvsl::ToProto(map.displacement.grid);
}

// The next displacements of the file.
absl::Status ReadField(const v1::Grid& message, std::ifstream& file, DisplacementField& field) {
  auto grid = gvsl::FromProto(message);
  if (!grid.ok()) return grid.status();
  field.grid = *grid;
  field.values_mm.resize(static_cast<size_t>(3 * grid->voxel_count()));
  file.read(reinterpret_cast<char*>(field.values_mm.data()),
            static_cast<std::streamsize>(field.values_mm.size() * sizeof(float)));
  return file ? absl::OkStatus() : absl::DataLossError("the displacements end early");
}

}  // namespace

absl::StatusOr<RegistrationOptions> OptionsFrom(const v1::RegistrationOptions& message,
                                                const v1::ModelCard& card, int64_t memory_bytes) {
  RegistrationOptions options;
  options.use_network = message.has_use_network()
                            ? message.use_network()
                            : card.has_heads() && card.geometry() == "corrected";
  switch (message.initialisation()) {
    case v1::RegistrationOptions::INITIALISATION_UNSPECIFIED:
    case v1::RegistrationOptions::AUTO:
      options.initialisation = Initialisation::kAuto;
      break;
    case v1::RegistrationOptions::NONE:
      options.initialisation = Initialisation::kNone;
      break;
    case v1::RegistrationOptions::CENTRE_OF_VIEW:
      options.initialisation = Initialisation::kCentreOfView;
      break;
    case v1::RegistrationOptions::CENTRE_OF_MASS:
      options.initialisation = Initialisation::kCentreOfMass;
      break;
    default:
      return absl::InvalidArgumentError(
          "options.initialisation: AUTO, NONE, CENTRE_OF_VIEW or CENTRE_OF_MASS");
  }
  switch (message.linear()) {
    case v1::RegistrationOptions::LINEAR_UNSPECIFIED:
    case v1::RegistrationOptions::AFFINE:
      options.linear = LinearModel::kAffine;
      break;
    case v1::RegistrationOptions::RIGID:
      options.linear = LinearModel::kRigid;
      break;
    case v1::RegistrationOptions::NO_LINEAR:
      options.linear = LinearModel::kNone;
      break;
    default:
      return absl::InvalidArgumentError("options.linear: NO_LINEAR, RIGID or AFFINE");
  }
  if (message.has_deformable()) options.deformable = message.deformable();
  if (message.has_metric()) {
    const auto& metric = message.metric();
    options.metric = {metric.lncc(), metric.mind(), metric.features()};
  }
  if (message.has_refine_steps()) options.refine_steps = message.refine_steps();
  if (message.has_smoothness_weight()) options.smoothness_weight = message.smoothness_weight();
  options.discrete_stage = message.discrete_stage();
  options.inverse = message.inverse();
  options.consistency = message.consistency();
  const int64_t bytes = kBytesAVoxel + (options.metric.mind > 0 ? kMindBytesAVoxel : 0) +
                        (options.metric.features > 0 ? kBytesAChannel * card.widths(0) : 0);
  const int64_t most = std::max(kLeastVoxels, memory_bytes / bytes);
  if (message.max_voxels() > most) {
    return absl::ResourceExhaustedError(absl::StrCat("options.max_voxels: ", message.max_voxels(),
                                                     " take more than the ", memory_bytes >> 20,
                                                     " MiB that a call may; at most ", most));
  }
  options.max_voxels =
      message.max_voxels() == 0 ? std::min(options.max_voxels, most) : message.max_voxels();
  return options;
}

v1::RegistrationOptions ToProto(const RegistrationOptions& options) {
  v1::RegistrationOptions message;
  message.set_use_network(options.use_network);
  constexpr v1::RegistrationOptions::Initialisation kInitialisations[] = {
      v1::RegistrationOptions::AUTO, v1::RegistrationOptions::NONE,
      v1::RegistrationOptions::CENTRE_OF_VIEW, v1::RegistrationOptions::CENTRE_OF_MASS};
  message.set_initialisation(kInitialisations[static_cast<int>(options.initialisation)]);
  constexpr v1::RegistrationOptions::Linear kLinear[] = {v1::RegistrationOptions::NO_LINEAR,
                                                         v1::RegistrationOptions::RIGID,
                                                         v1::RegistrationOptions::AFFINE};
  message.set_linear(kLinear[static_cast<int>(options.linear)]);
  message.set_deformable(options.deformable);
  message.mutable_metric()->set_lncc(options.metric.lncc);
  message.mutable_metric()->set_mind(options.metric.mind);
  message.mutable_metric()->set_features(options.metric.features);
  message.set_refine_steps(options.refine_steps);
  message.set_smoothness_weight(options.smoothness_weight);
  message.set_discrete_stage(options.discrete_stage);
  message.set_inverse(options.inverse);
  message.set_consistency(options.consistency);
  message.set_max_voxels(options.max_voxels);
  return message;
}

v1::RegistrationVerdict ToProto(const RegistrationVerdict& verdict) {
  v1::RegistrationVerdict message;
  constexpr v1::RegistrationVerdict::Quality kQualities[] = {v1::RegistrationVerdict::GOOD,
                                                             v1::RegistrationVerdict::DOUBTFUL,
                                                             v1::RegistrationVerdict::FAILED};
  message.set_quality(kQualities[static_cast<int>(verdict.quality)]);
  message.set_reason(verdict.reason);
  message.set_ncc_before(verdict.ncc_before);
  message.set_ncc_after(verdict.ncc_after);
  message.set_local_ncc_before(verdict.local_ncc_before);
  message.set_local_ncc_after(verdict.local_ncc_after);
  message.set_overlap_percent(verdict.overlap_percent);
  message.set_jacobian_min(verdict.jacobian.min);
  message.set_jacobian_max(verdict.jacobian.max);
  message.set_folding_percent(verdict.jacobian.non_positive_percent);
  message.set_sd_log_jacobian(verdict.jacobian.sd_log);
  message.set_deformation_energy(verdict.deformation_energy);
  if (verdict.inverse_consistency_mm)
    message.set_inverse_consistency_mm(*verdict.inverse_consistency_mm);
  if (verdict.feature_residual_before)
    message.set_feature_residual_before(*verdict.feature_residual_before);
  if (verdict.feature_residual_after)
    message.set_feature_residual_after(*verdict.feature_residual_after);
  return message;
}

void FillResult(const Registration& result, v1::Registration* message) {
  *message->mutable_verdict() = ToProto(result.verdict);
  *message->mutable_fixed_grid() = gvsl::ToProto(result.fixed_grid);
  *message->mutable_moving_grid() = gvsl::ToProto(result.moving_grid);
  FillMap(result.fixed_to_moving, message->mutable_fixed_to_moving_affine(),
          &v1::Registration::mutable_fixed_to_moving_lattice, message);
  if (!result.moving_to_fixed) return;
  FillMap(result.moving_to_fixed->map, message->mutable_moving_to_fixed_affine(),
          &v1::Registration::mutable_moving_to_fixed_lattice, message);
  message->set_inverse_residual_mm(result.moving_to_fixed->mean_residual_mm);
}

absl::StatusOr<std::string> WriteDisplacements(const Registration& result,
                                               const std::string& path) {
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  Sha256 hash;
  int64_t offset = 0;
  std::vector<const SpatialMap*> maps = {&result.fixed_to_moving};
  if (result.moving_to_fixed) maps.push_back(&result.moving_to_fixed->map);
  for (const SpatialMap* map : maps) {
    const auto& values = map->displacement.values_mm;
    if (values.empty()) continue;
    const size_t bytes = values.size() * sizeof(float);
    hash.Update(values.data(), bytes);
    if (absl::Status status = file.Write(values.data(), bytes, offset); !status.ok()) return status;
    offset += static_cast<int64_t>(bytes);
  }
  if (absl::Status status = file.Commit(); !status.ok()) return status;
  return hash.Finish();
}

absl::StatusOr<RegistrationMaps> ReadMaps(const v1::Registration& message,
                                          const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::DataLossError("the displacements cannot be opened");
  RegistrationMaps maps;
  auto forward = FromProto(message.fixed_to_moving_affine());
  if (!forward.ok()) return forward.status();
  maps.fixed_to_moving.affine = *forward;
  if (message.has_fixed_to_moving_lattice()) {
    absl::Status status =
        ReadField(message.fixed_to_moving_lattice(), file, maps.fixed_to_moving.displacement);
    if (!status.ok()) return status;
  }
  if (!message.has_moving_to_fixed_affine()) return maps;
  auto backward = FromProto(message.moving_to_fixed_affine());
  if (!backward.ok()) return backward.status();
  maps.moving_to_fixed.emplace();
  maps.moving_to_fixed->affine = *backward;
  if (message.has_moving_to_fixed_lattice()) {
    absl::Status status =
        ReadField(message.moving_to_fixed_lattice(), file, maps.moving_to_fixed->displacement);
    if (!status.ok()) return status;
  }
  return maps;
}

}  // namespace gvsl
