#include "ingest/spool_worker.h"

#include <algorithm>
#include <cmath>
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
                          const std::string& error) {
  if (observer_) {
    observer_({what, pseudonyms_.Of("spool", series.key), series.instances, volumes, error});
  }
}

absl::Status SpoolWorker::RunOnce(int64_t now_s) {
  absl::StatusOr<std::vector<SpoolSeries>> all = spool_.List();
  if (!all.ok()) return all.status();
  for (const SpoolSeries& series : *all) {
    const int64_t quiet_s = now_s - series.last_arrival_s;
    if (series.instances == 0 || client_.cancelled()) continue;
    if (series.is_done()) {
      if (quiet_s >= options_.keep_s) {
        spool_.Remove(series.key, series.digest);
        Observe("removed", series, 0, "");
      }
      continue;
    }
    if (series.is_set_aside() || quiet_s < options_.quiet_s || now_s < series.state.retry_at_s) {
      continue;
    }
    Upload(series, now_s);
  }
  return absl::OkStatus();
}

void SpoolWorker::Upload(const SpoolSeries& series, int64_t now_s) {
  std::vector<DicomInstance> instances;
  for (const std::string& path : spool_.InstancesOf(series.key)) {
    instances.push_back(ReadDicomInstance(path));
  }
  SpoolState state = series.state;
  absl::Status failure;
  int64_t volumes = 0;
  std::vector<std::string> names;
  Ledger ledger;
  // One folder is one series; a file that was damaged since makes another of its own.
  for (const Series& part : GroupBySeries(std::move(instances))) {
    const ImportedSeries imported = ImportSeries(part, options_.import, pseudonyms_, &client_);
    if (failure.ok()) failure = FailureOf(imported);
    ledger.insert(ledger.end(), imported.ledger.begin(), imported.ledger.end());
    for (const ImportedVolume& volume : imported.volumes) {
      if (!volume.status.ok()) continue;
      ++volumes;
      names.push_back(volume.name);
    }
  }
  const auto delay_s = [this](int failures) {
    return std::min(options_.longest_retry_s, options_.first_retry_s << std::min(failures - 1, 16));
  };
  if (failure.ok()) {
    state = SpoolState{};
    state.uploaded = series.digest;
    state.volumes = std::move(names);
    state.verdicts = VerdictCounts(ledger);
  } else if (EndsUploads(failure)) {
    state.error = std::string(failure.message());
    state.retry_at_s = now_s + delay_s(++state.outages);
  } else {
    state.error = std::string(failure.message());
    state.outages = 0;
    if (++state.attempts >= options_.max_attempts) {
      state.set_aside = series.digest;
      state.attempts = 0;
    } else {
      state.retry_at_s = now_s + delay_s(state.attempts);
    }
  }
  if (client_.cancelled()) return;  // a drain, no failure
  absl::Status status;
  if (failure.ok()) status = spool_.SetLedger(series.key, ledger);
  if (status.ok()) status = spool_.SetState(series.key, state);
  if (!status.ok()) {
    // Tried again: the server knows the volumes already.
    Observe("retry", series, volumes, std::string(status.message()));
    return;
  }
  const char* what = failure.ok()                       ? "uploaded"
                     : state.set_aside == series.digest ? "set_aside"
                                                        : "retry";
  Observe(what, series, volumes, state.error);
}

}  // namespace gvsl
