// Violations: every wrong field of a request, told at once.
#ifndef GVSL_SERVER_VIOLATIONS_H_
#define GVSL_SERVER_VIOLATIONS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gvsl {

// Collects lines of `field: what is wrong`; ToGrpc makes a BadRequest of them. Not thread-safe.
class Violations {
 public:
  // Fields are told below `prefix` ("job.spec.").
  explicit Violations(std::string prefix) : prefix_(std::move(prefix)) {}
  void SetPrefix(std::string prefix) { prefix_ = std::move(prefix); }

  void Add(const std::string& field, const std::string& text) {
    absl::StrAppend(&lines_, lines_.empty() ? "" : "\n", prefix_, field, ": ", text);
  }
  // Also for NaN, which lies nowhere.
  template <typename T>
  void CheckRange(const std::string& field, T value, T low, T high) {
    if (!(value >= low && value <= high))
      Add(field, absl::StrCat(value, " must lie in ", low, " to ", high));
  }
  // What another check found, whose message opens with the field's own path below ours.
  void AddBelow(const std::string& field, const absl::Status& status) {
    absl::StrAppend(&lines_, lines_.empty() ? "" : "\n", prefix_, field,
                    std::string(status.message()));
  }
  // INVALID_ARGUMENT, or OK where there is none.
  absl::Status status() const {
    return lines_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(lines_);
  }

 private:
  std::string prefix_;
  std::string lines_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_VIOLATIONS_H_
