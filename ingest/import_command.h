// `gvsl-ingest import`: folders of DICOM files onto a server.
#ifndef GVSL_INGEST_IMPORT_COMMAND_H_
#define GVSL_INGEST_IMPORT_COMMAND_H_

#include "ingest/phantom_command.h"

namespace gvsl {

// Adds the verb to `app`; parsing it sets `*action`, which must outlive `app`.
void AddImportCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_IMPORT_COMMAND_H_
