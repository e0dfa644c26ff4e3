// From the spool to the server: finds series that are complete, makes their volumes and uploads
// them, and goes on until they are there.
#ifndef GVSL_INGEST_SPOOL_WORKER_H_
#define GVSL_INGEST_SPOOL_WORKER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/client.h"
#include "ingest/importer.h"
#include "ingest/pseudonym.h"
#include "ingest/spool.h"

namespace gvsl {

struct SpoolWorkerOptions {
  ImportOptions import;  // without paths
  int64_t quiet_s = 30;  // a series is complete when nothing came for so long
  std::map<std::string, int64_t> quiet_s_by_ae_title;  // of these senders, instead
  int64_t keep_s = 7 * 24 * 3600;  // what is on the server stays for late slices
  int max_attempts = 5;            // failures of the series itself, before it is set aside
  int64_t first_retry_s = 5, longest_retry_s = 300;  // doubled from one to the other
  int64_t min_free_bytes = 0;  // with less on the disk, what is on the server stays no longer
  bool embed = false;          // volumes are embedded for searching as soon as they are uploaded
};

// For the log: `series` is a pseudonym, `error` a message without a text of the files.
struct SpoolEvent {
  const char* what;  // "uploaded", "retry", "set_aside", "removed", "not_embedded"
  std::string series;
  int64_t instances = 0, volumes = 0;
  std::string reason;  // a failure's canonical code ("INVALID_ARGUMENT"), "OK" without one
  std::string error;
};
using SpoolObserver = std::function<void(const SpoolEvent& event)>;

// One thread uses it. The spool's state is written before and after each series, so that a worker
// killed at any point is followed by one that does at most one series again, under the same request
// ids; and a series that kills it counts as one that failed.
class SpoolWorker {
 public:
  SpoolWorker(const SpoolWorkerOptions& options, Spool& spool, const Pseudonyms& pseudonyms,
              Client& client, SpoolObserver observer);

  // Looks at every series once at the time `now_s` (seconds since 1970), and does what is due:
  // complete series are uploaded: those that were quiet long enough, and those that have as many
  // instances as one of them says that they should have, exactly; late instances make their series
  // due again, as a new revision; a server that is away is tried again later, without end; a series
  // that fails by itself max_attempts times is set aside until an instance of it comes. UNAVAILABLE
  // where the spool cannot be read.
  absl::Status RunOnce(int64_t now_s);

 private:
  // How long a series must have been quiet to count as complete, by what one of its instances says.
  int64_t QuietFor(const SpoolSeries& series);
  void Upload(const SpoolSeries& series, int64_t now_s);
  // Puts a failure of the series or of the server into its state, which says when to try again.
  void Failed(const absl::Status& failure, bool is_outage, const std::string& digest, int64_t now_s,
              SpoolState& state) const;
  void Embed(const SpoolSeries& series, const std::vector<std::string>& series_tags);
  void Observe(const char* what, const SpoolSeries& series, int64_t volumes,
               const absl::Status& failure);

  const SpoolWorkerOptions options_;
  Spool& spool_;
  const Pseudonyms& pseudonyms_;
  Client& client_;
  const SpoolObserver observer_;
  // QuietFor of series on their way, with the digest it was found for. By key.
  std::map<std::string, std::pair<std::string, int64_t>> quiet_for_s_;
  // Series whose state could not be written: not before this time. By key.
  std::map<std::string, int64_t> not_before_s_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_SPOOL_WORKER_H_
