#include "model/registration.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/discrete_registration.h"
#include "model/instance_optimisation.h"
#include "model/mind.h"
#include "model/network_alignment.h"
#include "model/registration_level.h"
#include "model/registration_verdict.h"

namespace gvsl {
namespace {

// The field's lattice exceeds the level's by this many voxels a side, so that it holds every voxel
// of the fixed volume, whose own lattice may end half a voxel later.
constexpr int64_t kFieldMargin = 1;
constexpr int kClimbedSteps = 25;  // after so many, what agrees has come to agree

absl::Status WrongOption(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("options.", what));
}

absl::Status ValidateOptions(const RegistrationOptions& options, const GvslNetworkImpl* network) {
  if (options.refine_steps < 0 || options.refine_steps > kMaxRefineSteps) {
    return WrongOption(absl::StrCat("refine_steps: ", options.refine_steps, "; 0 to ",
                                    kMaxRefineSteps, " can be made"));
  }
  const bool network_moves = options.use_network && options.linear == LinearModel::kAffine;
  const bool discrete_moves = options.discrete_stage && options.deformable;
  if (options.refine_steps == 0 && !network_moves && !discrete_moves) {
    return WrongOption(
        "refine_steps: 0 leaves nothing to do without the discrete stage of a deformation, or the "
        "network, whose answer is affine and deformable");
  }
  double sum = 0;
  for (double weight : {options.metric.lncc, options.metric.mind, options.metric.features}) {
    if (!(weight >= 0 && weight <= 1e6)) {
      return WrongOption(absl::StrCat("metric: the weight ", weight, " is not in 0 to 1e6"));
    }
    sum += weight;
  }
  if (!(sum > 0)) return WrongOption("metric: all weights are 0; there is nothing to optimise");
  if (!(options.smoothness_weight >= 0 && options.smoothness_weight <= 1e6)) {
    return WrongOption(
        absl::StrCat("smoothness_weight: ", options.smoothness_weight, " is not in 0 to 1e6"));
  }
  if (options.max_voxels < 4096) {
    return WrongOption(absl::StrCat("max_voxels: ", options.max_voxels, " is below 4096"));
  }
  if (network == nullptr && (options.use_network || options.metric.features > 0)) {
    return absl::FailedPreconditionError(
        "use_network and metric.features need a network, and none is loaded");
  }
  return absl::OkStatus();
}

// The field on a lattice larger by the margin, its border repeated.
DisplacementField Padded(const DisplacementField& field) {
  DisplacementField padded;
  padded.grid = field.grid;
  const auto& from = field.grid.size;
  auto& to = padded.grid.size;
  for (int64_t& side : to) side += 2 * kFieldMargin;
  const double first = -static_cast<double>(kFieldMargin);
  padded.grid.origin_mm = field.grid.IndexToPhysical({first, first, first});
  padded.values_mm.reserve(static_cast<size_t>(3 * padded.grid.voxel_count()));
  const auto inner = [](int64_t at, int64_t side) {
    return std::clamp<int64_t>(at - kFieldMargin, 0, side - 1);
  };
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t z = 0; z < to[2]; ++z) {
      for (int64_t y = 0; y < to[1]; ++y) {
        const int64_t row = (c * from[2] + inner(z, from[2])) * from[1] + inner(y, from[1]);
        for (int64_t x = 0; x < to[0]; ++x) {
          padded.values_mm.push_back(
              field.values_mm[static_cast<size_t>(row * from[0] + inner(x, from[0]))]);
        }
      }
    }
  }
  return padded;
}

// The discrete stage works on the finest level that has at most this many voxels.
constexpr int64_t kMostDiscreteVoxels = int64_t{1} << 20;

AffineMap Shift(const Vec3& from, const Vec3& to) {
  AffineMap shift;
  for (int r = 0; r < 3; ++r) shift.translation_mm[r] = to[r] - from[r];
  return shift;
}

// One registration from its start to its end.
class Run {
 public:
  Run(const RegistrationInput& input, const ModelCard& card, GvslNetworkImpl* network,
      const RegistrationOptions& options, const RegistrationWatch& watch)
      : input_(input), card_(card), network_(network), options_(options), watch_(watch) {}

  absl::StatusOr<Registration> Do() {
    for (auto step : {&Run::Read, &Run::Initialise, &Run::AskNetwork, &Run::Linear, &Run::Discrete,
                      &Run::Deformable, &Run::Finish}) {
      if (absl::Status status = (this->*step)(); !status.ok()) return status;
    }
    return std::move(result_);
  }

 private:
  struct Level {
    LevelImage fixed, moving;
  };

  absl::Status Tell(const std::string& stage, int step, int steps, double similarity) {
    if (!watch_) return absl::OkStatus();
    return watch_({stage, step, steps, similarity});
  }

  absl::Status Read() {
    for (double factor : LevelFactors(input_, card_, options_.max_voxels)) {
      const ModelCard card = Coarser(card_, factor);
      auto fixed = ReadLevel(*input_.fixed, input_.fixed_mask, card, "fixed");
      if (!fixed.ok()) return fixed.status();
      auto moving = ReadLevel(*input_.moving, input_.moving_mask, card, "moving");
      if (!moving.ok()) return moving.status();
      levels_.push_back({*std::move(fixed), *std::move(moving)});
    }
    result_.fixed_grid = input_.fixed->grid();
    result_.moving_grid = input_.moving->grid();
    return Tell("read", 1, 1, 0);
  }

  // How well a map does at the coarsest level. Weighed by the overlap: a sliver in which noise
  // agrees is no alignment.
  double Worth(const SpatialMap& map) const {
    const AlignmentFigures figures = FiguresOf(levels_[0].fixed, levels_[0].moving, map);
    return figures.local_ncc * figures.overlap_percent;
  }

  absl::Status Initialise() {
    const LevelImage &fixed = levels_[0].fixed, &moving = levels_[0].moving;
    SpatialMap none, view, mass;
    view.affine = Shift(CentreOfView(fixed.grid), CentreOfView(moving.grid));
    mass.affine = Shift(CentreOfMass(fixed), CentreOfMass(moving));
    switch (options_.initialisation) {
      case Initialisation::kNone:
        map_ = none;
        break;
      case Initialisation::kCentreOfView:
        map_ = view;
        break;
      case Initialisation::kCentreOfMass:
        map_ = mass;
        break;
      case Initialisation::kAuto: {
        map_ = none;
        double best = Worth(none);
        for (const SpatialMap& other : {view, mass}) {
          const double its = Worth(other);
          if (its <= best) continue;
          best = its;
          map_ = other;
        }
        break;
      }
    }
    if (FiguresOf(fixed, moving, map_).overlap_percent == 0) {
      return absl::InvalidArgumentError(
          "fixed, moving: as initialised they share no voxel; let the centres be aligned "
          "(initialisation), or check the masks");
    }
    initial_ = map_;
    return absl::OkStatus();
  }

  absl::Status AskNetwork() {
    if (!options_.use_network || options_.linear == LinearModel::kRigid) return absl::OkStatus();
    if (absl::Status status = Tell("network", 1, 1, 0); !status.ok()) return status;
    auto answer = AlignByNetwork(input_, card_, *network_);
    if (!answer.ok()) return answer.status();
    fixed_features_ = std::move(answer->fixed_features);
    moving_features_ = std::move(answer->moving_features);
    if (options_.linear == LinearModel::kNone) return absl::OkStatus();  // its features alone
    if (options_.refine_steps == 0) {
      map_ = std::move(answer->fixed_to_moving);
      return absl::OkStatus();
    }
    // What is refined is the best start: an untrained network does no harm.
    SpatialMap affine;
    affine.affine = answer->fixed_to_moving.affine;
    double best = Worth(map_);
    for (const SpatialMap& start : {affine, answer->fixed_to_moving}) {
      const double its = Worth(start);
      if (its <= best) continue;
      best = its;
      map_ = start;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<OptimisationLevel> Compare(const Level& level) {
    OptimisationLevel result;
    result.fixed = level.fixed.grid;
    result.moving = level.moving.grid;
    descriptors_.clear();
    const MetricWeights& weights = options_.metric;
    const double sum = weights.lncc + weights.mind + weights.features;
    if (weights.lncc > 0) {
      result.metrics.push_back(
          {weights.lncc / sum, MakeLocalCorrelationMetric(level.fixed, level.moving)});
    }
    const auto add = [&](double weight, LevelImage fixed, LevelImage moving) {
      descriptors_.push_back(std::make_unique<Level>(Level{std::move(fixed), std::move(moving)}));
      result.metrics.push_back({weight / sum, MakeDescriptorMetric(descriptors_.back()->fixed,
                                                                   descriptors_.back()->moving)});
    };
    if (weights.mind > 0) {
      add(weights.mind, MindDescriptors(level.fixed), MindDescriptors(level.moving));
    }
    if (weights.features > 0) {
      auto fixed = DenseFeatures(level.fixed, *network_);
      if (!fixed.ok()) return fixed.status();
      auto moving = DenseFeatures(level.moving, *network_);
      if (!moving.ok()) return moving.status();
      add(weights.features, *std::move(fixed), *std::move(moving));
    }
    return result;
  }

  // Calls body(level, watch) from the coarsest level to the finest.
  template <typename Body>
  absl::Status ForEachLevel(const std::string& stage, const Body& body) {
    const int steps = options_.refine_steps;
    for (size_t i = 0; i < levels_.size(); ++i) {
      auto level = Compare(levels_[i]);
      if (!level.ok()) return level.status();
      const auto watch = [&](int step, double similarity) {
        return Tell(stage, step + static_cast<int>(i) * steps,
                    steps * static_cast<int>(levels_.size()), similarity);
      };
      if (absl::Status status = body(*level, watch); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Linear() {
    if (options_.linear == LinearModel::kNone || options_.refine_steps == 0) {
      return absl::OkStatus();
    }
    const Vec3 centre = CentreOfView(levels_[0].fixed.grid);
    const double radius = RadiusOf(levels_[0].fixed, centre);
    return ForEachLevel("linear", [&](OptimisationLevel& level, const StepWatch& watch) {
      return OptimiseLinear(level, options_.linear, options_.refine_steps, centre, radius, watch,
                            map_.affine);
    });
  }

  absl::Status Discrete() {
    if (!options_.deformable || !options_.discrete_stage) return absl::OkStatus();
    if (absl::Status status = Tell("discrete", 1, 1, 0); !status.ok()) return status;
    size_t finest = levels_.size() - 1;
    while (finest > 0 && levels_[finest].fixed.grid.voxel_count() > kMostDiscreteVoxels) --finest;
    const LevelImage &fixed = levels_[finest].fixed, &moving = levels_[finest].moving;
    SpatialMap found;
    found.affine = map_.affine;
    if (options_.metric.features > 0) {
      auto fixed_features = DenseFeatures(fixed, *network_);
      if (!fixed_features.ok()) return fixed_features.status();
      auto moving_features = DenseFeatures(moving, *network_);
      if (!moving_features.ok()) return moving_features.status();
      found.displacement = DiscreteDisplacement(*fixed_features, *moving_features, map_.affine);
    } else {
      found.displacement =
          DiscreteDisplacement(MindDescriptors(fixed), MindDescriptors(moving), map_.affine);
    }
    if (Worth(found) > Worth(map_)) map_ = std::move(found);
    return absl::OkStatus();
  }

  absl::Status Deformable() {
    if (!options_.deformable || options_.refine_steps == 0) return absl::OkStatus();
    return ForEachLevel("deformable", [&](OptimisationLevel& level, const StepWatch& watch) {
      return OptimiseDisplacement(level, options_.refine_steps, options_.smoothness_weight, watch,
                                  map_);
    });
  }

  absl::Status Finish() {
    if (!options_.deformable) map_.displacement = {};
    descriptors_.clear();
    if (absl::Status status = Tell("verdict", 1, 1, 0); !status.ok()) return status;
    const Level& finest = levels_.back();
    RegistrationVerdict& verdict = result_.verdict;
    const AlignmentFigures before = FiguresOf(finest.fixed, finest.moving, initial_);
    const AlignmentFigures after = FiguresOf(finest.fixed, finest.moving, map_);
    verdict.ncc_before = before.ncc;
    verdict.ncc_after = after.ncc;
    verdict.local_ncc_before = before.local_ncc;
    verdict.local_ncc_after = after.local_ncc;
    verdict.overlap_percent = after.overlap_percent;
    if (options_.regions > 0)
      result_.regions = RegionsOf(finest.fixed, finest.moving, map_, options_.regions);
    verdict.jacobian = JacobianOf(map_);
    verdict.deformation_energy = DeformationEnergy(map_.displacement);
    if (fixed_features_.channels > 1) {
      verdict.feature_residual_before =
          FeatureResidual(fixed_features_, moving_features_, initial_);
      verdict.feature_residual_after = FeatureResidual(fixed_features_, moving_features_, map_);
    }
    if (!map_.displacement.empty()) map_.displacement = Padded(map_.displacement);
    if (options_.consistency) {
      if (absl::Status status = Backward(); !status.ok()) return status;
    }
    if (options_.inverse) {
      auto inverse = Invert(map_, finest.moving.grid);
      if (!inverse.ok()) return inverse.status();
      result_.moving_to_fixed = *std::move(inverse);
    }
    const bool climbed = options_.deformable && options_.refine_steps >= kClimbedSteps &&
                         options_.metric.lncc > options_.metric.mind + options_.metric.features;
    Judge(map_.affine, climbed, verdict);
    result_.fixed_to_moving = std::move(map_);
    return absl::OkStatus();
  }

  absl::Status Backward() {
    RegistrationInput input = input_;
    std::swap(input.fixed, input.moving);
    std::swap(input.fixed_mask, input.moving_mask);
    RegistrationOptions options = options_;
    options.consistency = options.inverse = false;
    options.regions = 0;
    const RegistrationWatch watch = [&](const RegistrationProgress& progress) {
      return Tell("backward", progress.step, progress.steps, progress.similarity);
    };
    auto backward = Run(input, card_, network_, options, watch).Do();
    if (!backward.ok()) return backward.status();
    result_.verdict.inverse_consistency_mm = InverseConsistencyMm(
        levels_.back().fixed.grid, levels_.back().moving.grid, map_, backward->fixed_to_moving);
    return absl::OkStatus();
  }

  const RegistrationInput& input_;
  const ModelCard& card_;
  GvslNetworkImpl* const network_;
  const RegistrationOptions& options_;
  const RegistrationWatch& watch_;
  std::vector<Level> levels_;                        // coarsest first
  std::vector<std::unique_ptr<Level>> descriptors_;  // of the level under way
  LevelImage fixed_features_, moving_features_;
  SpatialMap initial_, map_;  // fixed_to_moving
  Registration result_;
};

}  // namespace

absl::StatusOr<Registration> Register(const RegistrationInput& input, const ModelCard& card,
                                      GvslNetworkImpl* network, const RegistrationOptions& options,
                                      const RegistrationWatch& watch) {
  if (absl::Status status = ValidateOptions(options, network); !status.ok()) return status;
  if (absl::Status status = ValidateCard(card); !status.ok()) return status;
  if (absl::Status status = ValidateInput(input, card); !status.ok()) return status;
  return Run(input, card, network, options, watch).Do();
}

}  // namespace gvsl
