// Folders and files of DICOM, as series.
#ifndef GVSL_INGEST_DICOM_PATHS_H_
#define GVSL_INGEST_DICOM_PATHS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ingest/series.h"

namespace gvsl {

// Told how far a step is: "reading" files, then "importing" series. May be empty.
using StepProgress =
    std::function<void(const char* step, const char* unit, int64_t done, int64_t total)>;

// Reads the headers of all files, and of those below folders to the bottom, in parallel, each once;
// links to folders are not followed. Adds to `unreadable` why a path could not be looked through.
std::vector<Series> ReadDicomPaths(const std::vector<std::string>& paths, int threads,
                                   const StepProgress& progress,
                                   std::vector<absl::Status>* unreadable);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_PATHS_H_
