// ListVolumes' filter and order as parts of an SQL query.
#ifndef GVSL_SERVER_VOLUME_QUERY_H_
#define GVSL_SERVER_VOLUME_QUERY_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/list_query.h"

namespace gvsl {

// As volumes.proto describes them. INVALID_ARGUMENT says what is wrong at which character.
absl::StatusOr<SqlCondition> ParseVolumeFilter(const std::string& filter);
absl::StatusOr<SqlOrder> ParseVolumeOrder(const std::string& order_by);

}  // namespace gvsl

#endif  // GVSL_SERVER_VOLUME_QUERY_H_
