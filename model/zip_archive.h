// Reads the zip files that torch.save writes: every entry stored, none compressed.
//
// A reader of our own because the bytes are hostile: nothing is allocated or inflated on a header's
// word, and every entry's checksum is compared. (LibTorch's reader takes sizes from the file as
// they are.)
#ifndef GVSL_MODEL_ZIP_ARCHIVE_H_
#define GVSL_MODEL_ZIP_ARCHIVE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace gvsl {

class ZipArchive {
 public:
  struct Entry {
    const uint8_t* data = nullptr;  // in the caller's bytes
    size_t size = 0;
    uint32_t crc32 = 0;
  };

  // Reads the directory (APPNOTE 4.3, zip64 included). The bytes must outlive the archive.
  // INVALID_ARGUMENT: no zip file, damaged, or with compressed or encrypted entries.
  static absl::StatusOr<ZipArchive> Open(const uint8_t* data, size_t size);

  // The only entry whose path is `name` within the archive's top folder. NOT_FOUND; DATA_LOSS when
  // its checksum is wrong.
  absl::StatusOr<Entry> Find(const std::string& name) const;

 private:
  std::map<std::string, Entry> entries_;  // by name without the top folder
};

}  // namespace gvsl

#endif  // GVSL_MODEL_ZIP_ARCHIVE_H_
