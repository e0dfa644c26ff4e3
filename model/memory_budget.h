// MemoryBudget: what reading one model file may allocate.
#ifndef GVSL_MODEL_MEMORY_BUDGET_H_
#define GVSL_MODEL_MEMORY_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"

namespace gvsl {

class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t bytes) : limit_(bytes) {}  // 0: no limit

  // Charges an allocation before it is made. RESOURCE_EXHAUSTED (MODEL_TOO_LARGE) beyond the limit.
  absl::Status Take(int64_t bytes) {
    taken_ += bytes;
    if (limit_ <= 0 || taken_ <= limit_) return absl::OkStatus();
    return WithReason(absl::ResourceExhaustedError(absl::StrCat(
                          "the model needs more than the ", limit_ >> 20,
                          " MiB of memory that the server allows; raise memory_limit_mib")),
                      "MODEL_TOO_LARGE");
  }
  void GiveBack(int64_t bytes) { taken_ -= bytes; }

 private:
  const int64_t limit_;
  int64_t taken_ = 0;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_MEMORY_BUDGET_H_
