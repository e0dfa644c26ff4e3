#include "ingest/ingest_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <exception>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gvsl {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;

// What is in the spool at the moment of a scrape.
class SpoolCollector : public prometheus::Collectable {
 public:
  explicit SpoolCollector(const Spool& spool) : spool_(spool) {}

  std::vector<MetricFamily> Collect() const override {
    std::map<std::string, double> series = {
        {"waiting", 0}, {"retrying", 0}, {"set_aside", 0}, {"uploaded", 0}};
    double waiting_instances = 0;
    int64_t oldest_s = 0;
    const int64_t now_s = std::time(nullptr);
    if (const auto all = spool_.List(); all.ok()) {
      for (const SpoolSeries& one : *all) {
        ++series[SpoolStateName(one)];
        if (one.is_done() || one.is_set_aside()) continue;
        waiting_instances += static_cast<double>(one.instances);
        oldest_s = std::max(oldest_s, now_s - one.last_arrival_s);
      }
    }
    MetricFamily by_state = Gauge("gvsl_ingest_spool_series", "Series in the spool, by state");
    for (const auto& [state, count] : series) Add(by_state, count, state);
    MetricFamily waiting = Gauge("gvsl_ingest_spool_waiting_instances",
                                 "Instances whose volumes are not on the server yet");
    Add(waiting, waiting_instances);
    MetricFamily age = Gauge("gvsl_ingest_spool_oldest_waiting_seconds",
                             "Since the last instance of the series that has waited longest");
    Add(age, static_cast<double>(oldest_s));
    MetricFamily free = Gauge("gvsl_ingest_spool_free_bytes", "Free on the spool's disk");
    Add(free, static_cast<double>(spool_.FreeBytes()));
    return {by_state, waiting, age, free};
  }

 private:
  static MetricFamily Gauge(const char* name, const char* help) {
    MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = prometheus::MetricType::Gauge;
    return family;
  }
  static void Add(MetricFamily& family, double value, const std::string& state = "") {
    ClientMetric metric;
    metric.gauge.value = value;
    if (!state.empty()) metric.label.push_back({"state", state});
    family.metric.push_back(metric);
  }

  const Spool& spool_;
};

}  // namespace

struct IngestMetrics::Impl {
  using Counters = prometheus::Family<prometheus::Counter>;

  explicit Impl(const Spool& spool) : spool_collector(std::make_shared<SpoolCollector>(spool)) {}
  Counters& Family(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  }

  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::shared_ptr<SpoolCollector> spool_collector;
  Counters& associations = Family("gvsl_ingest_associations_total", "Associations, by result");
  Counters& instances =
      Family("gvsl_ingest_instances_total", "C-STORE requests, by the DIMSE status they got");
  Counters& bytes = Family("gvsl_ingest_received_bytes_total", "Of datasets that were kept");
  Counters& inbox = Family("gvsl_ingest_inbox_files_total", "Files of the inbox, by result");
  Counters& series =
      Family("gvsl_ingest_series_total", "What became of complete series, by result and reason");
  Counters& commitments =
      Family("gvsl_ingest_commitments_total", "Requests for Storage Commitment, by what happened");
  Counters& volumes = Family("gvsl_ingest_volumes_total", "Volumes uploaded");
  std::unique_ptr<prometheus::Exposer> exposer;
};

IngestMetrics::IngestMetrics(const Spool& spool) : impl_(std::make_unique<Impl>(spool)) {}
IngestMetrics::~IngestMetrics() = default;

absl::StatusOr<std::unique_ptr<IngestMetrics>> IngestMetrics::Make(const std::string& listen,
                                                                   const Spool& spool) {
  std::unique_ptr<IngestMetrics> metrics(new IngestMetrics(spool));
  if (listen.empty()) return metrics;
  try {
    metrics->impl_->exposer = std::make_unique<prometheus::Exposer>(listen);
  } catch (const std::exception& failure) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics at ", listen, ": ", failure.what()));
  }
  metrics->impl_->exposer->RegisterCollectable(metrics->impl_->registry);
  metrics->impl_->exposer->RegisterCollectable(metrics->impl_->spool_collector);
  return metrics;
}

void IngestMetrics::Count(const ScpEvent& event) {
  if (event.kind == ScpEvent::Kind::kInstance) {
    impl_->instances.Add({{"status", absl::StrFormat("%04X", event.status)}}).Increment();
    impl_->bytes.Add({}).Increment(static_cast<double>(event.bytes));
  } else {
    impl_->associations
        .Add({{"result", event.kind == ScpEvent::Kind::kAccepted ? "accepted" : "rejected"}})
        .Increment();
  }
}

void IngestMetrics::Count(const CommitmentEvent& event) {
  impl_->commitments.Add({{"event", event.what}}).Increment();
}

void IngestMetrics::Count(const SpoolEvent& event) {
  impl_->series.Add({{"result", event.what}, {"reason", event.reason}}).Increment();
  if (std::strcmp(event.what, "uploaded") == 0) {
    impl_->volumes.Add({}).Increment(static_cast<double>(event.volumes));
  }
}

void IngestMetrics::CountInbox(bool kept) {
  impl_->inbox.Add({{"result", kept ? "kept" : "refused"}}).Increment();
}

}  // namespace gvsl
