// Statuses on the wire: a gRPC code and message, with google.rpc details behind them.
#ifndef GVSL_SERVER_STATUS_H_
#define GVSL_SERVER_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "imaging/status_reason.h"

namespace gvsl {

// The same status for a client: google.rpc.ErrorInfo with the reason (ReasonOf, else the code's
// name), BadRequest when an INVALID_ARGUMENT message opens with a field's path ("grid.size[2]:
// ..."), with a field for each line when all of them do, RetryInfo for RESOURCE_EXHAUSTED with
// reason QUEUE_FULL or TOO_MANY_CALLS. Long messages are cut.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace gvsl

#endif  // GVSL_SERVER_STATUS_H_
