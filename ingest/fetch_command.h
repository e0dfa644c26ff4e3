// `gvsl-ingest fetch`: studies out of an archive onto a server.
#ifndef GVSL_INGEST_FETCH_COMMAND_H_
#define GVSL_INGEST_FETCH_COMMAND_H_

#include "ingest/phantom_command.h"

namespace gvsl {

// Adds the verb to `app`; parsing it sets `*action`, which must outlive `app`.
void AddFetchCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_FETCH_COMMAND_H_
