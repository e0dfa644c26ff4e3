// The spool: instances that were received, on disk until their volumes are safe on the server.
//
//   DIR/incoming/             instances on their way in; never answered for yet
//   DIR/series/KEY/instances/ what was answered for with success, a file each
//   DIR/series/KEY/state.json what became of the series
//   DIR/series/KEY/committed  there once Storage Commitment was given for one of its instances
//   DIR/ledgers/KEY.json      what became of each of its instances; stays when the series goes
//   DIR/commitments/          reports of Storage Commitment that were not delivered yet
//
// KEY is a hash of study and series UID. Everything that matters is in the file system, so that a
// process killed at any point goes on where it was.
#ifndef GVSL_INGEST_SPOOL_H_
#define GVSL_INGEST_SPOOL_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ingest/ledger.h"

namespace gvsl {

// What became of a series.
struct SpoolState {
  std::string uploaded;   // digest of the instances whose volumes are on the server
  std::string set_aside;  // digest of the instances that are not tried again
  // Digest of the instances whose volumes are being made: found by a new process, the one before
  // died of them, or while at them.
  std::string under_way;
  int attempts = 0;                  // failures in a row, of the series itself
  int outages = 0;                   // failures in a row, of the server
  int64_t retry_at_s = 0;            // seconds since 1970; not before
  std::string error;                 // of the last try
  std::vector<std::string> volumes;  // on the server, of the last success
  std::string verdicts;              // of its instances then: "30 USED, 1 LOCALIZER"
  int64_t unused = 0;                // of its instances then, those not wholly in volumes
};

struct SpoolSeries {
  std::string key;
  int64_t instances = 0;
  std::string digest;  // of the instances' names, which are hashes of their content
  int64_t last_arrival_s = 0;
  bool is_committed = false;
  SpoolState state;

  bool is_done() const { return state.uploaded == digest; }
  bool is_set_aside() const { return state.set_aside == digest; }
};

// Instances by SOP Instance UID: the SOP class, and their files in the spool; no file of those that
// are in a volume alone.
struct SafeInstance {
  std::string sop_class_uid;  // empty where the files must be asked
  std::vector<std::string> paths;
};
using SafeInstances = std::map<std::string, SafeInstance>;

// "waiting", "retrying", "set_aside" or "uploaded".
const char* SpoolStateName(const SpoolSeries& series);

// Safe for concurrent use.
class Spool {
 public:
  // Makes the folders and takes the spool's lock. What an earlier process was receiving when it
  // died was never answered for, and is removed. FAILED_PRECONDITION where another process has the
  // spool, UNAVAILABLE where it cannot be made.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& directory);
  // For looking at alone: takes no lock, changes nothing.
  static Spool ForReading(const std::string& directory) { return Spool(directory, -1); }
  ~Spool();

  // A new name to receive an instance under.
  std::string IncomingPath();
  // Takes a received file in: synced, renamed, and its folders synced. The same instance with the
  // same content from `content_offset` (bytes) on is one file: what stands before tells how it
  // came, not what it is. Once this is OK the instance survives any crash. RESOURCE_EXHAUSTED where
  // the disk is full; the incoming file is then gone.
  absl::Status Keep(const std::string& incoming_path, int64_t content_offset,
                    const std::string& study_instance_uid, const std::string& series_instance_uid,
                    const std::string& sop_instance_uid);

  // Those of the instances that are safe: in the spool, synced, or in a volume that the server has
  // confirmed. Their series in the spool are committed from now on: these are not removed before
  // each of their instances is in volumes wholly. Looks through all names in the spool, and through
  // the ledgers for what is not there. UNAVAILABLE or RESOURCE_EXHAUSTED where that cannot be
  // written.
  absl::StatusOr<SafeInstances> Commit(const std::set<std::string>& sop_instance_uids);
  std::string CommitmentsFolder() const { return directory_ + "/commitments"; }

  // Bytes that the spool's disk can still take.
  int64_t FreeBytes() const;

  // All series, by key. Series whose state cannot be read have it empty: they are done again. Reads
  // anew only what changed since the last call.
  absl::StatusOr<std::vector<SpoolSeries>> List() const;
  std::vector<std::string> InstancesOf(const std::string& key) const;  // paths, sorted
  absl::Status SetState(const std::string& key, const SpoolState& state);
  // Writes what became of a series' instances; those of earlier ones that have left the spool stay.
  absl::Status SetLedger(const std::string& key, const Ledger& ledger);
  // Removes a series; false if it could not, or an instance came that `digest` does not count, or
  // it is committed and not all of its instances are in volumes.
  bool Remove(const std::string& key, const std::string& digest);

 private:
  Spool(std::string directory, int lock) : directory_(std::move(directory)), lock_(lock) {}
  // A series as it was when its folders had these times of change, in nanoseconds.
  struct Seen {
    int64_t folder_time_ns = -1, instances_time_ns = -1;
    SpoolSeries series;
  };

  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;
  SpoolSeries Read(const std::string& key) const;

  const std::string directory_;
  const int lock_;
  std::atomic<uint64_t> next_{0};
  // Instances come into series' folders, and whole folders go, one at a time.
  mutable std::mutex folders_;
  mutable std::mutex seen_mutex_;
  mutable std::map<std::string, Seen> seen_;  // guarded by seen_mutex_
};

}  // namespace gvsl

#endif  // GVSL_INGEST_SPOOL_H_
