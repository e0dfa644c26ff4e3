#include "server/volume_query.h"

namespace gvsl {

absl::StatusOr<SqlCondition> ParseVolumeFilter(const std::string& filter) {
  using Kind = FilterField::Kind;
  static const FilterGrammar grammar = {
      {{"display_name", Kind::kText, "display_name", {}},
       {"modality", Kind::kText, "modality", {}},
       {"kind", Kind::kChoice, "kind", {"IMAGE", "LABELS"}},
       {"content_sha256", Kind::kText, "content_sha256", {}},
       {"tags", Kind::kMember, "id IN (SELECT volume_id FROM volume_tags WHERE tag = ", {}},
       {"create_time", Kind::kTime, "create_us", {}}},
      "modality = \"CT\" AND tags:\"abdomen\""};
  return ParseFilter(filter, grammar);
}

absl::StatusOr<SqlOrder> ParseVolumeOrder(const std::string& order_by) {
  return ParseOrder(order_by, {"create_time", "display_name"});
}

}  // namespace gvsl
