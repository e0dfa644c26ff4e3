#include "ingest/dataset_receiver.h"

#include <dcmtk/dcmdata/dcostrma.h>
#include <dcmtk/dcmdata/dcostrmf.h>
#include <unistd.h>

#include <cstdio>

namespace gvsl {
namespace {

// Takes everything, so that DCMTK reads on, and writes as long as there is room.
class BoundedFile : public DcmConsumer {
 public:
  BoundedFile(const std::string& path, int64_t max_bytes)
      : file_(path.empty() ? nullptr : std::fopen(path.c_str(), "ab")), max_bytes_(max_bytes) {}
  ~BoundedFile() override { Close(); }
  BoundedFile(const BoundedFile&) = delete;
  BoundedFile& operator=(const BoundedFile&) = delete;

  // True if all bytes were written.
  bool Close() {
    if (file_ == nullptr) return false;
    const bool closed = std::fclose(file_) == 0;
    file_ = nullptr;
    return closed;
  }
  int64_t bytes() const { return bytes_; }

  OFBool good() const override { return OFTrue; }
  OFCondition status() const override { return EC_Normal; }
  OFBool isFlushed() const override { return OFTrue; }
  offile_off_t avail() const override { return OFstatic_cast(offile_off_t, INT32_MAX); }
  offile_off_t write(const void* data, offile_off_t size) override {
    bytes_ += size;
    const auto count = static_cast<size_t>(size);
    if (file_ != nullptr && (bytes_ > max_bytes_ || std::fwrite(data, 1, count, file_) != count)) {
      std::fclose(file_);
      file_ = nullptr;
    }
    return size;
  }
  void flush() override {}

 private:
  std::FILE* file_;  // null: no longer written
  const int64_t max_bytes_;
  int64_t bytes_ = 0;
};

class BoundedFileStream : public DcmOutputStream {
 public:
  explicit BoundedFileStream(BoundedFile& file) : DcmOutputStream(&file) {}
};

// False where the disk is full.
bool WriteMetaHeader(T_ASC_Association* association, T_ASC_PresentationContextID context,
                     const std::string& path, T_DIMSE_C_StoreRQ* store) {
  DcmOutputFileStream* stream = nullptr;
  const OFCondition made =
      DIMSE_createFilestream(path.c_str(), store, association, context, 1, &stream);
  delete stream;
  return made.good();
}

}  // namespace

ReceivedDataset ReceiveDataset(T_ASC_Association* association, T_ASC_PresentationContextID context,
                               int timeout_s, const std::string& path, int64_t max_bytes,
                               T_DIMSE_C_StoreRQ* store) {
  const bool is_written =
      !path.empty() && (store == nullptr || WriteMetaHeader(association, context, path, store));
  BoundedFile file(is_written ? path : "", max_bytes);
  BoundedFileStream stream(file);
  T_ASC_PresentationContextID came_on = context;
  ReceivedDataset received;
  received.condition = DIMSE_receiveDataSetInFile(association, DIMSE_NONBLOCKING, timeout_s,
                                                  &came_on, &stream, nullptr, nullptr);
  if (received.condition.good() && came_on != context) {
    received.condition = DIMSE_BADMESSAGE;
  }
  received.bytes = file.bytes();
  received.is_whole = file.Close() && received.condition.good();
  if (!received.is_whole && !path.empty()) unlink(path.c_str());
  return received;
}

}  // namespace gvsl
