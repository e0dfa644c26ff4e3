#include "server/list_query.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "imaging/sha256.h"

namespace gvsl {
namespace {

constexpr size_t kMostFilterBytes = 4096;

std::string Hash(const std::string& text) { return Sha256Of(text).substr(0, 16); }

// "a, b and c".
std::string Listed(const std::vector<std::string>& words, const char* last) {
  const size_t n = words.size();
  if (n < 2) return absl::StrJoin(words, "");
  return absl::StrCat(absl::StrJoin(words.begin(), words.end() - 1, ", "), " ", last, " ",
                      words[n - 1]);
}

// Comparisons joined by AND: `field op "value"`.
class FilterParser {
 public:
  FilterParser(const std::string& text, const FilterGrammar& grammar)
      : text_(text), grammar_(grammar) {}

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
        absl::StrCat("filter: character ", at + 1, ": ", what, "; an example: ", grammar_.example));
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
    const std::string name = Word();
    if (name.empty()) return Wrong("expected a field");
    const FilterField* field = nullptr;
    std::vector<std::string> names;
    for (const FilterField& known : grammar_.fields) {
      names.push_back(known.name);
      if (known.name == name) field = &known;
    }
    if (field == nullptr) {
      return Wrong(absl::StrCat("\"", name.substr(0, 40), "\" cannot be filtered by; fields are ",
                                Listed(names, "and")),
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
    switch (field->kind) {
      case FilterField::Kind::kMember:
        if (op != ":") return Wrong(name + " takes : alone (" + name + ":\"word\")", op_at);
        condition_.sql += field->column + Parameter(*value) + ")";
        return absl::OkStatus();
      case FilterField::Kind::kTime: {
        if (op == "!=" || op == ":" || op == "=")
          return Wrong(name + " takes < <= > >= alone", op_at);
        absl::Time time;
        std::string error;
        if (!absl::ParseTime(absl::RFC3339_full, *value, &time, &error)) {
          return Wrong(name + " needs a time such as \"2026-11-24T12:00:00Z\"", value_at);
        }
        condition_.sql += field->column + " " + op + " " + Parameter(absl::ToUnixMicros(time));
        return absl::OkStatus();
      }
      case FilterField::Kind::kChoice:
      case FilterField::Kind::kText:
        break;
    }
    if (op != "=" && op != "!=") return Wrong(name + " takes = and != alone", op_at);
    const auto& choices = field->choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), *value) == choices.end()) {
      return Wrong(absl::StrCat(name, " is ", Listed(choices, "or")), value_at);
    }
    condition_.sql += field->column + (op == "=" ? " = " : " <> ") + Parameter(*value);
    return absl::OkStatus();
  }

  const std::string& text_;
  const FilterGrammar& grammar_;
  size_t at_ = 0;
  SqlCondition condition_;
};

}  // namespace

absl::StatusOr<SqlCondition> ParseFilter(const std::string& filter, const FilterGrammar& grammar) {
  if (filter.size() > kMostFilterBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("filter: ", filter.size(), " bytes; at most ", kMostFilterBytes));
  }
  return FilterParser(filter, grammar).Parse();
}

absl::StatusOr<SqlOrder> ParseOrder(const std::string& order_by,
                                    const std::vector<std::string>& fields) {
  if (order_by.empty()) return SqlOrder{"create_us", true};
  std::vector<std::string> all;
  for (const std::string& field : fields) {
    const std::string column = field == "create_time" ? "create_us" : field;
    if (order_by == field) return SqlOrder{column, false};
    if (order_by == field + " desc") return SqlOrder{column, true};
    all.insert(all.end(), {field + " desc", field});
  }
  return absl::InvalidArgumentError(absl::StrCat("order_by: \"", order_by.substr(0, 60),
                                                 "\" is none of: ", absl::StrJoin(all, ", ")));
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

absl::StatusOr<ListPlan> PlanList(const std::string& table, const std::vector<std::string>& columns,
                                  const ListAsked& asked, SqlCondition condition,
                                  const SqlOrder& order) {
  auto size = PageSize(asked.page_size);
  if (!size.ok()) return size.status();
  ListPlan plan;
  plan.columns = static_cast<int>(columns.size());
  plan.size = *size;
  plan.by_time = order.column == "create_us";
  plan.query = absl::StrCat(table, "\n", asked.filter, "\n", asked.order_by);
  if (!asked.page_token.empty()) {
    auto last = ReadPageToken(plan.query, asked.page_token);
    if (!last.ok()) return last.status();
    const size_t n = condition.values.size();
    const char* beyond = order.descending ? "<" : ">";
    absl::StrAppend(&condition.sql, " AND (", order.column, " ", beyond, " :p", n, " OR (",
                    order.column, " = :p", n + 1, " AND id ", beyond, " :p", n + 2, "))");
    for (int i = 0; i < 2; ++i) {
      condition.values.push_back(plan.by_time
                                     ? SqlValue(static_cast<int64_t>(std::atoll(last->key.c_str())))
                                     : SqlValue(last->key));
    }
    condition.values.push_back(last->id);
  }
  const char* direction = order.descending ? " DESC" : " ASC";
  plan.sql = absl::StrCat("SELECT ", absl::StrJoin(columns, ", "), " FROM ", table, " WHERE ",
                          condition.sql, " ORDER BY ", order.column, direction, ", id", direction,
                          " LIMIT ", plan.size + 1);
  plan.values = std::move(condition.values);
  return plan;
}

}  // namespace gvsl
