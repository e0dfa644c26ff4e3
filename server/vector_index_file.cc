#include "server/vector_index_file.h"

#include <faiss/impl/io.h>
#include <faiss/index_io.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"

namespace gvsl {
namespace {

constexpr char kMagic[9] = "GVSLVEC1";  // the last character is the format's version
constexpr uint32_t kMostIdentityBytes = 256;
constexpr size_t kPieceBytes = 1 << 20;

uint32_t Extended(uint32_t checksum, const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t at = 0; at < size; at += kPieceBytes) {  // zlib counts in 32 bits
    checksum = static_cast<uint32_t>(
        crc32(checksum, bytes + at, static_cast<uInt>(std::min(kPieceBytes, size - at))));
  }
  return checksum;
}

// Faiss writes here; every byte counts for the checksum.
class ChecksumWriter : public faiss::IOWriter {
 public:
  explicit ChecksumWriter(OutputFile& file) : file_(file) {}
  size_t operator()(const void* data, size_t size, size_t items) override {
    if (!status_.ok()) return 0;
    status_ = file_.Write(data, size * items, offset_);
    offset_ += static_cast<int64_t>(size * items);
    checksum_ = Extended(checksum_, data, size * items);
    return status_.ok() ? items : 0;
  }
  template <typename T>
  void Put(const T& value) {
    (*this)(&value, sizeof(value), 1);
  }
  const absl::Status& status() const { return status_; }
  uint32_t checksum() const { return checksum_; }

 private:
  OutputFile& file_;
  absl::Status status_ = absl::OkStatus();
  int64_t offset_ = 0;
  uint32_t checksum_ = 0;
};

absl::Status Damaged(const std::string& path) {
  return absl::DataLossError(absl::StrCat(path, " is damaged"));
}

// Leaves the file at its first byte.
absl::Status CheckSum(std::FILE* file, const std::string& path) {
  std::string buffer(kPieceBytes, '\0'), tail;
  uint32_t checksum = 0;
  while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), file)) {
    // The last four bytes are the checksum; which ones they are shows at the end.
    tail.append(buffer, 0, got);
    if (tail.size() < sizeof(checksum)) continue;
    const size_t sure = tail.size() - sizeof(checksum);
    checksum = Extended(checksum, tail.data(), sure);
    tail.erase(0, sure);
  }
  uint32_t stored = 0;
  if (std::ferror(file) != 0 || tail.size() != sizeof(stored)) return Damaged(path);
  std::memcpy(&stored, tail.data(), sizeof(stored));
  std::rewind(file);
  return stored == checksum ? absl::OkStatus() : Damaged(path);
}

}  // namespace

absl::Status WriteVectorIndexFile(const std::string& path, const std::string& identity,
                                  const std::vector<int64_t>& keys, const faiss::Index& index) {
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  ChecksumWriter writer(file);
  try {
    writer(kMagic, 1, 8);
    writer.Put(static_cast<uint32_t>(identity.size()));
    writer(identity.data(), 1, identity.size());
    writer.Put(static_cast<uint64_t>(keys.size()));
    if (!keys.empty()) writer(keys.data(), sizeof(int64_t), keys.size());
    faiss::write_index(&index, &writer);
    writer.Put(writer.checksum());
  } catch (const std::exception& error) {  // Faiss, when a write failed
    if (writer.status().ok()) return absl::InternalError(absl::StrCat(path, ": ", error.what()));
  }
  return writer.status().ok() ? file.Commit() : writer.status();
}

absl::StatusOr<VectorIndexFile> ReadVectorIndexFile(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const auto closed = absl::MakeCleanup([file] { std::fclose(file); });
  if (absl::Status status = CheckSum(file, path); !status.ok()) return status;
  const auto get = [file](void* data, size_t size) {
    return std::fread(data, 1, size, file) == size;
  };
  VectorIndexFile read;
  std::string magic(8, '\0');
  uint32_t identity_bytes = 0;
  uint64_t count = 0;
  if (!get(magic.data(), magic.size()) || magic != kMagic ||
      !get(&identity_bytes, sizeof(identity_bytes)) || identity_bytes > kMostIdentityBytes) {
    return absl::DataLossError(absl::StrCat(path, " is of another format"));
  }
  read.identity.resize(identity_bytes);
  if (!get(read.identity.data(), identity_bytes) || !get(&count, sizeof(count)))
    return Damaged(path);
  try {
    read.keys.resize(count);
    if (!get(read.keys.data(), count * sizeof(int64_t))) return Damaged(path);
    faiss::FileIOReader reader(file);
    read.index.reset(faiss::read_index(&reader));
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": ", error.what()));
  }
  return read;
}

}  // namespace gvsl
