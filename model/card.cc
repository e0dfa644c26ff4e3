#include "model/card.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "imaging/orientation.h"
#include "imaging/sha256.h"
#include "model/shown.h"
#include "model/strict_json.h"

namespace gvsl {
namespace {

using nlohmann::json;

constexpr int kSchemaVersion = 1;

const char* MethodName(IntensityRule::Method method) {
  switch (method) {
    case IntensityRule::Method::kMinMax:
      return "min_max";
    case IntensityRule::Method::kPercentile:
      return "percentile";
    case IntensityRule::Method::kWindow:
      break;
  }
  return "window";
}

json RuleToJson(const IntensityRule& rule) {
  return {{"method", MethodName(rule.method)},
          {"shift", rule.shift},
          {"low", rule.low},
          {"high", rule.high}};
}

// Text that reads back as the same number, whatever library writes it.
std::string Exact(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.17g\n", value + 0.0);  // one zero, not two
  return text;
}

// What a rule does to an image; two rules that do the same to every image have the same text.
std::string EffectOf(const IntensityRule& rule) {
  std::string text = absl::StrCat(MethodName(rule.method), "\n");
  switch (rule.method) {
    case IntensityRule::Method::kMinMax:  // the shift falls out of the image's own range
      return text;
    case IntensityRule::Method::kPercentile:
      return text + Exact(rule.low) + Exact(rule.high);
    case IntensityRule::Method::kWindow:
      break;
  }
  return text + Exact(rule.low - rule.shift) + Exact(rule.high - rule.shift);
}

const char* GeometryName(Geometry geometry) {
  return geometry == Geometry::kOfficial ? "official" : "corrected";
}

absl::Status Wrong(const std::string& field, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("model card: ", field, ": ", what));
}

absl::Status RefuseUnknown(const json& object, const std::set<std::string>& known,
                           const std::string& path) {
  for (const auto& item : object.items()) {
    if (known.count(item.key()) == 0) {
      return Wrong(path + Shown(item.key()),
                   "unknown field; was the file made by a newer version?");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRule(const json& object, const std::string& path, IntensityRule& rule) {
  if (!object.is_object()) return Wrong(path, "must be an object");
  if (absl::Status status = RefuseUnknown(object, {"method", "shift", "low", "high"}, path + ".");
      !status.ok()) {
    return status;
  }
  if (object.contains("method")) {
    const json& method = object["method"];
    bool found = false;
    for (auto candidate : {IntensityRule::Method::kWindow, IntensityRule::Method::kMinMax,
                           IntensityRule::Method::kPercentile}) {
      if (method.is_string() && method.get<std::string>() == MethodName(candidate)) {
        rule.method = candidate;
        found = true;
      }
    }
    if (!found) return Wrong(path + ".method", "must be window, min_max or percentile");
  }
  for (auto [name, value] :
       {std::pair{"shift", &rule.shift}, {"low", &rule.low}, {"high", &rule.high}}) {
    if (!object.contains(name)) continue;
    if (!object[name].is_number()) return Wrong(absl::StrCat(path, ".", name), "must be a number");
    *value = object[name].get<double>();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::array<int64_t, 5>> WidthsOf(const std::string& size) {
  if (size == "base") return std::array<int64_t, 5>{32, 64, 128, 256, 512};
  if (size == "small") return std::array<int64_t, 5>{16, 32, 64, 128, 256};
  if (size == "tiny") return std::array<int64_t, 5>{8, 16, 32, 64, 128};
  return absl::InvalidArgumentError(
      absl::StrCat("size: \"", Shown(size), "\" is no size; it is base, small or tiny"));
}

std::string SizeOf(const std::array<int64_t, 5>& widths) {
  for (const char* size : {"base", "small", "tiny"}) {
    if (*WidthsOf(size) == widths) return size;
  }
  return "custom";
}

int64_t HeadWidth(int64_t dense_channels) { return std::max<int64_t>(16, dense_channels / 2); }

absl::Status ValidateCard(const ModelCard& card) {
  for (size_t i = 0; i < card.widths.size(); ++i) {
    const int64_t width = card.widths[i];
    if (width < 8 || width > 4096 || width % 8 != 0) {
      return Wrong(
          "widths",
          absl::StrCat(width, " channels; each level has a multiple of 8, from 8 to 4096"));
    }
  }
  // The heads' blocks have half as many channels, in groups of eight or more.
  for (size_t i : {size_t{0}, size_t{4}}) {
    const int64_t half = card.widths[i] / 2;
    if (half > 8 && half % (half / 8) != 0) {
      return Wrong("widths", absl::StrCat(card.widths[i],
                                          " channels at the first or last level, "
                                          "half of which make no equal groups"));
    }
  }
  if (card.size != SizeOf(card.widths)) {
    return Wrong("size", absl::StrCat("\"", Shown(card.size), "\", where the widths are those of ",
                                      SizeOf(card.widths)));
  }
  Grid grid;
  grid.size = {2, 2, 2};
  if (auto reorientation = ReorientationTo(grid, card.orientation); !reorientation.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model card: ", std::string(reorientation.status().message())));
  }
  for (double spacing : card.spacing_mm) {
    if (!(spacing >= 0.05 && spacing <= 20)) {
      return Wrong("spacing_mm", absl::StrCat(spacing, " mm; it must lie in 0.05 to 20"));
    }
  }
  if (card.crop < 0 || card.crop > 512 || card.crop % 16 != 0) {
    return Wrong("crop",
                 absl::StrCat(card.crop, "; it is 0 (unknown) or a multiple of 16 up to 512"));
  }
  for (const IntensityRule* rule : {&card.ct, &card.other}) {
    const std::string field = rule == &card.ct ? "ct" : "other";
    if (!std::isfinite(rule->shift) || !std::isfinite(rule->low) || !std::isfinite(rule->high)) {
      return Wrong(field, "shift, low and high must be finite");
    }
    if (rule->method != IntensityRule::Method::kMinMax && rule->low >= rule->high) {
      return Wrong(field + ".low", "must be below high");
    }
    if (rule->method == IntensityRule::Method::kPercentile && (rule->low < 0 || rule->high > 100)) {
      return Wrong(field, "percentages lie in 0 to 100");
    }
  }
  if (card.provenance.size() > 65536) return Wrong("provenance", "longer than 65536 bytes");
  return absl::OkStatus();
}

std::string CardToJson(const ModelCard& card) {
  const json object = {{"schema_version", kSchemaVersion},
                       {"size", card.size},
                       {"widths", card.widths},
                       {"geometry", GeometryName(card.geometry)},
                       {"orientation", card.orientation},
                       {"spacing_mm", card.spacing_mm},
                       {"ct", RuleToJson(card.ct)},
                       {"other", RuleToJson(card.other)},
                       {"crop", card.crop},
                       {"has_heads", card.has_heads},
                       {"provenance", card.provenance}};
  // Provenance may come from anywhere; what is not UTF-8 in it becomes U+FFFD.
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<ModelCard> CardFromJson(const std::string& text) {
  json object;
  absl::Status status = ParseStrictJson(text.data(), text.data() + text.size(), object);
  if (status.ok() && !object.is_object()) status = absl::InvalidArgumentError("not a JSON object");
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("model card: ", std::string(status.message())));
  }
  status = RefuseUnknown(object,
                         {"schema_version", "size", "widths", "geometry", "orientation",
                          "spacing_mm", "ct", "other", "crop", "has_heads", "provenance"},
                         "");
  if (!status.ok()) return status;
  ModelCard card;
  if (object.contains("schema_version") &&
      (!object["schema_version"].is_number_integer() ||
       object["schema_version"].get<int64_t>() != kSchemaVersion)) {
    return Wrong("schema_version", absl::StrCat("this program reads version ", kSchemaVersion));
  }
  for (auto [name, value] : {std::pair{"size", &card.size},
                             {"orientation", &card.orientation},
                             {"provenance", &card.provenance}}) {
    if (!object.contains(name)) continue;
    if (!object[name].is_string()) return Wrong(name, "must be text");
    *value = object[name].get<std::string>();
  }
  if (object.contains("geometry")) {
    const json& geometry = object["geometry"];
    const std::string name = geometry.is_string() ? geometry.get<std::string>() : "";
    if (name != GeometryName(Geometry::kOfficial) && name != GeometryName(Geometry::kCorrected))
      return Wrong("geometry", "must be official or corrected");
    card.geometry =
        name == GeometryName(Geometry::kOfficial) ? Geometry::kOfficial : Geometry::kCorrected;
  }
  if (object.contains("widths")) {
    const json& widths = object["widths"];
    if (!widths.is_array() || widths.size() != 5)
      return Wrong("widths", "must be five whole numbers");
    for (size_t i = 0; i < 5; ++i) {
      if (!widths[i].is_number_integer()) return Wrong("widths", "must be five whole numbers");
      card.widths[i] = widths[i].get<int64_t>();
    }
    if (!object.contains("size")) card.size = SizeOf(card.widths);
  } else if (auto widths = WidthsOf(card.size); widths.ok()) {
    card.widths = *widths;
  }
  if (object.contains("spacing_mm")) {
    const json& spacing = object["spacing_mm"];
    if (!spacing.is_array() || spacing.size() != 3)
      return Wrong("spacing_mm", "must be three numbers");
    for (size_t i = 0; i < 3; ++i) {
      if (!spacing[i].is_number()) return Wrong("spacing_mm", "must be three numbers");
      card.spacing_mm[i] = spacing[i].get<double>();
    }
  }
  if (object.contains("ct")) status = ReadRule(object["ct"], "ct", card.ct);
  if (status.ok() && object.contains("other"))
    status = ReadRule(object["other"], "other", card.other);
  if (!status.ok()) return status;
  if (object.contains("crop")) {
    if (!object["crop"].is_number_integer()) return Wrong("crop", "must be a whole number");
    card.crop = object["crop"].get<int64_t>();
  }
  if (object.contains("has_heads")) {
    if (!object["has_heads"].is_boolean()) return Wrong("has_heads", "must be true or false");
    card.has_heads = object["has_heads"].get<bool>();
  }
  if (status = ValidateCard(card); !status.ok()) return status;
  return card;
}

std::string PreprocessingDigest(const ModelCard& card) {
  // Not the JSON: two JSON libraries may write one number in two ways.
  std::string text = absl::StrCat(card.orientation, "\n");
  for (double spacing : card.spacing_mm) text += Exact(spacing);
  for (const IntensityRule* rule : {&card.ct, &card.other}) text += EffectOf(*rule);
  return Sha256Of(text);
}

std::string Fingerprint(const ModelCard& card, const std::string& weights_sha256) {
  std::string text = "gvsl-unet3d";
  for (int64_t width : card.widths) absl::StrAppend(&text, "/", width);
  absl::StrAppend(&text, "/", weights_sha256, "/", PreprocessingDigest(card));
  return Sha256Of(text);
}

}  // namespace gvsl
