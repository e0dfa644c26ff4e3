// Decoders parse hostile bytes: they run in a process of their own, gvsl-dicom-decoder, which may
// use little memory and time, may write no file, and whose death is only an error here.
#ifndef GVSL_INGEST_DECODER_PROCESS_H_
#define GVSL_INGEST_DECODER_PROCESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

// The program gvsl-dicom-decoder beside the running one.
std::string DefaultDecoderProgram();

// Starts when first asked, and again after a death. A process of its own each, so that what bytes
// do to one reaches no other's pixels: forked from one program that has been started once, and has
// read nothing. Not thread-safe: one a thread.
class DecoderProcess {
 public:
  explicit DecoderProcess(std::string program = DefaultDecoderProgram());
  ~DecoderProcess();
  DecoderProcess(const DecoderProcess&) = delete;
  DecoderProcess& operator=(const DecoderProcess&) = delete;

  // Frame `index` of a file, as DicomPixelFile::Frame; `pixel_count` is what the header promises.
  // DATA_LOSS where the bytes are damaged, the decoder died of them, or took over a minute.
  // INTERNAL where the program cannot be started, or does not answer as it should.
  absl::StatusOr<std::vector<uint16_t>> Frame(const std::string& path, int index,
                                              size_t pixel_count);

 private:
  absl::Status Start();
  void Stop();
  bool Send(const void* data, size_t size);
  bool Receive(void* data, size_t size);

  const std::string program_;
  int process_ = -1;  // its pidfd
  int socket_ = -1;
};

// The program's side: forks a decoder for each socket that comes through `control`, until it
// closes. Single-threaded.
void ServeDecoders(int control);

}  // namespace gvsl

#endif  // GVSL_INGEST_DECODER_PROCESS_H_
