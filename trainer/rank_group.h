// The processes of one job: rank 0 holds the folder and starts the others.
#ifndef GVSL_TRAINER_RANK_GROUP_H_
#define GVSL_TRAINER_RANK_GROUP_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/trainer.h"

namespace gvsl {

// Meets the other ranks through the file `store`, which must be new and which rank 0 deletes once
// all have met, and sums tensors of `device`: with Gloo over loopback on the CPU, with NCCL on
// CUDA, where each rank has a device of its own. `all_live` tells rank 0 of a rank that has died
// before. UNAVAILABLE if a rank does not come within two minutes, or is lost later;
// INVALID_ARGUMENT for CUDA in a build without NCCL.
absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(
    const std::string& store, int rank, int size, const std::string& device,
    const std::function<absl::Status()>& all_live = [] { return absl::OkStatus(); });

// The other ranks of this process: the same program on the same folder. They end with it, and with
// the thread that started them.
class Peers {
 public:
  Peers() = default;
  ~Peers() { Kill(); }
  // Starts ranks 1 to size - 1.
  absl::Status Start(const std::string& folder, const std::string& store, int size);
  // UNAVAILABLE once one of them has ended.
  absl::Status AllLive() const;
  void Kill();

 private:
  std::vector<int> processes_;
};

}  // namespace gvsl

#endif  // GVSL_TRAINER_RANK_GROUP_H_
