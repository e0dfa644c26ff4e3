// Dense features as the messages of ExtractDense: a header, then chunks of whatever size the slices
// have.
#ifndef GVSL_SERVER_DENSE_STREAM_H_
#define GVSL_SERVER_DENSE_STREAM_H_

#include "gvsl/v1/features.pb.h"
#include "model/extractor.h"
#include "server/streams.h"

namespace gvsl {

class DenseStream final : public DenseSink {
 public:
  // `header` says the type and the model; grid, channels and bytes are filled in here.
  DenseStream(StreamWriter<v1::ExtractDenseResponse>& writer,
              v1::ExtractDenseResponse::Header header)
      : writer_(writer), header_(std::move(header)) {}

  // Before Begin.
  void set_window(const v1::WindowOptions& window) { *header_.mutable_window() = window; }

  absl::Status Begin(const DenseHeader& header) override;
  absl::Status Slice(int64_t z, const float* values) override;
  // Sends what is left after the last slice.
  absl::Status Finish();

 private:
  absl::Status Add(const char* data, size_t size);

  StreamWriter<v1::ExtractDenseResponse>& writer_;
  v1::ExtractDenseResponse::Header header_;
  size_t slice_values_ = 0;
  v1::ExtractDenseResponse pending_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_DENSE_STREAM_H_
