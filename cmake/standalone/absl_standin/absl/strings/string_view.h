// Stand-in for Abseil's header of this name; see absl/status/status.h.
#ifndef GVSL_STANDIN_ABSL_STRINGS_STRING_VIEW_H_
#define GVSL_STANDIN_ABSL_STRINGS_STRING_VIEW_H_

#include <string_view>

namespace absl {
using string_view = std::string_view;
}  // namespace absl

#endif  // GVSL_STANDIN_ABSL_STRINGS_STRING_VIEW_H_
