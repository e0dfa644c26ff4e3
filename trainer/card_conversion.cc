#include "trainer/card_conversion.h"

namespace gvsl {
namespace {

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
