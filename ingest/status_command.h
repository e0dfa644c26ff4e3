// `gvsl-ingest status`: what is in a spool.
#ifndef GVSL_INGEST_STATUS_COMMAND_H_
#define GVSL_INGEST_STATUS_COMMAND_H_

#include "ingest/phantom_command.h"

namespace gvsl {

// Adds the verb to `app`; parsing it sets `*action`, which must outlive `app`.
void AddStatusCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_STATUS_COMMAND_H_
