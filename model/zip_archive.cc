#include "model/zip_archive.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50;        // end of central directory
constexpr uint32_t kEnd64Signature = 0x06064b50;      // zip64 end of central directory
constexpr uint32_t kLocator64Signature = 0x07064b50;  // where that one lies
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr size_t kEndSize = 22, kLocator64Size = 20, kEnd64Size = 56, kCentralSize = 46,
                 kLocalSize = 30;
constexpr size_t kMaxEntries = 100000;

// Little-endian number of `bytes` bytes.
uint64_t Number(const uint8_t* at, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; --i) value = value << 8 | at[i];
  return value;
}

uint32_t Crc32(const uint8_t* data, size_t size) {
  static const auto table = [] {
    std::array<uint32_t, 256> t;
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (size_t i = 0; i < size; ++i) crc = table[(crc ^ data[i]) & 0xff] ^ crc >> 8;
  return ~crc;
}

absl::Status Damaged(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("damaged zip file: ", what));
}

struct Directory {
  uint64_t offset = 0, size = 0, entries = 0;
};

absl::StatusOr<Directory> FindDirectory(const uint8_t* data, size_t size) {
  if (size < kEndSize) return Damaged("too short");
  // The end record may be followed by a comment of up to 65535 bytes.
  const size_t lowest = size > kEndSize + 65535 ? size - kEndSize - 65535 : 0;
  for (size_t at = size - kEndSize + 1; at-- > lowest;) {
    if (Number(data + at, 4) != kEndSignature) continue;
    Directory directory = {Number(data + at + 16, 4), Number(data + at + 12, 4),
                           Number(data + at + 10, 2)};
    if (at >= kLocator64Size && Number(data + at - kLocator64Size, 4) == kLocator64Signature) {
      const uint64_t end64 = Number(data + at - kLocator64Size + 8, 8);
      if (end64 > size || size - end64 < kEnd64Size || Number(data + end64, 4) != kEnd64Signature) {
        return Damaged("its zip64 directory is missing");
      }
      directory = {Number(data + end64 + 48, 8), Number(data + end64 + 40, 8),
                   Number(data + end64 + 32, 8)};
    }
    if (directory.offset > size || directory.size > size - directory.offset ||
        directory.entries > kMaxEntries) {
      return Damaged("its directory lies outside the file");
    }
    return directory;
  }
  return Damaged("no directory at its end (is it truncated?)");
}

// Sizes and offset of an entry that are 0xffffffff stand in the zip64 extra field, in this order.
void ReadExtra64(const uint8_t* extra, size_t size, uint64_t& uncompressed, uint64_t& compressed,
                 uint64_t& offset) {
  for (size_t at = 0; at + 4 <= size;) {
    const uint64_t id = Number(extra + at, 2);
    const size_t length = Number(extra + at + 2, 2);
    at += 4;
    if (length > size - at) return;
    if (id == 1) {
      size_t field = at;
      for (uint64_t* value : {&uncompressed, &compressed, &offset}) {
        if (*value == 0xffffffff && field + 8 <= at + length) {
          *value = Number(extra + field, 8);
          field += 8;
        }
      }
    }
    at += length;
  }
}

}  // namespace

absl::StatusOr<ZipArchive> ZipArchive::Open(const uint8_t* data, size_t size) {
  auto directory = FindDirectory(data, size);
  if (!directory.ok()) return directory.status();
  ZipArchive archive;
  const uint8_t* at = data + directory->offset;
  const uint8_t* const end = at + directory->size;
  uint64_t unclaimed = size;  // bytes that no entry holds yet
  for (uint64_t i = 0; i < directory->entries; ++i) {
    if (end - at < static_cast<ptrdiff_t>(kCentralSize) || Number(at, 4) != kCentralSignature) {
      return Damaged("its directory is cut");
    }
    const size_t name_size = Number(at + 28, 2), extra_size = Number(at + 30, 2),
                 comment_size = Number(at + 32, 2);
    if (static_cast<size_t>(end - at) < kCentralSize + name_size + extra_size + comment_size) {
      return Damaged("its directory is cut");
    }
    const std::string path(reinterpret_cast<const char*>(at + kCentralSize), name_size);
    if (Number(at + 8, 2) & 1) return Damaged("an entry is encrypted");
    if (Number(at + 10, 2) != 0) return Damaged("an entry is compressed; torch.save stores them");
    uint64_t compressed = Number(at + 20, 4), uncompressed = Number(at + 24, 4),
             offset = Number(at + 42, 4);
    ReadExtra64(at + kCentralSize + name_size, extra_size, uncompressed, compressed, offset);
    if (compressed != uncompressed || offset > size || size - offset < kLocalSize ||
        Number(data + offset, 4) != kLocalSignature) {
      return Damaged("an entry lies outside the file");
    }
    const uint64_t skip =
        kLocalSize + Number(data + offset + 26, 2) + Number(data + offset + 28, 2);
    if (size - offset < skip || size - offset - skip < uncompressed) {
      return Damaged("an entry lies outside the file");
    }
    // Entries that share bytes would let a small file stand for a large one.
    if (uncompressed > unclaimed) return Damaged("its entries overlap");
    unclaimed -= uncompressed;
    Entry entry;
    entry.data = data + offset + skip;
    entry.size = uncompressed;
    entry.crc32 = static_cast<uint32_t>(Number(at + 16, 4));
    const size_t slash = path.find('/');
    if (!archive.entries_.emplace(slash == std::string::npos ? path : path.substr(slash + 1), entry)
             .second) {
      return Damaged("two entries have one name");
    }
    at += kCentralSize + name_size + extra_size + comment_size;
  }
  return archive;
}

absl::StatusOr<ZipArchive::Entry> ZipArchive::Find(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return absl::NotFoundError(absl::StrCat("no entry ", name));
  if (Crc32(found->second.data, found->second.size) != found->second.crc32) {
    return absl::DataLossError(absl::StrCat("entry ", name, " is corrupt: its checksum is wrong"));
  }
  return found->second;
}

}  // namespace gvsl
