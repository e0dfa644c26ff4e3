// The receiver's log: one JSON object a line on standard error. It names addresses, AE titles and
// pseudonyms, and nothing else of who is on the images.
#ifndef GVSL_INGEST_INGEST_LOG_H_
#define GVSL_INGEST_INGEST_LOG_H_

#include <string>

#include "ingest/spool_worker.h"
#include "ingest/storage_scp.h"

namespace gvsl {

// Safe for concurrent use.
void LogEvent(const std::string& event, const std::string& error = "");
void LogServing(const std::string& ae_title, int port);
void Log(const ScpEvent& event);
void Log(const CommitmentEvent& event);
void Log(const SpoolEvent& event);

}  // namespace gvsl

#endif  // GVSL_INGEST_INGEST_LOG_H_
