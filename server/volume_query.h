// ListVolumes' filter, order and page token as parts of an SQL query.
#ifndef GVSL_SERVER_VOLUME_QUERY_H_
#define GVSL_SERVER_VOLUME_QUERY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gvsl/v1/volumes.pb.h"

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

// Reads the AIP-160 subset that volumes.proto describes. INVALID_ARGUMENT says what is wrong at
// which character.
absl::StatusOr<SqlCondition> ParseVolumeFilter(const std::string& filter);

struct SqlOrder {
  std::string column = "create_us";  // or display_name
  bool descending = true;
};
absl::StatusOr<SqlOrder> ParseVolumeOrder(const std::string& order_by);

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

}  // namespace gvsl

#endif  // GVSL_SERVER_VOLUME_QUERY_H_
