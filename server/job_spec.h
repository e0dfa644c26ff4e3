// A job as asked for, made whole: every default filled in, every wrong field told, names resolved.
#ifndef GVSL_SERVER_JOB_SPEC_H_
#define GVSL_SERVER_JOB_SPEC_H_

#include <optional>

#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"
#include "model/card.h"
#include "server/job_data.h"
#include "server/metadata_store.h"
#include "server/violations.h"

namespace gvsl {

// What a complete job needs of the server.
struct ResolvedJob {
  v1::PretrainingSpec spec;  // complete
  JobData data;
  ModelCard card;             // of the network: the initial model's, or the spec's
  std::string initial_model;  // `models/{id}`; empty for random weights
};

// Of `job`, display_name and spec are read. INVALID_ARGUMENT tells every wrong field.
// `cuda_devices`: as JobCapacity's.
absl::StatusOr<ResolvedJob> ResolveJob(const v1::Job& job, MetadataStore& metadata,
                                       int cuda_devices);

// The part without names: defaults and ranges, told below `job.spec.`; `crop` and the card as the
// initial model's where there is one.
void CompleteSpec(const ModelCard& card, int cuda_devices, v1::PretrainingSpec& spec,
                  Violations& violations);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_SPEC_H_
