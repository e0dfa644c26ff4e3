// The processes of one job: rank 0 holds the folder and starts the others.
#ifndef GVSL_TRAINER_RANK_GROUP_H_
#define GVSL_TRAINER_RANK_GROUP_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/trainer.h"

namespace gvsl {

// Meets the other ranks through the file `store`, which must be new, and sums with Gloo over
// loopback. UNAVAILABLE if a rank does not come or is lost.
absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(const std::string& store, int rank, int size);

// The other ranks of this process: the same program on the same folder. They end with it.
class Peers {
 public:
  Peers() = default;
  ~Peers() { Kill(); }
  // Starts ranks 1 to size - 1.
  absl::Status Start(const std::string& folder, const std::string& store, int size);
  void Kill();

 private:
  std::vector<int> processes_;
};

}  // namespace gvsl

#endif  // GVSL_TRAINER_RANK_GROUP_H_
