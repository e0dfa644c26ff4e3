// What a person writes about a pre-training job: a `PretrainingSpec` in protobuf's text format, and
// single fields of it by their path.
//
//   auto spec = gvsl::ReadJobSpec("job.textproto");
//   absl::Status status = gvsl::SetJobField("optimization.steps=100", &*spec);
#ifndef GVSL_CLIENT_JOB_SPEC_H_
#define GVSL_CLIENT_JOB_SPEC_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"

namespace gvsl {

// `source` names the text in messages. INVALID_ARGUMENT: the line and the field's path, and what is
// wrong there.
absl::StatusOr<v1::PretrainingSpec> ParseJobSpec(const std::string& text,
                                                 const std::string& source);

// The same from a file. NOT_FOUND if it cannot be read.
absl::StatusOr<v1::PretrainingSpec> ReadJobSpec(const std::string& path);

// Sets one field: `optimization.steps=100`, `optimization.schedule=cosine` (in letters of any
// size), `network.card.spacing_mm=3,3,3` (all values of a repeated field, with commas; they replace
// what was there). Text stands as it is, without quotes. Nothing behind `=` takes the value away,
// so that the default counts. INVALID_ARGUMENT: names the field and what it may be; `spec` is then
// as it was.
absl::Status SetJobField(const std::string& assignment, v1::PretrainingSpec* spec);

}  // namespace gvsl

#endif  // GVSL_CLIENT_JOB_SPEC_H_
