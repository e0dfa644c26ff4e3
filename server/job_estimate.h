// What a job is going to need, from its shapes alone, and whether the server has it.
#ifndef GVSL_SERVER_JOB_ESTIMATE_H_
#define GVSL_SERVER_JOB_ESTIMATE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "gvsl/v1/jobs.pb.h"
#include "server/job_spec.h"

namespace gvsl {

// What a server has for jobs. 0 means not known, which is not looked at.
struct JobCapacity {
  int cuda_devices = 0;  // that a job's ranks may have, one each; 0: jobs run on the CPU
  int threads = 1;
  int64_t memory_bytes = 0;  // of one device; on the CPU of all ranks together
  int64_t disk_bytes = 0;    // free, and what the cache may give up
  int64_t cache_bytes = 0;   // how large the cache of volumes may grow
};

// Calibrated by training runs of `base` on the CPU (two pairs a pass: 2.5 GiB at 64^3, 6.2 GiB at
// 96^3, 13.6 GiB at 128^3) and on an H100 (in bf16 at 128^3 14.0 GiB, 4.1 steps a second); memory
// is good to a quarter there, and durations to a factor of three.
v1::JobEstimate EstimateJob(const ResolvedJob& job, const JobCapacity& capacity);

// RESOURCE_EXHAUSTED (JOB_TOO_LARGE, DISK_FULL); its lines are fields to change, as Violations'.
absl::Status CheckFits(const ResolvedJob& job, const v1::JobEstimate& estimate,
                       const JobCapacity& capacity);

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_ESTIMATE_H_
