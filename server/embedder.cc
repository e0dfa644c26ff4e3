#include "server/embedder.h"

#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/engine_call.h"
#include "server/log.h"
#include "server/volume_conversion.h"

namespace gvsl {
namespace {

constexpr int kPage = 256;                        // names read at once
constexpr size_t kMostAdded = 4096;               // new volumes remembered; more are looked up
constexpr auto kLook = std::chrono::seconds(1);   // at which model is the default one
constexpr auto kPause = std::chrono::seconds(2);  // after what stops all, as a full queue does

// Whether what stopped one volume would stop every other one, too.
bool ConcernsAll(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsCancelled(status) || absl::IsUnavailable(status) || absl::IsInternal(status) ||
         absl::IsDeadlineExceeded(status) || reason == "DISK_FULL" || reason == "QUEUE_FULL" ||
         reason == "MODEL_NOT_FOUND";
}

absl::Status EmbedOne(ServerState& state, const StoredModel& model, const std::string& name,
                      const CancelFunction& cancelled, bool admitted,
                      const PassedFunction& passed) {
  auto stored = state.metadata->GetVolume(name);
  if (absl::IsNotFound(stored.status())) return passed(name, absl::OkStatus());  // deleted since
  if (!stored.ok()) return stored.status();
  if (KindOf(stored->volume) == VolumeKind::kLabels) return absl::OkStatus();
  absl::Status status = EmbeddingOf(state, model, *stored, cancelled, admitted).status();
  if (ConcernsAll(status)) return status;
  return passed(name, absl::IsNotFound(status) ? absl::OkStatus() : status);
}

}  // namespace

absl::StatusOr<std::vector<float>> EmbeddingOf(ServerState& state, const StoredModel& model,
                                               const StoredVolume& stored,
                                               const CancelFunction& cancelled, bool admitted) {
  const std::string& fingerprint = model.model.identity().fingerprint();
  const std::string& name = stored.volume.name();
  auto kept = state.embeddings->store().Find(fingerprint, name);
  if (!kept.ok()) return kept.status();
  if (kept->has_value()) return std::move((*kept)->values);
  auto volume = state.MapVolume(stored);
  if (!volume.ok()) return volume.status();
  std::vector<float> values;
  WindowOptions window;
  window.memory_bytes = state.memory_bytes();
  absl::Status status = OnEngine(
      state, model, window, cancelled,
      [&](Extractor& extractor) -> absl::Status {
        auto global = extractor.Global(*volume, window, cancelled);
        if (global.ok()) values = *std::move(global);
        return global.status();
      },
      admitted);
  if (!status.ok()) return status;
  const double length =
      std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
  if (!std::isfinite(length) || length == 0) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(name, ": the network's global vector is ",
                                                   length == 0 ? "zero" : "not finite",
                                                   "; nothing can be compared with it")),
        "NO_DIRECTION");
  }
  for (float& value : values) value = static_cast<float>(value / length);
  if (absl::Status added = state.embeddings->Add(fingerprint, name, values); !added.ok())
    return added;
  return values;
}

absl::Status EmbedMissing(ServerState& state, const StoredModel& model, const std::string& filter,
                          const CancelFunction& cancelled, const PassedFunction& passed) {
  std::string last;
  bool admitted = false;
  while (true) {
    auto names = state.embeddings->store().Missing(model.model.identity().fingerprint(), filter,
                                                   last, kPage);
    if (!names.ok()) return names.status();
    if (names->empty()) return absl::OkStatus();
    for (const std::string& name : *names) {
      if (cancelled()) return absl::CancelledError("cancelled between two volumes");
      absl::Status status = EmbedOne(state, model, name, cancelled, admitted, passed);
      if (!status.ok()) return status;
      admitted = true;
      last = name;
    }
  }
}

AutoEmbedder::AutoEmbedder(ServerState& state) : state_(state), thread_([this] { Run(); }) {}

AutoEmbedder::~AutoEmbedder() { Stop(); }

void AutoEmbedder::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void AutoEmbedder::Added(const std::string& volume) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (added_.size() < kMostAdded) {
    added_.push_back(volume);
  } else {
    missed_ = true;
  }
  changed_.notify_all();
}

bool AutoEmbedder::stopping() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stopping_;
}

std::string AutoEmbedder::Next() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, kLook, [this] { return stopping_ || !added_.empty(); });
  if (stopping_ || added_.empty()) return "";
  std::string name = std::move(added_.front());
  added_.pop_front();
  return name;
}

bool AutoEmbedder::TakeMissed() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(missed_, false);
}

void AutoEmbedder::Run() {
  const CancelFunction stopped = [this] { return stopping(); };
  const PassedFunction tell = [](const std::string& name, const absl::Status& status) {
    if (!status.ok())
      LogError(absl::StrCat("auto_embed: ", name, ": ", std::string(status.message())));
    return absl::OkStatus();
  };
  std::string complete_for;  // the fingerprint by which nothing is missing but what comes
  while (!stopping()) {
    const std::string name = Next();
    auto model = state_.metadata->GetModel("models/default");
    if (!model.ok() || TakeMissed()) complete_for.clear();
    if (!model.ok()) continue;
    const std::string& fingerprint = model->model.identity().fingerprint();
    absl::Status status;
    if (complete_for != fingerprint) {
      status = EmbedMissing(state_, *model, "", stopped, tell);
    } else if (!name.empty()) {
      status = EmbedOne(state_, *model, name, stopped, false, tell);
    }
    complete_for = status.ok() ? fingerprint : "";
    if (status.ok() || stopping()) continue;
    if (ReasonOf(status) != "QUEUE_FULL") (void)tell("stopped for now", status);
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kPause, [this] { return stopping_; });
  }
}

}  // namespace gvsl
