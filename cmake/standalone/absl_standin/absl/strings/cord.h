// Stand-in for Abseil's header of this name, see absl/status/status.h: a Cord that is a plain
// string, enough for the payloads of a Status.
#ifndef GVSL_STANDIN_ABSL_STRINGS_CORD_H_
#define GVSL_STANDIN_ABSL_STRINGS_CORD_H_

#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace absl {

class Cord {
 public:
  Cord() = default;
  explicit Cord(string_view text) : text_(text) {}

  explicit operator std::string() const { return text_; }
  size_t size() const { return text_.size(); }
  bool empty() const { return text_.empty(); }

  friend bool operator==(const Cord& a, const Cord& b) { return a.text_ == b.text_; }
  friend bool operator!=(const Cord& a, const Cord& b) { return !(a == b); }

 private:
  std::string text_;
};

}  // namespace absl

#endif  // GVSL_STANDIN_ABSL_STRINGS_CORD_H_
