// Finds the points of one volume in another by the network's dense features: coarse over the whole,
// fine around the best place (Yan et al., SAM: Self-supervised learning of pixel-wise anatomical
// embeddings, IEEE TMI 2022).
#ifndef GVSL_MODEL_POINT_MATCHING_H_
#define GVSL_MODEL_POINT_MATCHING_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/extractor.h"
#include "model/registration_metric.h"

namespace gvsl {

// What is known of one volume.
struct MatchingSide {
  LevelImage whole;   // DenseFeatures of all of it
  double factor = 1;  // spacing of `whole`, in spacings of the card; at 1 it is the fine one, too
  // Dense features at LPS points in mm, at the card's spacing; called where `factor` is above 1.
  std::function<absl::StatusOr<std::vector<PointFeature>>(const std::vector<Vec3>&)> fine;
};

// One match a point, in their order. Statuses are those of `fine`.
absl::StatusOr<std::vector<PointMatch>> MatchByFeatures(const MatchingSide& fixed,
                                                        const MatchingSide& moving,
                                                        const std::vector<Vec3>& points_mm);

}  // namespace gvsl

#endif  // GVSL_MODEL_POINT_MATCHING_H_
