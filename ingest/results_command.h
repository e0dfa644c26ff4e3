// `gvsl-ingest results`: registrations back into the archive.
#ifndef GVSL_INGEST_RESULTS_COMMAND_H_
#define GVSL_INGEST_RESULTS_COMMAND_H_

#include "ingest/phantom_command.h"

namespace gvsl {

// Adds the verb to `app`; parsing it sets `*action`, which must outlive `app`.
void AddResultsCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_RESULTS_COMMAND_H_
