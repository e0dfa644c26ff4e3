// Stand-ins for the few names of Abseil that imaging/ and model/ use, with Abseil's meanings, for
// builds with GVSL_MODEL_ONLY where Abseil is absent (docs/adr/0002-model-builds-alone.md). Never
// part of the service.
#ifndef GVSL_STANDIN_ABSL_STATUS_STATUS_H_
#define GVSL_STANDIN_ABSL_STATUS_STATUS_H_

#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace absl {

// The canonical codes, numbered as gRPC numbers them.
enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

inline std::string StatusCodeToString(StatusCode code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  const int number = static_cast<int>(code);
  return number >= 0 && number <= 16 ? kNames[number] : "";
}
inline std::ostream& operator<<(std::ostream& out, StatusCode code) {
  return out << StatusCodeToString(code);
}

class [[nodiscard]] Status {
 public:
  Status() = default;
  // An OK status has no message.
  Status(StatusCode code, string_view message) : code_(code) {
    if (!ok()) message_ = std::string(message);
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  int raw_code() const { return static_cast<int>(code_); }
  string_view message() const { return message_; }
  std::string ToString() const { return ok() ? "OK" : StatusCodeToString(code_) + ": " + message_; }

  // Keeps the first error.
  void Update(const Status& other) {
    if (ok()) *this = other;
  }
  void IgnoreError() const {}

  // An OK status carries no payload.
  void SetPayload(string_view type_url, Cord payload) {
    if (!ok()) payloads_[std::string(type_url)] = std::move(payload);
  }
  std::optional<Cord> GetPayload(string_view type_url) const {
    const auto found = payloads_.find(std::string(type_url));
    if (found == payloads_.end()) return std::nullopt;
    return found->second;
  }

  friend bool operator==(const Status& a, const Status& b) {
    return a.code_ == b.code_ && a.message_ == b.message_ && a.payloads_ == b.payloads_;
  }
  friend bool operator!=(const Status& a, const Status& b) { return !(a == b); }
  friend std::ostream& operator<<(std::ostream& out, const Status& status) {
    return out << status.ToString();
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
  std::map<std::string, Cord> payloads_;
};

inline Status OkStatus() { return Status(); }

inline Status AbortedError(string_view m) { return Status(StatusCode::kAborted, m); }
inline Status AlreadyExistsError(string_view m) { return Status(StatusCode::kAlreadyExists, m); }
inline Status CancelledError(string_view m = "") { return Status(StatusCode::kCancelled, m); }
inline Status DataLossError(string_view m) { return Status(StatusCode::kDataLoss, m); }
inline Status DeadlineExceededError(string_view m) {
  return Status(StatusCode::kDeadlineExceeded, m);
}
inline Status FailedPreconditionError(string_view m) {
  return Status(StatusCode::kFailedPrecondition, m);
}
inline Status InternalError(string_view m) { return Status(StatusCode::kInternal, m); }
inline Status InvalidArgumentError(string_view m) {
  return Status(StatusCode::kInvalidArgument, m);
}
inline Status NotFoundError(string_view m) { return Status(StatusCode::kNotFound, m); }
inline Status OutOfRangeError(string_view m) { return Status(StatusCode::kOutOfRange, m); }
inline Status PermissionDeniedError(string_view m) {
  return Status(StatusCode::kPermissionDenied, m);
}
inline Status ResourceExhaustedError(string_view m) {
  return Status(StatusCode::kResourceExhausted, m);
}
inline Status UnauthenticatedError(string_view m) {
  return Status(StatusCode::kUnauthenticated, m);
}
inline Status UnavailableError(string_view m) { return Status(StatusCode::kUnavailable, m); }
inline Status UnimplementedError(string_view m) { return Status(StatusCode::kUnimplemented, m); }
inline Status UnknownError(string_view m) { return Status(StatusCode::kUnknown, m); }

inline bool IsCancelled(const Status& s) { return s.code() == StatusCode::kCancelled; }
inline bool IsDataLoss(const Status& s) { return s.code() == StatusCode::kDataLoss; }
inline bool IsInvalidArgument(const Status& s) { return s.code() == StatusCode::kInvalidArgument; }
inline bool IsNotFound(const Status& s) { return s.code() == StatusCode::kNotFound; }
inline bool IsUnavailable(const Status& s) { return s.code() == StatusCode::kUnavailable; }

}  // namespace absl

#endif  // GVSL_STANDIN_ABSL_STATUS_STATUS_H_
