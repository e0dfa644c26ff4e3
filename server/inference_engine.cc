#include "server/inference_engine.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/guarded.h"

namespace gvsl {
namespace {

// How often a waiting caller looks whether its client has gone.
constexpr auto kCancelPoll = std::chrono::milliseconds(50);
constexpr char kGone[] = "the call was cancelled, or its deadline passed, before its turn came";

}  // namespace

InferenceEngine::InferenceEngine(const Options& options)
    : options_(options), thread_([this] { Loop(); }) {}

InferenceEngine::~InferenceEngine() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return callers_ == 0; });
}

int InferenceEngine::queue_length() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int>(queue_.size());
}

absl::Status InferenceEngine::Run(const std::string& path, const CancelFunction& cancelled,
                                  const std::function<absl::Status(Extractor&)>& work,
                                  bool admitted) {
  Item item{path, &cancelled, &work, false, absl::OkStatus()};
  std::unique_lock<std::mutex> lock(mutex_);
  if (stopping_) return absl::UnavailableError("the server is stopping");
  if (!admitted && static_cast<int>(queue_.size()) >= options_.queue_capacity) {
    return WithReason(absl::ResourceExhaustedError(
                          absl::StrCat("the network's queue is full (", options_.queue_capacity,
                                       " requests wait); try again in a moment")),
                      "QUEUE_FULL");
  }
  queue_.push_back(&item);
  ++callers_;
  changed_.notify_all();
  while (!item.done) {
    changed_.wait_for(lock, kCancelPoll);
    const auto waiting = std::find(queue_.begin(), queue_.end(), &item);
    if (waiting != queue_.end() && cancelled && cancelled()) {
      queue_.erase(waiting);
      item.done = true;
      item.status = absl::CancelledError(kGone);
    }
  }
  --callers_;
  changed_.notify_all();
  return item.status;
}

void InferenceEngine::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) break;
    Item* item = queue_.front();
    queue_.pop_front();
    lock.unlock();
    absl::Status status = Do(*item);
    lock.lock();
    item->status = std::move(status);
    item->done = true;
    changed_.notify_all();
  }
  for (Item* item : queue_) {
    item->status = absl::UnavailableError("the server is stopping");
    item->done = true;
  }
  queue_.clear();
  changed_.notify_all();
}

absl::Status InferenceEngine::Do(const Item& item) {
  if (*item.cancelled && (*item.cancelled)()) {
    return absl::CancelledError(kGone);
  }
  // What throws costs one request; the device's thread goes on.
  return Guarded([&]() -> absl::Status {
    auto model = Model(item.path);
    if (!model.ok()) return WithReason(model.status(), kModelNotLoaded);
    return (*item.work)(**model);
  });
}

absl::StatusOr<Extractor*> InferenceEngine::Model(const std::string& path) {
  const auto held =
      std::find_if(models_.begin(), models_.end(), [&](const Held& h) { return h.path == path; });
  if (held != models_.end()) {
    models_.splice(models_.begin(), models_, held);
    return models_.front().extractor.get();
  }
  auto extractor = Extractor::Load(path, options_.device);
  if (!extractor.ok()) return extractor.status();
  models_.push_front({path, *std::move(extractor)});
  int64_t total = 0;
  for (auto it = models_.begin(); it != models_.end();) {
    total += it->extractor->memory_bytes();
    it = total > options_.model_cache_bytes && it != models_.begin() ? models_.erase(it)
                                                                     : std::next(it);
  }
  return models_.front().extractor.get();
}

}  // namespace gvsl
