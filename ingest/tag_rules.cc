#include "ingest/tag_rules.h"

#include <fnmatch.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

using nlohmann::json;

bool Fits(const std::string& pattern, const std::string& text) {
  return pattern.empty() ||
         fnmatch(pattern.c_str(), text.c_str(), FNM_CASEFOLD | FNM_NOESCAPE) == 0;
}

}  // namespace

absl::StatusOr<std::vector<TagRule>> ReadTagRules(const std::string& path) {
  std::ifstream file(path);
  const json all = json::parse(file, nullptr, false);
  if (!all.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read tag rules from ", path,
                                                   ": it should hold a JSON list, as in ",
                                                   R"([{"tag": "brain", "modality": "MR"}])"));
  }
  std::vector<TagRule> rules;
  for (const json& given : all) {
    const auto wrong = [&](const std::string& why) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": rule ", rules.size() + 1, " ", why,
                       "; a rule has a tag, and any of aeTitle, modality, bodyPart, description"));
    };
    if (!given.is_object()) return wrong("is no object");
    TagRule rule;
    for (const auto& [key, value] : given.items()) {
      std::string* field = key == "tag"           ? &rule.tag
                           : key == "aeTitle"     ? &rule.ae_title
                           : key == "modality"    ? &rule.modality
                           : key == "bodyPart"    ? &rule.body_part
                           : key == "description" ? &rule.description
                                                  : nullptr;
      if (field == nullptr) return wrong(absl::StrCat("has an unknown field ", key));
      if (!value.is_string()) return wrong(absl::StrCat("has a ", key, " that is no text"));
      *field = value.get<std::string>();
    }
    if (rule.tag.empty()) return wrong("has no tag");
    rules.push_back(std::move(rule));
  }
  return rules;
}

std::vector<std::string> TagsByRules(const std::vector<TagRule>& rules,
                                     const DicomInstance& instance) {
  std::vector<std::string> tags;
  for (const TagRule& rule : rules) {
    if (Fits(rule.ae_title, instance.source_ae_title) && Fits(rule.modality, instance.modality) &&
        Fits(rule.body_part, instance.body_part) &&
        Fits(rule.description, instance.series_description) &&
        std::find(tags.begin(), tags.end(), rule.tag) == tags.end()) {
      tags.push_back(rule.tag);
    }
  }
  return tags;
}

}  // namespace gvsl
