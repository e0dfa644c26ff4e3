// Text from a file of a stranger, as a message may show it.
#ifndef GVSL_MODEL_SHOWN_H_
#define GVSL_MODEL_SHOWN_H_

#include <string>

namespace gvsl {

// At most 100 characters, those outside printable ASCII as question marks: a message is logged and
// sent as UTF-8, whatever stood in the file.
inline std::string Shown(const std::string& text) {
  std::string shown = text.substr(0, 100);
  for (char& c : shown) {
    if (c < 32 || c > 126) c = '?';
  }
  return shown;
}

}  // namespace gvsl

#endif  // GVSL_MODEL_SHOWN_H_
