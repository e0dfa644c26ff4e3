// Decoders parse hostile bytes: they run in a process of their own, gvsl-dicom-decoder, which may
// use little memory and time, may write no file, and whose death is only an error here.
#ifndef GVSL_INGEST_DECODER_PROCESS_H_
#define GVSL_INGEST_DECODER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

// The program gvsl-dicom-decoder beside the running one.
std::string DefaultDecoderProgram();

// Starts when first asked, and again after a death. Not thread-safe: one a thread.
class DecoderProcess {
 public:
  explicit DecoderProcess(std::string program = DefaultDecoderProgram());
  ~DecoderProcess();
  DecoderProcess(const DecoderProcess&) = delete;
  DecoderProcess& operator=(const DecoderProcess&) = delete;

  // Frame `index` of a file, as DicomPixelFile::Frame; `pixel_count` is what the header promises.
  // DATA_LOSS where the bytes are damaged, the decoder died of them, or took over a minute.
  // INTERNAL where the program cannot be started.
  absl::StatusOr<std::vector<uint16_t>> Frame(const std::string& path, int index,
                                              size_t pixel_count);

 private:
  absl::Status Start();
  void Stop();
  bool Send(const void* data, size_t size);
  bool Receive(void* data, size_t size);

  const std::string program_;
  pid_t process_ = -1;
  int socket_ = -1;
};

// The program's side: answers requests from `socket` until it closes.
void ServeDecoder(int socket);

}  // namespace gvsl

#endif  // GVSL_INGEST_DECODER_PROCESS_H_
