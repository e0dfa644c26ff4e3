// The spool: instances that were received, on disk until their volumes are safe on the server.
//
//   DIR/incoming/             instances on their way in; never answered for yet
//   DIR/series/KEY/instances/ what was answered for with success, a file each
//   DIR/series/KEY/state.json what became of the series
//   DIR/ledgers/KEY.json      what became of each of its instances; stays when the series goes
//
// KEY is a hash of study and series UID. Everything that matters is in the file system, so that a
// process killed at any point goes on where it was.
#ifndef GVSL_INGEST_SPOOL_H_
#define GVSL_INGEST_SPOOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ingest/ledger.h"

namespace gvsl {

// What became of a series.
struct SpoolState {
  std::string uploaded;              // digest of the instances whose volumes are on the server
  std::string set_aside;             // digest of the instances that are not tried again
  int attempts = 0;                  // failures in a row, of the series itself
  int outages = 0;                   // failures in a row, of the server
  int64_t retry_at_s = 0;            // seconds since 1970; not before
  std::string error;                 // of the last try
  std::vector<std::string> volumes;  // on the server, of the last success
  std::string verdicts;              // of its instances then: "30 USED, 1 LOCALIZER"
};

struct SpoolSeries {
  std::string key;
  int64_t instances = 0;
  std::string digest;  // of the instances' names, which are hashes of their content
  int64_t last_arrival_s = 0;
  SpoolState state;

  bool is_done() const { return state.uploaded == digest; }
  bool is_set_aside() const { return state.set_aside == digest; }
};

// Safe for concurrent use.
class Spool {
 public:
  // Makes the folders and takes the spool's lock. What an earlier process was receiving when it
  // died was never answered for, and is removed. FAILED_PRECONDITION where another process has the
  // spool, UNAVAILABLE where it cannot be made.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& directory);
  // For looking at alone: takes no lock, changes nothing.
  static Spool ForReading(const std::string& directory) { return Spool(directory, -1); }
  Spool(Spool&& other) noexcept;
  ~Spool();

  // A new name to receive an instance under.
  std::string IncomingPath();
  // Takes a received file in: synced, renamed, and its folders synced. The same instance with the
  // same content again is one file. Once this is OK the instance survives any crash.
  // RESOURCE_EXHAUSTED where the disk is full; the incoming file is then gone.
  absl::Status Keep(const std::string& incoming_path, const std::string& study_instance_uid,
                    const std::string& series_instance_uid, const std::string& sop_instance_uid);

  // All series, by key. Series whose state cannot be read have it empty: they are done again.
  absl::StatusOr<std::vector<SpoolSeries>> List() const;
  std::vector<std::string> InstancesOf(const std::string& key) const;  // paths, sorted
  absl::Status SetState(const std::string& key, const SpoolState& state);
  absl::Status SetLedger(const std::string& key, const Ledger& ledger);
  // Removes a series, unless an instance came that `digest` does not count.
  void Remove(const std::string& key, const std::string& digest);

 private:
  Spool(std::string directory, int lock) : directory_(std::move(directory)), lock_(lock) {}
  SpoolSeries Read(const std::string& key) const;

  std::string directory_;
  int lock_;
  std::atomic<uint64_t> next_{0};
};

}  // namespace gvsl

#endif  // GVSL_INGEST_SPOOL_H_
