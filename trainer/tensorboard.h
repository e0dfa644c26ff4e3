// TensorboardWriter: scalars and pictures as TensorBoard reads them.
#ifndef GVSL_TRAINER_TENSORBOARD_H_
#define GVSL_TRAINER_TENSORBOARD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

// A file of TFRecords: length, its masked CRC-32C, an Event message, its masked CRC-32C. Every
// process of a job opens one of its own; TensorBoard shows them as one run. Not thread-safe.
class TensorboardWriter {
 public:
  // Makes the folder and a new file in it.
  static absl::StatusOr<std::unique_ptr<TensorboardWriter>> Open(const std::string& folder);
  ~TensorboardWriter();

  absl::Status Scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  absl::Status Png(int64_t step, const std::string& tag, int width, int height,
                   const std::string& png);

 private:
  explicit TensorboardWriter(int file) : file_(file) {}
  absl::Status Record(const std::string& bytes);
  const int file_;
};

}  // namespace gvsl

#endif  // GVSL_TRAINER_TENSORBOARD_H_
