// Which stored volumes a job trains on.
#ifndef GVSL_SERVER_JOB_DATA_H_
#define GVSL_SERVER_JOB_DATA_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gvsl/v1/jobs.pb.h"
#include "gvsl/v1/volumes.pb.h"
#include "server/metadata_store.h"
#include "server/violations.h"

namespace gvsl {

struct JobData {
  // In the order of their contents, so that the same contents train alike on any server.
  std::vector<v1::Volume> training, validation;
  std::string sha256;  // over contents and roles
};

// Resolves names and filters: images alone; one volume of each content, and no content in both
// roles; 60,000 volumes at most. A volume that was held
// out by name or filter is taken from what the training filter finds; one that is named for both is
// wrong. What is wrong is added below `data.`; a status is the metadata store's own.
absl::StatusOr<JobData> ResolveData(const v1::PretrainingSpec::Data& data, MetadataStore& metadata,
                                    Violations& violations);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_DATA_H_
