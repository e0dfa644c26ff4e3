// What the network says of a pair of volumes: where the heads put them, and dense features.
#ifndef GVSL_MODEL_NETWORK_ALIGNMENT_H_
#define GVSL_MODEL_NETWORK_ALIGNMENT_H_

#include "absl/status/statusor.h"
#include "imaging/spatial_map.h"
#include "model/card.h"
#include "model/registration.h"
#include "model/registration_metric.h"

namespace gvsl {

struct NetworkAnswer {
  SpatialMap fixed_to_moving;
  // Dense features of both, as DenseFeatures has them.
  LevelImage fixed_features, moving_features;
};

// The multiple of the card's spacing, 1 or more, at which no side of either volume exceeds the
// card's crop (128 voxels where that is unknown): so that one pass sees the whole.
double WholeFactor(const Volume& fixed, const Volume& moving, const ModelCard& card);

// One pass over both volumes, centred in a box of the same size; at the card's spacing, or coarser
// where a side would exceed the card's crop. FAILED_PRECONDITION for a model without heads or of
// the official geometry, whose two-step interpolation is no map.
absl::StatusOr<NetworkAnswer> AlignByNetwork(const RegistrationInput& input, const ModelCard& card,
                                             GvslNetworkImpl& network);

// The U-Net's dense features of an image of one channel, of equal length at each voxel, so that
// the mean squared difference over the channels is half of 1 - cosine, in 0..1.
absl::StatusOr<LevelImage> DenseFeatures(const LevelImage& image, GvslNetworkImpl& network);

}  // namespace gvsl

#endif  // GVSL_MODEL_NETWORK_ALIGNMENT_H_
