// Rules that give volumes their tags by what their files say.
#ifndef GVSL_INGEST_TAG_RULES_H_
#define GVSL_INGEST_TAG_RULES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ingest/dicom_instance.h"

namespace gvsl {

// A volume gets `tag` where all that the rule names fit. Patterns may have * and ?, as file names
// have; upper and lower case are the same; empty: anything fits.
struct TagRule {
  std::string tag;
  std::string ae_title;     // of who sent it (Source Application Entity Title)
  std::string modality;     // by the SOP class: CT, MR or PT
  std::string body_part;    // Body Part Examined
  std::string description;  // Series Description
};

// Reads a JSON file:
//
//   [{"tag": "brain", "modality": "MR", "bodyPart": "*HEAD*"},
//    {"tag": "ward-3", "aeTitle": "CT_WARD3"}]
//
// INVALID_ARGUMENT says which rule is wrong, and how.
absl::StatusOr<std::vector<TagRule>> ReadTagRules(const std::string& path);

// The tags of an instance, in the order of the rules, each once.
std::vector<std::string> TagsByRules(const std::vector<TagRule>& rules,
                                     const DicomInstance& instance);

}  // namespace gvsl

#endif  // GVSL_INGEST_TAG_RULES_H_
