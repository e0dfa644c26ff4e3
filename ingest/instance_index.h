// Which series of a spool may have an instance, found without looking through all of them.
#ifndef GVSL_INGEST_INSTANCE_INDEX_H_
#define GVSL_INGEST_INSTANCE_INDEX_H_

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace gvsl {

// Pairs of an instance's name and a series' key, both the spool's, in an SQLite file. A hint and no
// truth: whoever finds a series here looks into its folder and its ledger. So a pair too many does
// no harm, and pairs are never removed; one must be here before its instance is.
//
// What was added survives a kill of the process, but a stop of the machine only after Sync: whether
// there has been one, freshness tells. Safe for concurrent use.
class InstanceIndex {
 public:
  // Opens the file, or makes it; makes it anew where it is damaged. UNAVAILABLE or
  // RESOURCE_EXHAUSTED where that cannot be done.
  static absl::StatusOr<std::unique_ptr<InstanceIndex>> Open(const std::string& path);
  ~InstanceIndex();
  InstanceIndex(const InstanceIndex&) = delete;
  InstanceIndex& operator=(const InstanceIndex&) = delete;

  enum class Freshness {
    kEmpty,    // never marked as current: it may lack anything
    kBehind,   // the machine was started since: it may lack what was not synced
    kCurrent,  // it lacks nothing
  };
  absl::StatusOr<Freshness> freshness();
  // It has everything now, which is then synced.
  absl::Status MarkCurrent();

  absl::Status Add(const std::string& key, const std::set<std::string>& names);
  // The keys of all series that may have one of the instances.
  absl::StatusOr<std::set<std::string>> Find(const std::set<std::string>& names);
  // What was added is on the disk.
  absl::Status Sync();

 private:
  InstanceIndex(std::string path, sqlite3* database)
      : path_(std::move(path)), database_(database) {}
  absl::Status Run(const char* sql);
  absl::Status Failed() const;

  const std::string path_;
  std::mutex mutex_;
  sqlite3* database_;  // guarded by mutex_
};

}  // namespace gvsl

#endif  // GVSL_INGEST_INSTANCE_INDEX_H_
