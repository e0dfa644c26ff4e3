// MetaImage files; the callers' door is imaging/image_file.h.
#ifndef GVSL_IMAGING_METAIMAGE_FILE_H_
#define GVSL_IMAGING_METAIMAGE_FILE_H_

#include <string>

#include "imaging/image_file.h"

namespace gvsl {

absl::StatusOr<Volume> ReadMetaImage(const std::string& path, const ReadOptions& options);
// Writes to `path` itself (the caller renames). With a `data_name` it writes the header alone,
// which tells of voxels in a file of that name beside it.
absl::Status WriteMetaImage(const Volume& volume, const std::string& path,
                            const std::string& data_name);

}  // namespace gvsl

#endif  // GVSL_IMAGING_METAIMAGE_FILE_H_
