// Files as chunks of a stream: at most 1 MiB a message, each with its checksum.
#ifndef GVSL_SERVER_CHUNKS_H_
#define GVSL_SERVER_CHUNKS_H_

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "server/streams.h"

namespace gvsl {

// Streams a file of `size` bytes from a byte position on. The file may be unlinked meanwhile.
// CANCELLED: the client has gone. DATA_LOSS: it is shorter, or the disk does not give it back. The
// words name the file by `path` and are not for clients (ServerState::Unreadable).
template <typename Response>
absl::Status SendOpenFile(int file, const std::string& path, int64_t offset, int64_t size,
                          StreamWriter<Response>& stream) {
  posix_fadvise(file, offset, 0, POSIX_FADV_SEQUENTIAL);
  Response response;
  while (offset < size) {
    std::string& data = *response.mutable_chunk()->mutable_data();
    data.resize(static_cast<size_t>(std::min<int64_t>(size - offset, kMaxChunkBytes)));
    const ssize_t got = pread(file, data.data(), data.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return absl::DataLossError(absl::StrCat(path, got < 0 ? " cannot be read" : " ends",
                                              " at byte ", offset, " of ", size));
    }
    data.resize(static_cast<size_t>(got));
    response.mutable_chunk()->set_crc32(ChecksumOf(data));
    if (absl::Status status = stream.Write(response); !status.ok()) return status;
    offset += got;
  }
  return absl::OkStatus();
}

// The same for a file that is not open. NOT_FOUND: there is none.
template <typename Response>
absl::Status SendFile(const std::string& path, int64_t offset, int64_t size,
                      StreamWriter<Response>& stream) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const auto closed = absl::MakeCleanup([file] { close(file); });
  return SendOpenFile(file, path, offset, size, stream);
}

}  // namespace gvsl

#endif  // GVSL_SERVER_CHUNKS_H_
