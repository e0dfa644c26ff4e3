// What this server has for jobs at this moment.
#ifndef GVSL_SERVER_JOB_CAPACITY_H_
#define GVSL_SERVER_JOB_CAPACITY_H_

#include <string>

#include "server/job_estimate.h"
#include "server/server_state.h"

namespace gvsl {

// Folder of preprocessed volumes that all jobs share.
std::string JobCacheFolder(const ServerState& state);

JobCapacity CapacityOf(const ServerState& state);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_CAPACITY_H_
