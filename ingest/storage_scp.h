// Storage SCP: receives instances by C-STORE into a spool (PS3.4 annex B), answers C-ECHO, and
// commits to what it has (Storage Commitment, PS3.4 annex J).
#ifndef GVSL_INGEST_STORAGE_SCP_H_
#define GVSL_INGEST_STORAGE_SCP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ingest/dicom_tls.h"
#include "ingest/spool.h"
#include "ingest/storage_commitment.h"

namespace gvsl {

struct StorageScpOptions {
  std::string ae_title = "GVSL";
  int port = 11112;
  // Who may send, by IP address. Loopback always may; others must be named.
  std::vector<std::string> allowed_hosts;
  // Calling AE titles that are accepted; empty: all of an allowed host.
  std::vector<std::string> allowed_ae_titles;
  DicomTlsOptions tls;
  int max_associations = 32;
  int max_pdu_bytes = 131072;
  int64_t max_object_bytes = int64_t{4} << 30;
  int64_t min_free_bytes = int64_t{1} << 30;  // less on the spool's disk: out of resources
  int acse_timeout_s = 10;
  int dimse_timeout_s = 60;  // of silence within an association, which then ends
};

// What happened, for the log and the metrics: no text of an instance is among it.
struct ScpEvent {
  enum class Kind { kAccepted, kRejected, kInstance } kind;
  std::string peer;     // of an association: IP address and AE title, or what it was rejected for
  uint16_t status = 0;  // of an instance: DIMSE status
  int64_t bytes = 0;    // of an instance that was kept
};
using ScpObserver = std::function<void(const ScpEvent& event)>;

// Success (0000H) is answered only when the instance is synced into the spool. Otherwise: A700H out
// of resources (disk, or an object beyond its limit), A900H where the dataset's SOP class or
// instance is not the command's, C000H where the dataset cannot be read or names no study and
// series. All transfer syntaxes that DCMTK knows are taken bit by bit as they come.
//
// N-ACTION asks for commitment. The answer is success once the report is in the queue: 0112H, 0123H
// or 0115H for another object, action or dataset than PS3.4 J.3.2 has; 0213H out of resources.
// A requester that then stays silent for 2 s gets the report on the same association; otherwise it
// is left to a CommitmentReporter.
//
// Each association has a thread. Some more threads wait for requests, so that connections that say
// nothing (a port scanner's) do not keep others waiting until as many are open at once. One thread
// starts and stops it; the observer is called from many.
class StorageScp {
 public:
  StorageScp(const StorageScpOptions& options, Spool& spool, CommitmentQueue& commitments,
             ScpObserver observer, CommitmentObserver commitment_observer);
  // Stopped before.
  ~StorageScp();
  StorageScp(const StorageScp&) = delete;
  StorageScp& operator=(const StorageScp&) = delete;

  // Opens the port. UNAVAILABLE where it is taken; INVALID_ARGUMENT where a TLS file is wrong.
  absl::Status Start();
  // Takes no further association and waits up to `drain_s` seconds for those under way; false if
  // one of them outlasts it: its thread is then still there, and the process should end.
  bool Stop(int drain_s);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_STORAGE_SCP_H_
