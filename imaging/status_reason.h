// A machine-readable reason (UPPER_SNAKE) that travels with a Status; on the wire it becomes the
// reason of google.rpc.ErrorInfo.
//
//   return WithReason(absl::InvalidArgumentError("..."), "FORBIDDEN_PICKLE");
#ifndef GVSL_IMAGING_STATUS_REASON_H_
#define GVSL_IMAGING_STATUS_REASON_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace gvsl {

inline constexpr char kReasonUrl[] = "gvsl/reason";

// The status with its reason; an OK status stays as it is.
inline absl::Status WithReason(absl::Status status, const char* reason) {
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

// The reason, or "" if there is none.
inline std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonUrl);
  return payload ? std::string(*payload) : std::string();
}

}  // namespace gvsl

#endif  // GVSL_IMAGING_STATUS_REASON_H_
