#include "server/volume_query.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

constexpr size_t kMostFilterBytes = 4096;

std::string Hash(const std::string& text) { return Sha256Of(text).substr(0, 16); }

// Comparisons joined by AND: `field op "value"`.
class FilterParser {
 public:
  explicit FilterParser(const std::string& text) : text_(text) {}

  absl::StatusOr<SqlCondition> Parse() {
    SkipSpace();
    if (at_ == text_.size()) return SqlCondition{"1 = 1", {}};
    while (true) {
      if (absl::Status status = Comparison(); !status.ok()) return status;
      SkipSpace();
      if (at_ == text_.size()) return condition_;
      const size_t begin = at_;
      if (Word() != "AND") return Wrong("expected AND", begin);
      condition_.sql += " AND ";
    }
  }

 private:
  absl::Status Wrong(const std::string& what) const { return Wrong(what, at_); }
  absl::Status Wrong(const std::string& what, size_t at) const {
    return absl::InvalidArgumentError(
        absl::StrCat("filter: character ", at + 1, ": ", what,
                     "; an example: modality = \"CT\" AND tags:\"abdomen\""));
  }
  void SkipSpace() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  std::string Word() {
    SkipSpace();
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_'))
      ++at_;
    return text_.substr(begin, at_ - begin);
  }
  std::string Operator() {
    SkipSpace();
    for (const char* op : {"!=", "<=", ">=", "=", "<", ">", ":"}) {
      if (text_.compare(at_, std::string(op).size(), op) == 0) {
        at_ += std::string(op).size();
        return op;
      }
    }
    return "";
  }
  // A quoted text (backslash escapes), or a bare word.
  absl::StatusOr<std::string> Value() {
    SkipSpace();
    const size_t begin = at_;
    if (at_ < text_.size() && text_[at_] == '"') {
      std::string value;
      for (++at_; at_ < text_.size(); ++at_) {
        if (text_[at_] == '"') {
          ++at_;
          return value;
        }
        if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
        value += text_[at_];
      }
      return Wrong("a quote is not closed", begin);
    }
    std::string value = Word();
    if (value.empty()) return Wrong("expected a value, such as \"CT\"");
    return value;
  }
  std::string Parameter(SqlValue value) {
    condition_.values.push_back(std::move(value));
    return absl::StrCat(":p", condition_.values.size() - 1);
  }

  absl::Status Comparison() {
    SkipSpace();
    const size_t field_at = at_;
    const std::string field = Word();
    if (field.empty()) return Wrong("expected a field");
    if (field != "display_name" && field != "modality" && field != "kind" &&
        field != "content_sha256" && field != "tags" && field != "create_time") {
      return Wrong(
          absl::StrCat("\"", field.substr(0, 40),
                       "\" cannot be filtered by; fields are display_name, modality, kind, "
                       "content_sha256, tags and create_time"),
          field_at);
    }
    SkipSpace();
    const size_t op_at = at_;
    const std::string op = Operator();
    if (op.empty()) return Wrong("expected one of = != < <= > >= :");
    SkipSpace();
    const size_t value_at = at_;
    auto value = Value();
    if (!value.ok()) return value.status();
    if (field == "tags") {
      if (op != ":") return Wrong("tags takes : alone (tags:\"word\")", op_at);
      condition_.sql +=
          "id IN (SELECT volume_id FROM volume_tags WHERE tag = " + Parameter(*value) + ")";
      return absl::OkStatus();
    }
    if (field == "create_time") {
      absl::Time time;
      std::string error;
      if (op == "!=" || op == ":" || op == "=")
        return Wrong("create_time takes < <= > >= alone", op_at);
      if (!absl::ParseTime(absl::RFC3339_full, *value, &time, &error)) {
        return Wrong("create_time needs a time such as \"2026-11-24T12:00:00Z\"", value_at);
      }
      condition_.sql += "create_us " + op + " " + Parameter(absl::ToUnixMicros(time));
      return absl::OkStatus();
    }
    if (op != "=" && op != "!=") return Wrong(field + " takes = and != alone", op_at);
    if (field == "kind" && *value != "IMAGE" && *value != "LABELS")
      return Wrong("kind is IMAGE or LABELS", value_at);
    condition_.sql += field + (op == "=" ? " = " : " <> ") + Parameter(*value);
    return absl::OkStatus();
  }

  const std::string& text_;
  size_t at_ = 0;
  SqlCondition condition_;
};

}  // namespace

absl::StatusOr<SqlCondition> ParseVolumeFilter(const std::string& filter) {
  if (filter.size() > kMostFilterBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("filter: ", filter.size(), " bytes; at most ", kMostFilterBytes));
  }
  return FilterParser(filter).Parse();
}

absl::StatusOr<SqlOrder> ParseVolumeOrder(const std::string& order_by) {
  if (order_by.empty() || order_by == "create_time desc") return SqlOrder{"create_us", true};
  if (order_by == "create_time") return SqlOrder{"create_us", false};
  if (order_by == "display_name") return SqlOrder{"display_name", false};
  if (order_by == "display_name desc") return SqlOrder{"display_name", true};
  return absl::InvalidArgumentError(absl::StrCat(
      "order_by: \"", order_by.substr(0, 60),
      "\" is none of: create_time desc, create_time, display_name, display_name desc"));
}

std::string MakePageToken(const std::string& query, const PageKey& last) {
  const std::string body = absl::StrCat(last.id, "\n", last.key);
  return absl::WebSafeBase64Escape(absl::StrCat(Hash(query + body), body));
}

absl::StatusOr<PageKey> ReadPageToken(const std::string& query, const std::string& token) {
  std::string plain;
  if (absl::WebSafeBase64Unescape(token, &plain) && plain.size() > 16) {
    const std::string body = plain.substr(16);
    const size_t end = body.find('\n');
    if (end != std::string::npos && plain.substr(0, 16) == Hash(query + body)) {
      return PageKey{body.substr(end + 1), body.substr(0, end)};
    }
  }
  return absl::InvalidArgumentError(
      "page_token: not one that this query gave; filter and order_by must be those of the first "
      "page");
}

absl::StatusOr<int> PageSize(int32_t asked) {
  if (asked < 0)
    return absl::InvalidArgumentError(absl::StrCat("page_size: ", asked, " is negative"));
  return asked == 0 ? 100 : std::min(asked, 1000);
}

}  // namespace gvsl
