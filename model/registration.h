// Registration of two volumes: the map fixed_to_moving, and a verdict on it.
//
//   RegistrationInput input{&fixed, &moving};
//   auto registration = Register(input, card, network, {}, watch);
//   auto warped = WarpVolume(moving, registration->fixed_to_moving, fixed.grid());
//
// The network's heads give a first answer; instance optimisation goes on from there, or from the
// identity. docs/registration.md tells the method. No LibTorch type appears here.
#ifndef GVSL_MODEL_REGISTRATION_H_
#define GVSL_MODEL_REGISTRATION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "imaging/spatial_map.h"
#include "imaging/volume.h"
#include "model/card.h"

namespace gvsl {

class GvslNetworkImpl;  // model/network.h

enum class Initialisation {
  kAuto,          // the one of the three that agrees best at the coarsest level
  kNone,          // the scanner's coordinates as they are
  kCentreOfView,  // the centres of both volumes onto each other
  kCentreOfMass,  // the centres of mass of the (masked) intensities onto each other
};

enum class LinearModel { kNone, kRigid, kAffine };

// Weights of the terms of the similarity; one at least is above 0.
struct MetricWeights {
  double lncc = 1;      // squared local correlation: one modality, or contrasts of one kind
  double mind = 0;      // MIND-SSC descriptors (Heinrich et al., MICCAI 2013): across modalities
  double features = 0;  // the network's dense features, normalised at each voxel
};

struct RegistrationOptions {
  // Start from the heads' answer; no effect where `linear` is kRigid, which that answer is not.
  bool use_network = true;
  Initialisation initialisation = Initialisation::kAuto;
  LinearModel linear = LinearModel::kAffine;
  bool deformable = true;
  MetricWeights metric;
  // Steps of Adam a level, for the linear and for the deformable part each; 0: no instance
  // optimisation. At most kMaxRefineSteps. The best of the network's answer and the initialisation
  // is what is refined, so that an untrained network does no harm.
  int refine_steps = 50;
  // Of the mean squared slope of the displacement against the similarity (in 0..1).
  double smoothness_weight = 0.5;
  // A discrete search for large displacements before the deformable steps (Siebert and Heinrich,
  // ConvexAdam), on MIND-SSC, or on dense features where metric.features is above 0.
  bool discrete_stage = false;
  bool inverse = false;      // moving_to_fixed too, by inversion, with its residual
  bool consistency = false;  // a second registration with the roles exchanged, for the verdict
  // The finest level has at most this many voxels: spacing grows where a volume has more. Bounds
  // memory (about 150 bytes a voxel; 100 more with mind, 8 a channel more with features) and time.
  int64_t max_voxels = int64_t{1} << 22;
  int regions = 0;  // how well each of so many regions along each axis fits; 0: not asked
  int threads = 0;  // 0: as ParallelFor
};
inline constexpr int kMaxRefineSteps = 1000;

struct RegistrationInput {
  const Volume* fixed = nullptr;
  const Volume* moving = nullptr;
  // Optional label maps on any grid of the same space: only voxels that are not 0 count.
  const Volume* fixed_mask = nullptr;
  const Volume* moving_mask = nullptr;
};

struct RegistrationProgress {
  std::string
      stage;     // "read", "network", "linear", "discrete", "deformable", "backward", "verdict"
  int step = 0;  // of `steps`, 1 at first, counted over all levels of the stage
  int steps = 0;
  double similarity = 0;  // as optimised, 0..1; higher is better
};
// Called between iterations; a status that is not OK stops the work and is returned.
using RegistrationWatch = std::function<absl::Status(const RegistrationProgress&)>;

enum class RegistrationQuality { kGood, kDoubtful, kFailed };
const char* QualityName(RegistrationQuality quality);  // "GOOD", "DOUBTFUL", "FAILED"

// All figures over the voxels of the finest level that both volumes (and masks) show.
struct RegistrationVerdict {
  double ncc_before = 0;  // Pearson's correlation of the intensities, -1..1; before: initialised
  double ncc_after = 0;
  // Mean squared local correlation, windows of 9^3 voxels, where the fixed image is not flat, 0..1.
  double local_ncc_before = 0;
  double local_ncc_after = 0;
  double overlap_percent = 0;  // share of the fixed voxels that count and are seen in moving
  JacobianStatistics jacobian;
  double deformation_energy = 0;  // DeformationEnergy of the field
  // Mean distance of a fixed point and its way forth (forward run) and back (backward run);
  // absent without `consistency`.
  std::optional<double> inverse_consistency_mm;
  // 1 - mean cosine of the dense features after alignment, 0..2; absent without a network.
  std::optional<double> feature_residual_before, feature_residual_after;
  RegistrationQuality quality = RegistrationQuality::kFailed;
  std::string reason;  // a sentence with the figures that decided
};

// How well both images fit in each region of fixed space.
struct RegionSimilarity {
  Grid grid;               // an index is a region's centre; sides may be 1
  std::vector<float> ncc;  // Pearson's, columns first; NaN where it has no value (Correlation)
};

struct Registration {
  SpatialMap fixed_to_moving;
  Grid fixed_grid, moving_grid;  // the volumes' own
  RegistrationVerdict verdict;
  std::optional<RegionSimilarity> regions;    // with `regions`
  std::optional<InverseMap> moving_to_fixed;  // with `inverse`; on the moving volume's own space
};

// The field lies on the finest level's lattice of the fixed volume (the network's, where it answers
// alone), its sides grown by a voxel so that it holds every voxel of the fixed volume.
//
// Each volume is brought to the card's orientation, spacing and intensities first; both may have
// any size, spacing and orientation. `network` may be null where neither use_network nor
// metric.features asks for one; it is used from one thread at a time.
//
// INVALID_ARGUMENT names what is wrong: an option, a volume that is missing, a label map, constant,
// holds NaN, or has fewer than 8 voxels along an axis at the card's spacing ("fixed: ..."), a mask
// that is empty, or volumes that share no voxel and are told not to be moved onto each other.
// FAILED_PRECONDITION: a network without heads or of the official geometry is asked to align. A
// pair that can be computed but does not fit is no error: its verdict says FAILED.
absl::StatusOr<Registration> Register(const RegistrationInput& input, const ModelCard& card,
                                      GvslNetworkImpl* network, const RegistrationOptions& options,
                                      const RegistrationWatch& watch);

}  // namespace gvsl

#endif  // GVSL_MODEL_REGISTRATION_H_
