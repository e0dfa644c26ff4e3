// The inbox: a folder whose files go into the spool.
#ifndef GVSL_INGEST_INBOX_H_
#define GVSL_INGEST_INBOX_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "ingest/spool.h"

namespace gvsl {

// Told of each file that was taken, and why it was refused (OK: it is in the spool). No message
// names the file, as its name may be the patient's.
using InboxObserver = std::function<void(const absl::Status& status)>;

// One thread uses it.
class Inbox {
 public:
  // Files below `directory` that nobody has written for `settle_s` seconds are taken. What is
  // hidden (".part" of rsync, ...) is left alone.
  Inbox(const std::string& directory, int64_t settle_s, int64_t max_object_bytes, Spool& spool,
        InboxObserver observer)
      : directory_(directory),
        settle_s_(settle_s),
        max_object_bytes_(max_object_bytes),
        spool_(spool),
        observer_(std::move(observer)) {}

  // Looks once, at the time `now_s` (seconds since 1970): a DICOM file goes into the spool, safe on
  // the disk, and is then deleted here; any other one, and too large a one, is moved to `.refused`
  // in the inbox. With less than `min_free_bytes` on the spool's disk files wait. UNAVAILABLE where
  // the inbox cannot be read, RESOURCE_EXHAUSTED where the spool is full; no file is lost either
  // way.
  absl::Status RunOnce(int64_t now_s, int64_t min_free_bytes);

 private:
  absl::Status Take(const std::string& path);

  const std::string directory_;
  const int64_t settle_s_, max_object_bytes_;
  Spool& spool_;
  const InboxObserver observer_;
};

}  // namespace gvsl

#endif  // GVSL_INGEST_INBOX_H_
