// Prometheus metrics of the receiver.
#ifndef GVSL_INGEST_INGEST_METRICS_H_
#define GVSL_INGEST_INGEST_METRICS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ingest/spool.h"
#include "ingest/spool_worker.h"
#include "ingest/storage_scp.h"

namespace gvsl {

// Counts what happens, and looks at the spool when it is asked: gvsl_ingest_* in Prometheus' text
// format at http://LISTEN/metrics. No label tells a patient, a series or a peer. Safe for
// concurrent use.
class IngestMetrics {
 public:
  // Counts, and with `listen` ("HOST:PORT") serves the counts, too. UNAVAILABLE where the port
  // cannot be opened. `spool` outlives it.
  static absl::StatusOr<std::unique_ptr<IngestMetrics>> Make(const std::string& listen,
                                                             const Spool& spool);
  ~IngestMetrics();

  void Count(const ScpEvent& event);
  void Count(const CommitmentEvent& event);
  void Count(const SpoolEvent& event);
  void CountInbox(bool kept);

 private:
  struct Impl;
  explicit IngestMetrics(const Spool& spool);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_INGEST_METRICS_H_
