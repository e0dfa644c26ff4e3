// Where exceptions end.
#ifndef GVSL_SERVER_GUARDED_H_
#define GVSL_SERVER_GUARDED_H_

#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/log.h"

namespace gvsl {

// Runs a body that returns a status. What it throws (memory is short, say) costs one call and not
// the server. An exception's own words may name files and go to the log alone.
template <typename Body>
absl::Status Guarded(Body&& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("the server has too little memory for this call");
  } catch (const std::exception& error) {
    LogError(absl::StrCat("a call threw: ", error.what()));
  } catch (...) {
    LogError("a call threw something that is no exception");
  }
  return absl::InternalError("the server failed in this call; its log says how");
}

}  // namespace gvsl

#endif  // GVSL_SERVER_GUARDED_H_
