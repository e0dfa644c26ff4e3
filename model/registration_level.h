// The volumes of a registration at one resolution, as the model's card wants them. No LibTorch.
#ifndef GVSL_MODEL_REGISTRATION_LEVEL_H_
#define GVSL_MODEL_REGISTRATION_LEVEL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "imaging/volume.h"
#include "model/card.h"
#include "model/registration.h"
#include "model/registration_metric.h"

namespace gvsl {

// OK where the volumes and masks can be registered; Register's INVALID_ARGUMENT otherwise.
absl::Status ValidateInput(const RegistrationInput& input, const ModelCard& card);

// Multiples of the card's spacing, coarsest first: halved from level to level, the finest such that
// neither volume has more than `max_voxels`, and no level with fewer than 12 voxels along an axis
// but the finest.
std::vector<double> LevelFactors(const RegistrationInput& input, const ModelCard& card,
                                 int64_t max_voxels);

// The card at `factor` times its spacing.
ModelCard Coarser(const ModelCard& card, double factor);

// One volume, and where its mask (null: everywhere) counts. INVALID_ARGUMENT ("NAME: ...") as
// Preprocessor's, and where the mask leaves nothing.
absl::StatusOr<LevelImage> ReadLevel(const Volume& volume, const Volume* mask,
                                     const ModelCard& card, const std::string& name);

Vec3 CentreOfView(const Grid& grid);
// Of the intensities that count; CentreOfView where they are all zero.
Vec3 CentreOfMass(const LevelImage& image);
// Root mean square distance of the voxels that count from `centre_mm`, along one axis.
double RadiusOf(const LevelImage& image, const Vec3& centre_mm);

}  // namespace gvsl

#endif  // GVSL_MODEL_REGISTRATION_LEVEL_H_
