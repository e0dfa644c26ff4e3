#include "server/names.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr size_t kMostIdBytes = 64;

bool IsId(const std::string& id) {
  return !id.empty() && id.size() <= kMostIdBytes && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

}  // namespace

std::string NewId() {
  static thread_local std::random_device device;
  std::string id;
  for (int i = 0; i < 4; ++i) absl::StrAppend(&id, absl::Hex(device(), absl::kZeroPad8));
  return id;
}

absl::StatusOr<std::string> IdOf(const std::string& collection, const std::string& name,
                                 const std::string& field) {
  if (name.rfind(collection + "/", 0) == 0 && IsId(name.substr(collection.size() + 1))) {
    return name.substr(collection.size() + 1);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": ", name.empty() ? "empty" : absl::StrCat("a text of ", name.size(), " characters"),
      "; it must be ", collection, "/{id}, the id 1 to ", kMostIdBytes,
      " characters of [A-Za-z0-9_-]"));
}

absl::Status CheckRequestId(const std::string& request_id, const std::string& field) {
  if (IsId(request_id)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": has ", request_id.size(),
                                                 " characters; it is 1 to ", kMostIdBytes,
                                                 " of [A-Za-z0-9_-]"));
}

absl::Status CheckText(const std::string& text, size_t most, const std::string& field) {
  if (text.size() > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", text.size(), " bytes; at most ", most));
  }
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": holds a control character"));
    }
  }
  return absl::OkStatus();
}

}  // namespace gvsl
