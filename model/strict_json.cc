#include "model/strict_json.h"

#include <set>
#include <stdexcept>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/shown.h"

namespace gvsl {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 8;  // a safetensors header has 3

// Leaves the parser from within its callback.
struct Refused {
  std::string why;
};

}  // namespace

absl::Status ParseStrictJson(const char* begin, const char* end, json& result) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const json::parser_callback_t look = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > kMaxDepth) throw Refused{"it is nested too deeply"};
    if (event == json::parse_event_t::object_start) names.emplace_back();
    if (event == json::parse_event_t::object_end) names.pop_back();
    if (event == json::parse_event_t::key) {
      const std::string name = value.get<std::string>();
      if (!names.back().insert(name).second) throw Refused{"\"" + Shown(name) + "\" stands twice"};
    }
    return true;
  };
  try {
    result = json::parse(begin, end, look);
  } catch (const json::exception&) {
    return absl::InvalidArgumentError("not JSON");
  } catch (const Refused& refused) {
    return absl::InvalidArgumentError(refused.why);
  }
  return absl::OkStatus();
}

}  // namespace gvsl
