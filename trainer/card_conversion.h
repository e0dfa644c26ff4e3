// Model cards between the wire and our own types.
#ifndef GVSL_TRAINER_CARD_CONVERSION_H_
#define GVSL_TRAINER_CARD_CONVERSION_H_

#include <string>

#include "absl/status/statusor.h"
#include "gvsl/v1/models.pb.h"
#include "model/model_file.h"

namespace gvsl {

v1::ModelCard ToProto(const ModelCard& card);
// A card for a file that has none: the paper's settings, and what the message sets.
absl::StatusOr<ModelCard> CardFromProto(const v1::ModelCard& card, Geometry geometry);
v1::ModelIdentity IdentityOf(const std::string& name, const ModelInfo& info);

}  // namespace gvsl

#endif  // GVSL_TRAINER_CARD_CONVERSION_H_
