// Storage SCP: receives instances by C-STORE into a spool (PS3.4 annex B), and answers C-ECHO.
#ifndef GVSL_INGEST_STORAGE_SCP_H_
#define GVSL_INGEST_STORAGE_SCP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ingest/spool.h"

namespace gvsl {

struct StorageScpOptions {
  std::string ae_title = "GVSL";
  int port = 11112;
  // Who may send, by IP address. Loopback always may; others must be named.
  std::vector<std::string> allowed_hosts;
  // Calling AE titles that are accepted; empty: all of an allowed host.
  std::vector<std::string> allowed_ae_titles;
  int max_associations = 32;
  int64_t max_object_bytes = int64_t{4} << 30;
  int64_t min_free_bytes = int64_t{1} << 30;  // less on the spool's disk: out of resources
  int acse_timeout_s = 10;  // a connection that says nothing keeps others waiting for so long
  int dimse_timeout_s = 60;
};

// What happened, for the log: no text of an instance is among it.
struct ScpEvent {
  const char* what;     // "association", "rejected", "instance", "refused"
  std::string peer;     // IP address, AE title
  uint16_t status = 0;  // DIMSE status of an instance
};
using ScpObserver = std::function<void(const ScpEvent& event)>;

// Success (0000H) is answered only when the instance is synced into the spool. Otherwise: A700H out
// of resources (disk, or an object beyond its limit), A900H where the dataset's SOP class or
// instance is not the command's, C000H where the dataset cannot be read or names no study and
// series. All transfer syntaxes that DCMTK knows are taken bit by bit as they come.
class StorageScp {
 public:
  StorageScp(const StorageScpOptions& options, Spool& spool, ScpObserver observer);
  ~StorageScp();
  StorageScp(const StorageScp&) = delete;
  StorageScp& operator=(const StorageScp&) = delete;

  // Serves until Stop; returns a failure (the port is taken) or OK.
  absl::Status Run();
  // From another thread: takes no further association and waits up to `drain_s` for those under
  // way.
  void Drain(int drain_s);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_STORAGE_SCP_H_
