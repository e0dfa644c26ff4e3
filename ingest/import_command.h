// `gvsl-ingest import`: folders of DICOM files onto a server.
#ifndef GVSL_INGEST_IMPORT_COMMAND_H_
#define GVSL_INGEST_IMPORT_COMMAND_H_

#include "ingest/phantom_command.h"
#include "ingest/upload_options.h"

namespace gvsl {

// Imports arguments.import.paths and prints the report, as a table or as JSON; what failed goes to
// standard error. OK if nothing failed, and a DICOM file was among what was given.
absl::Status ImportAndReport(UploadArguments arguments, bool dry_run, bool as_json);

// Adds the verb to `app`; parsing it sets `*action`, which must outlive `app`.
void AddImportCommand(CLI::App* app, Action* action);

}  // namespace gvsl

#endif  // GVSL_INGEST_IMPORT_COMMAND_H_
