// The events of a job's process: read from its file, and told in the job's record.
#ifndef GVSL_SERVER_JOB_EVENTS_H_
#define GVSL_SERVER_JOB_EVENTS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "gvsl/v1/jobs.pb.h"
#include "server/job_store.h"

namespace gvsl {

// Follows an events.jsonl that grows (adr/0006): whole lines alone; one without its newline is no
// event, and may be cut off and written anew. Not thread-safe; holds no file open.
class JobEventReader {
 public:
  explicit JobEventReader(std::string path, int64_t offset = 0)
      : path_(std::move(path)), offset_(offset) {}

  // The next event, or nothing for now. Lines that are none are left out and told in the log.
  std::optional<v1::JobEvent> Next();
  // Byte behind the last event given.
  int64_t offset() const { return offset_; }
  // Goes back to where `offset` said before.
  void Rewind(int64_t offset);

 private:
  bool Fill();

  const std::string path_;
  int64_t offset_;
  std::string block_;  // whole lines of the file from `offset_` on, behind `at_`
  size_t at_ = 0;
};

// Brings a job's record up to an event. Events that it tells of already change nothing.
void Apply(const v1::JobEvent& event, StoredJob& stored);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_EVENTS_H_
