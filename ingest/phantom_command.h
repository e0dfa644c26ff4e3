// `gvsl-ingest phantom`: phantom patients as DICOM series.
#ifndef GVSL_INGEST_PHANTOM_COMMAND_H_
#define GVSL_INGEST_PHANTOM_COMMAND_H_

#include <functional>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace gvsl {

// What the verb that was given on the command line does, set when the verb is parsed.
using Action = std::function<absl::Status()>;

// Adds the verb to `app`; parsing it sets `*action`, which must outlive `app`.
void AddPhantomCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_PHANTOM_COMMAND_H_
