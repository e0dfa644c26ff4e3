// Files as chunks of a stream: at most 1 MiB a message, each with its checksum.
#ifndef GVSL_SERVER_CHUNKS_H_
#define GVSL_SERVER_CHUNKS_H_

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "client/wire.h"
#include "server/streams.h"

namespace gvsl {

// Streams a file from a byte position on. The file may be unlinked meanwhile.
template <typename Response>
absl::Status SendFile(const std::string& path, int64_t offset, StreamWriter<Response>& stream) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return absl::NotFoundError("it was deleted meanwhile");
  posix_fadvise(file, offset, 0, POSIX_FADV_SEQUENTIAL);
  Response response;
  absl::Status status;
  while (status.ok()) {
    std::string& data = *response.mutable_chunk()->mutable_data();
    data.resize(kMaxChunkBytes);
    const ssize_t got = pread(file, data.data(), data.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      status =
          WithReason(absl::DataLossError("the stored file cannot be read"), "STORED_DATA_LOST");
    if (got <= 0) break;
    data.resize(static_cast<size_t>(got));
    response.mutable_chunk()->set_crc32(ChecksumOf(data));
    status = stream.Write(response);
    offset += got;
  }
  close(file);
  return status;
}

}  // namespace gvsl

#endif  // GVSL_SERVER_CHUNKS_H_
