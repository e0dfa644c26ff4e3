#include "ingest/spool_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gvsl {

SpoolWorker::SpoolWorker(const SpoolWorkerOptions& options, Spool& spool,
                         const Pseudonyms& pseudonyms, Client& client, SpoolObserver observer)
    : options_(options),
      spool_(spool),
      pseudonyms_(pseudonyms),
      client_(client),
      observer_(std::move(observer)) {}

void SpoolWorker::Observe(const char* what, const SpoolSeries& series, int64_t volumes,
                          const absl::Status& failure) {
  if (!observer_) return;
  observer_({what, pseudonyms_.Of("spool", series.key), series.instances, volumes,
             absl::StatusCodeToString(failure.code()), std::string(failure.message())});
}

absl::Status SpoolWorker::RunOnce(int64_t now_s) {
  absl::StatusOr<std::vector<SpoolSeries>> all = spool_.List();
  if (!all.ok()) return all.status();
  const bool full = spool_.FreeBytes() < options_.min_free_bytes;
  for (const SpoolSeries& series : *all) {
    const int64_t quiet_s = now_s - series.last_arrival_s;
    if (series.instances == 0 || client_.cancelled()) continue;
    if (series.is_done()) {
      quiet_for_s_.erase(series.key);
      if ((full || quiet_s >= options_.keep_s) && spool_.Remove(series.key, series.digest)) {
        Observe("removed", series, 0, absl::OkStatus());
      }
      continue;
    }
    const auto wait = not_before_s_.find(series.key);
    if (series.is_set_aside() || quiet_s < QuietFor(series) || now_s < series.state.retry_at_s ||
        (wait != not_before_s_.end() && now_s < wait->second)) {
      continue;
    }
    Upload(series, now_s);
  }
  return absl::OkStatus();
}

int64_t SpoolWorker::QuietFor(const SpoolSeries& series) {
  auto& [digest, quiet_s] = quiet_for_s_[series.key];
  if (digest == series.digest) return quiet_s;
  digest = series.digest;
  quiet_s = options_.quiet_s;
  const std::vector<std::string> paths = spool_.InstancesOf(series.key);
  if (paths.empty()) return quiet_s;
  const DicomInstance instance = ReadDicomInstance(paths.front());
  const auto of_sender = options_.quiet_s_by_ae_title.find(instance.source_ae_title);
  if (of_sender != options_.quiet_s_by_ae_title.end()) quiet_s = of_sender->second;
  // Not "at least": a number that is too small would make each further instance a revision.
  if (series.instances == instance.expected_instances) quiet_s = 0;
  return quiet_s;
}

void SpoolWorker::Failed(const absl::Status& failure, bool is_outage, const std::string& digest,
                         int64_t now_s, SpoolState& state) const {
  const auto delay_s = [this](int failures) {
    return std::min(options_.longest_retry_s, options_.first_retry_s << std::min(failures - 1, 16));
  };
  state.error = std::string(failure.message());
  if (is_outage) {
    state.retry_at_s = now_s + delay_s(++state.outages);
    return;
  }
  state.outages = 0;
  if (++state.attempts >= options_.max_attempts) {
    state.set_aside = digest;
    state.attempts = 0;
    state.retry_at_s = 0;  // for the instances that may still come
  } else {
    state.retry_at_s = now_s + delay_s(state.attempts);
  }
}

void SpoolWorker::Upload(const SpoolSeries& series, int64_t now_s) {
  SpoolState state = series.state;
  Ledger ledger;
  std::vector<std::string> series_tags;
  absl::Status failure;
  bool is_outage = false;
  int64_t volumes = 0;
  const auto save = [&] {
    absl::Status status = spool_.SetState(series.key, state);
    if (!status.ok()) {
      // Tried again: the server knows the volumes already.
      not_before_s_[series.key] = now_s + options_.first_retry_s;
      Observe("retry", series, volumes, status);
    }
    return status.ok();
  };
  if (state.under_way == series.digest) {
    failure = absl::AbortedError("gvsl-ingest ended while it made the volumes of this series");
  } else {
    state.under_way = series.digest;
    if (!save()) return;
    std::vector<DicomInstance> instances;
    for (const std::string& path : spool_.InstancesOf(series.key)) {
      instances.push_back(ReadDicomInstance(path));
    }
    state.volumes.clear();
    // One folder is one series; a file that was damaged since makes another of its own.
    for (const Series& part : GroupBySeries(std::move(instances))) {
      const ImportedSeries imported = ImportSeries(part, options_.import, pseudonyms_, &client_);
      if (failure.ok()) {
        failure = FailureOf(imported);
        // A server with a full disk is away, too.
        is_outage =
            EndsUploads(failure) || (imported.status.ok() && absl::IsResourceExhausted(failure));
      }
      ledger.insert(ledger.end(), imported.ledger.begin(), imported.ledger.end());
      for (const ImportedVolume& volume : imported.volumes) {
        if (!volume.status.ok()) continue;
        ++volumes;
        state.volumes.push_back(volume.name);
      }
      if (!imported.volumes.empty()) series_tags.push_back(SeriesTag(part, pseudonyms_));
    }
  }
  state.under_way.clear();
  if (client_.cancelled()) {  // a drain, no failure
    state.volumes = series.state.volumes;
    (void)save();
    return;
  }
  if (failure.ok()) {
    failure = spool_.SetLedger(series.key, ledger);
    is_outage = !failure.ok();
  }
  if (failure.ok()) {
    state.uploaded = series.digest;
    state.set_aside.clear();
    state.error.clear();
    state.attempts = state.outages = 0;
    state.retry_at_s = 0;
    state.verdicts = VerdictCounts(ledger);
    state.unused = std::count_if(ledger.begin(), ledger.end(),
                                 [](const LedgerEntry& entry) { return !entry.is_wholly_used(); });
  } else {
    state.volumes = series.state.volumes;
    Failed(failure, is_outage, series.digest, now_s, state);
  }
  if (!save()) return;
  if (failure.ok() && options_.embed) Embed(series, series_tags);
  Observe(failure.ok()                       ? "uploaded"
          : state.set_aside == series.digest ? "set_aside"
                                             : "retry",
          series, volumes, failure);
}

void SpoolWorker::Embed(const SpoolSeries& series, const std::vector<std::string>& series_tags) {
  for (const std::string& tag : series_tags) {
    v1::BackfillEmbeddingsRequest request;
    request.set_filter(absl::StrCat("tags:\"", tag, "\""));
    const auto done = client_.BackfillEmbeddings(request, nullptr);
    if (done.ok() && done->failed() == 0) continue;
    Observe("not_embedded", series, done.ok() ? done->failed() : 0,
            done.ok() ? absl::UnknownError("the server passed over a volume; its log says why")
                      : done.status());
  }
}

}  // namespace gvsl
