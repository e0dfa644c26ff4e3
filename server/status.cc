#include "server/status.h"

#include <cctype>

#include "google/rpc/error_details.pb.h"

namespace gvsl {
namespace {

constexpr size_t kMostText =
    4000;  // HTTP/2 trailers are limited to 8 KiB by default, details included
constexpr int kRetryAfterSeconds = 2;

// The field's path that a message opens with, or "".
std::string FieldOf(const std::string& message) {
  const size_t colon = message.find(": ");
  if (colon == std::string::npos || colon == 0 || colon > 80) return "";
  for (char c : message.substr(0, colon)) {
    if (!(std::islower(static_cast<unsigned char>(c)) ||
          std::isdigit(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '[' ||
          c == ']')) {
      return "";
    }
  }
  return message.substr(0, colon);
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMostText) message = message.substr(0, kMostText) + "...";
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);

  google::rpc::ErrorInfo info;
  const std::string reason = ReasonOf(status);
  info.set_reason(reason.empty() ? absl::StatusCodeToString(status.code()) : reason);
  info.set_domain("gvsl");
  details.add_details()->PackFrom(info);
  const std::string field = FieldOf(message);
  if (status.code() == absl::StatusCode::kInvalidArgument && !field.empty()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(message.substr(field.size() + 2));
    details.add_details()->PackFrom(bad);
  }
  if (reason == "QUEUE_FULL" || reason == "TOO_MANY_CALLS") {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetryAfterSeconds);
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

}  // namespace gvsl
