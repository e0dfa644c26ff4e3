// Stand-in for Abseil's header of this name; see absl/status/status.h.
#ifndef GVSL_STANDIN_ABSL_STRINGS_STR_CAT_H_
#define GVSL_STANDIN_ABSL_STRINGS_STR_CAT_H_

#include <sstream>
#include <string>

#include "absl/strings/string_view.h"

namespace absl {
namespace standin {

template <typename T>
void Put(std::ostream& out, const T& value) {
  out << value;  // floating point with six figures, as Abseil does
}
// Abseil writes small integers as numbers, a stream as characters.
inline void Put(std::ostream& out, signed char value) { out << static_cast<int>(value); }
inline void Put(std::ostream& out, unsigned char value) { out << static_cast<int>(value); }

}  // namespace standin

template <typename... Pieces>
std::string StrCat(const Pieces&... pieces) {
  std::ostringstream out;
  (standin::Put(out, pieces), ...);
  return out.str();
}

template <typename... Pieces>
void StrAppend(std::string* text, const Pieces&... pieces) {
  text->append(StrCat(pieces...));
}

}  // namespace absl

#endif  // GVSL_STANDIN_ABSL_STRINGS_STR_CAT_H_
