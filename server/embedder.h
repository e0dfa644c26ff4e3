// Embeds volumes for search: one on demand, all that are missing, or new ones in the background.
#ifndef GVSL_SERVER_EMBEDDER_H_
#define GVSL_SERVER_EMBEDDER_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/server_state.h"

namespace gvsl {

// The unit vector of an image by a model: the stored one, or else one that is computed in a turn on
// the device and kept. FAILED_PRECONDITION (NO_DIRECTION) when the network's vector is zero or not
// finite; else the statuses of the engine.
absl::StatusOr<std::vector<float>> EmbeddingOf(ServerState& state, const StoredModel& model,
                                               const StoredVolume& volume,
                                               const CancelFunction& cancelled,
                                               bool admitted = false);

// Told each volume that was embedded (OK) or passed over (why). What it returns, unless OK, ends
// the work.
using PassedFunction = std::function<absl::Status(const std::string&, const absl::Status&)>;

// Embeds every image that matches a filter and has no embedding by the model, a turn on the device
// each. What concerns one volume alone is passed over; what would stop every other one, too
// (cancelled, the queue is full at the first, the disk is full), is returned.
absl::Status EmbedMissing(ServerState& state, const StoredModel& model, const std::string& filter,
                          const CancelFunction& cancelled, const PassedFunction& passed);

// Embeds, with the default model, what is there and what comes: one volume at a time, behind the
// requests that wait. There is no list to lose: what has no embedding is looked up in the store, at
// the start and when another model becomes the default one. A volume that cannot be embedded is
// told in the log and tried again after the next start.
class AutoEmbedder {
 public:
  // `state` outlives it.
  explicit AutoEmbedder(ServerState& state);
  ~AutoEmbedder();

  // Ends the work at the next window and returns then. Once is enough.
  void Stop();

  // A volume was made. Never waits.
  void Added(const std::string& volume);

 private:
  void Run();
  // The next volume that was made, waiting for one; "" when it is time to look at the models.
  std::string Next();
  bool TakeMissed();
  bool stopping();

  ServerState& state_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> added_;  // guarded by mutex_
  bool missed_ = false;            // more came than `added_` takes; guarded by mutex_
  bool stopping_ = false;          // guarded by mutex_
  std::thread thread_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_EMBEDDER_H_
