#include "ingest/dicom_logging.h"

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/oflog/oflog.h>

namespace gvsl {

void SilenceDicomLog() { OFLog::configure(OFLogger::OFF_LOG_LEVEL); }

}  // namespace gvsl
