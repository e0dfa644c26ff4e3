#include "server/job_query.h"

namespace gvsl {

absl::StatusOr<SqlCondition> ParseJobFilter(const std::string& filter) {
  using Kind = FilterField::Kind;
  static const FilterGrammar grammar = {
      {{"state", Kind::kChoice, "state", {"QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"}},
       {"display_name", Kind::kText, "display_name", {}},
       {"create_time", Kind::kTime, "create_us", {}}},
      "state = RUNNING AND create_time > \"2026-11-24T12:00:00Z\""};
  return ParseFilter(filter, grammar);
}

absl::StatusOr<SqlOrder> ParseJobOrder(const std::string& order_by) {
  return ParseOrder(order_by, {"create_time"});
}

}  // namespace gvsl
