#include "server/status.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "absl/strings/str_split.h"
#include "google/rpc/error_details.pb.h"

namespace gvsl {
namespace {

// HTTP/2 trailers are limited to 8 KiB by default, and carry the text up to three times: as the
// message, in the details, and as the description of a field.
constexpr size_t kMostText = 3600, kMostFieldText = 2400;
constexpr int kRetryAfterSeconds = 2;

// Bytes of the UTF-8 sequence that begins with `lead`; 0 if none does.
size_t SequenceLength(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

// The text as valid UTF-8 (protobuf refuses other strings), at most so many bytes: what was quoted
// from a request or a file may be anything, or cut in the middle of a character.
std::string CleanText(const std::string& text, size_t most) {
  std::string clean;
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t length = SequenceLength(lead);
    bool valid = length > 0 && at + length <= text.size();
    for (size_t i = 1; valid && i < length; ++i) {
      valid = (static_cast<unsigned char>(text[at + i]) & 0xC0) == 0x80;
    }
    if (valid && length > 2) {  // no overlong forms, no surrogates, nothing above U+10FFFF
      const auto second = static_cast<unsigned char>(text[at + 1]);
      valid = !((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
                (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F));
    }
    const size_t step = valid ? length : 1;
    if (clean.size() + step > most) return clean + "...";
    clean += valid ? text.substr(at, length) : "?";
    at += step;
  }
  return clean;
}

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

// The wrong fields: of the message, or of each of its lines where all of them open with one.
google::rpc::BadRequest BadRequestOf(const std::string& message) {
  google::rpc::BadRequest bad;
  std::vector<std::string> lines = absl::StrSplit(message, '\n');
  const bool all = std::all_of(lines.begin(), lines.end(),
                               [](const std::string& line) { return !FieldOf(line).empty(); });
  if (!all) lines = {message};
  for (const std::string& line : lines) {
    const std::string field = FieldOf(line);
    if (field.empty()) continue;
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(line.substr(field.size() + 2));
  }
  return bad;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  const bool has_field = (absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status)) &&
                         !FieldOf(message).empty();
  message = CleanText(message, has_field ? kMostFieldText : kMostText);
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);

  google::rpc::ErrorInfo info;
  const std::string reason = ReasonOf(status);
  info.set_reason(reason.empty() ? absl::StatusCodeToString(status.code()) : reason);
  info.set_domain("gvsl");
  details.add_details()->PackFrom(info);
  if (has_field) details.add_details()->PackFrom(BadRequestOf(message));
  if (reason == "QUEUE_FULL" || reason == "TOO_MANY_CALLS") {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetryAfterSeconds);
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

}  // namespace gvsl
