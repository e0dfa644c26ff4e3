// Delivers reports of Storage Commitment on associations of our own (PS3.4 section J.3.3).
#ifndef GVSL_INGEST_COMMITMENT_REPORTER_H_
#define GVSL_INGEST_COMMITMENT_REPORTER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ingest/dicom_peer.h"
#include "ingest/dicom_tls.h"
#include "ingest/storage_commitment.h"

namespace gvsl {

struct CommitmentReporterOptions {
  std::string ae_title = "GVSL";  // ours
  std::vector<DicomPeer> peers;   // who may be reported to, and where
  DicomTlsOptions tls;
  int acse_timeout_s = 10, dimse_timeout_s = 10;
  int64_t first_retry_s = 5, longest_retry_s = 3600;  // doubled from one to the other
  int max_attempts = 40;                              // which take 32 hours
};

// One thread uses it, beside the associations that report for themselves.
class CommitmentReporter {
 public:
  CommitmentReporter(const CommitmentReporterOptions& options, CommitmentQueue& queue,
                     CommitmentObserver observer)
      : options_(options), queue_(queue), observer_(std::move(observer)) {}

  // Tries once to deliver each report that is due at the time `now_s` (seconds since 1970) and that
  // no association is about to deliver. One that fails max_attempts times is given up: who asked
  // keeps its instances, and may ask again.
  void RunOnce(int64_t now_s);

 private:
  void Try(const std::string& name, CommitmentReport report, int64_t now_s);
  absl::Status Deliver(const CommitmentReport& report) const;

  const CommitmentReporterOptions options_;
  CommitmentQueue& queue_;
  const CommitmentObserver observer_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_COMMITMENT_REPORTER_H_
