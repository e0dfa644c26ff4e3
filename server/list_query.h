// Lists of records: a filter, an order and a page token as one SQL query.
#ifndef GVSL_SERVER_LIST_QUERY_H_
#define GVSL_SERVER_LIST_QUERY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

// A text or a number.
struct SqlValue {
  SqlValue(std::string t) : text(std::move(t)) {}      // NOLINT(google-explicit-constructor)
  SqlValue(int64_t n) : is_number(true), number(n) {}  // NOLINT(google-explicit-constructor)
  bool is_number = false;
  int64_t number = 0;
  std::string text;
};

// A condition with parameters :p0, :p1, ... Nothing of the user's text is ever in the SQL itself.
struct SqlCondition {
  std::string sql;  // "1 = 1" for no condition
  std::vector<SqlValue> values;
};

// What a list can be filtered by: an AIP-160 subset, comparisons joined by AND.
struct FilterField {
  enum class Kind {
    kText,    // = and !=
    kChoice,  // = and != of `choices`
    kTime,    // < <= > >= of an RFC 3339 time; the column holds microseconds
    kMember,  // : alone; the column is a condition that ends where the value goes
  };
  std::string name;
  Kind kind = Kind::kText;
  std::string column;
  std::vector<std::string> choices;
};
struct FilterGrammar {
  std::vector<FilterField> fields;
  std::string example;
};
// INVALID_ARGUMENT says what is wrong at which character.
absl::StatusOr<SqlCondition> ParseFilter(const std::string& filter, const FilterGrammar& grammar);

// `field` or `field desc`; both columns are those of every listed table.
struct SqlOrder {
  std::string column = "create_us";  // or display_name
  bool descending = true;
};
// Of `fields` (create_time, display_name); nothing asked for means newest first.
absl::StatusOr<SqlOrder> ParseOrder(const std::string& order_by,
                                    const std::vector<std::string>& fields);

// A page token carries the last row's key and id, and is bound to the query it came from.
struct PageKey {
  std::string key;
  std::string id;
};
std::string MakePageToken(const std::string& query, const PageKey& last);
// INVALID_ARGUMENT for a token of another query, or none of ours.
absl::StatusOr<PageKey> ReadPageToken(const std::string& query, const std::string& token);

// 0 means 100; more than 1000 is 1000. INVALID_ARGUMENT below 0.
absl::StatusOr<int> PageSize(int32_t asked);

// The SELECT of one page, with a row more than it shows.
struct ListPlan {
  std::string sql;
  std::vector<SqlValue> values;
  int columns = 0;
  int size = 0;
  bool by_time = true;
  std::string query;  // what the page's token is bound to
};
struct ListAsked {
  int32_t page_size = 0;
  std::string page_token, filter, order_by;
};
// `columns` of `table`, which has create_us, display_name and id.
absl::StatusOr<ListPlan> PlanList(const std::string& table, const std::vector<std::string>& columns,
                                  const ListAsked& asked, SqlCondition condition,
                                  const SqlOrder& order);

}  // namespace gvsl

#endif  // GVSL_SERVER_LIST_QUERY_H_
