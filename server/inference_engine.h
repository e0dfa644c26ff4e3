// InferenceEngine: the one thread of the device, its queue, and the models it holds.
#ifndef GVSL_SERVER_INFERENCE_ENGINE_H_
#define GVSL_SERVER_INFERENCE_ENGINE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "model/extractor.h"

namespace gvsl {

// Safe for concurrent use. Work is done in the order it came.
class InferenceEngine {
 public:
  static constexpr char kModelNotLoaded[] = "MODEL_NOT_LOADED";

  struct Options {
    DeviceOptions device;
    int queue_capacity = 64;
    int64_t model_cache_bytes = int64_t{2}
                                << 30;  // weights kept loaded; the last used model always is
  };
  // The device was checked (InitializeLibTorch).
  explicit InferenceEngine(const Options& options);
  // Waits for the work that has begun; what waits is dropped with UNAVAILABLE. Returns when no call
  // of Run is left.
  ~InferenceEngine();

  // Does `work` on the device's thread with the model of `path`, and returns its status when it is
  // done. A model that cannot be loaded gives Extractor::Load's status with the reason
  // kModelNotLoaded; its words name files and are not for clients. RESOURCE_EXHAUSTED (QUEUE_FULL)
  // at once when too much waits, unless the request was `admitted` before: a later turn of it
  // always waits. CANCELLED when `cancelled` says so before the work began; from then on the work
  // itself looks.
  absl::Status Run(const std::string& path, const CancelFunction& cancelled,
                   const std::function<absl::Status(Extractor&)>& work, bool admitted = false);

  int queue_length() const;
  int queue_capacity() const { return options_.queue_capacity; }

 private:
  struct Item {
    std::string path;
    const CancelFunction* cancelled;
    const std::function<absl::Status(Extractor&)>* work;
    bool done = false;
    absl::Status status;
  };
  struct Held {
    std::string path;
    std::unique_ptr<Extractor> extractor;
  };

  void Loop();
  absl::Status Do(const Item& item);
  absl::StatusOr<Extractor*> Model(const std::string& path);

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item*> queue_;  // guarded by mutex_
  int callers_ = 0;          // inside Run; guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_
  std::list<Held> models_;   // the device's thread only; the last used first
  std::thread thread_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_INFERENCE_ENGINE_H_
