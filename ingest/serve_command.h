// `gvsl-ingest serve` and `gvsl-ingest status`: the DICOM receiver and what its spool holds.
#ifndef GVSL_INGEST_SERVE_COMMAND_H_
#define GVSL_INGEST_SERVE_COMMAND_H_

#include "ingest/phantom_command.h"

namespace gvsl {

// Add the verbs to `app`; parsing one sets `*action`, which must outlive `app`.
void AddServeCommand(CLI::App* app, Action* action);
void AddStatusCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_SERVE_COMMAND_H_
