// MetaImage files; the callers' door is imaging/image_file.h.
#ifndef GVSL_IMAGING_METAIMAGE_FILE_H_
#define GVSL_IMAGING_METAIMAGE_FILE_H_

#include <string>

#include "imaging/image_file.h"
#include "imaging/output_file.h"

namespace gvsl {

absl::StatusOr<Volume> ReadMetaImage(const std::string& path, const ReadOptions& options);
// Writes into `file` (the caller commits). With a `data_name` it writes the header alone, which
// tells of voxels in a file of that name beside it.
absl::Status WriteMetaImage(const Volume& volume, const std::string& data_name, OutputFile& file);

}  // namespace gvsl

#endif  // GVSL_IMAGING_METAIMAGE_FILE_H_
