#include "server/job_estimate.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "imaging/status_reason.h"
#include "server/violations.h"

namespace gvsl {
namespace {

constexpr double kGibibyte = 1 << 30;

// The U-Net's 3x3x3 convolutions: products a voxel of the input, and values. The heads add a tenth.
struct Network {
  explicit Network(const ModelCard& card) {
    const auto& w = card.widths;
    for (size_t level = 0; level < w.size(); ++level) {
      const auto width = static_cast<double>(w[level]);
      const double before = level == 0 ? 1 : static_cast<double>(w[level - 1]);
      double values = 27 * (before * width + width * width);
      if (level + 1 < w.size())
        values += 27 * ((width + static_cast<double>(w[level + 1])) * width + width * width);
      const double share = std::pow(0.125, static_cast<double>(level));  // of the voxels
      parameters += 1.1 * values;
      products_per_voxel += 1.1 * values * share;
      channels_per_voxel += width * share;
    }
  }
  double parameters = 0, products_per_voxel = 0, channels_per_voxel = 0;
};

double VoxelsOf(const ResolvedJob& job) { return std::pow(job.spec.data().crop(), 3); }

double PairsOfAPass(const v1::PretrainingSpec::Optimization& run) {
  return static_cast<double>(run.batch_size()) / (run.accumulation() * run.world_size());
}

double MemoryOf(const ResolvedJob& job, const Network& network, bool cuda) {
  constexpr double kRuntime = 0.5 * kGibibyte;  // LibTorch, its workspaces, volumes in hand
  // Activations of A and B and their gradients, for each channel; and what the heads and the losses
  // keep, whatever the width.
  constexpr double kBytesPerChannel = 140, kBytesPerVoxel = 900;
  const auto& run = job.spec.optimization();
  const bool half = run.precision() == v1::PretrainingSpec::Optimization::BFLOAT16;
  const double share = !cuda ? 1 : half ? 0.52 : 0.75;  // of what the CPU takes
  // Weights, gradients, two moments of Adam; and their average where there is one.
  const double copies = 4 + (run.ema_decay() > 0 ? 1 : 0);
  return kRuntime + 4 * copies * network.parameters +
         (kBytesPerChannel * network.channels_per_voxel + kBytesPerVoxel) * share * VoxelsOf(job) *
             PairsOfAPass(run);
}

// The volumes on the model's grid, two bytes a voxel.
double CacheOf(const ResolvedJob& job) {
  double voxels = 0;
  for (const auto* volumes : {&job.data.training, &job.data.validation}) {
    for (const v1::Volume& volume : *volumes) {
      double count = 1;
      for (int axis = 0; axis < volume.grid().size_size(); ++axis) {
        count *= static_cast<double>(volume.grid().size(axis)) * volume.grid().spacing_mm(axis) /
                 job.card.spacing_mm[axis];
      }
      voxels += count;
    }
  }
  return 2 * voxels;
}

double CheckpointsOf(const ResolvedJob& job, const Network& network) {
  const bool averaged = job.spec.optimization().ema_decay() > 0;
  const double weights = 4 * network.parameters;
  // One is written before another goes; then `last`, `best` and one of them aside.
  return (job.spec.upkeep().keep_checkpoints() + 1) * weights * (averaged ? 4 : 3) + 3 * weights;
}

double SecondsOf(const ResolvedJob& job, const Network& network, const JobCapacity& capacity) {
  const auto& run = job.spec.optimization();
  // Two images through the network, and twice as much again for the gradients.
  constexpr double kPasses = 6;
  const double voxels = VoxelsOf(job) * run.batch_size() * static_cast<double>(run.steps());
  const double flops = kPasses * 2 * network.products_per_voxel * voxels;
  if (capacity.cuda_devices > 0) {
    const bool half = run.precision() == v1::PretrainingSpec::Optimization::BFLOAT16;
    return flops / (half ? 62e12 : 9e12);
  }
  // Of a core: its convolutions, counted as direct sums, and what else a voxel of a pair takes.
  constexpr double kFlopsASecond = 125e9, kSecondsPerVoxel = 5.8e-6;
  return (flops / kFlopsASecond + kSecondsPerVoxel * voxels) / std::max(1, capacity.threads);
}

std::string Gib(double bytes) { return absl::StrFormat("%.1f GiB", bytes / kGibibyte); }

absl::Status Refuse(const Violations& violations, const char* reason) {
  return WithReason(absl::ResourceExhaustedError(violations.status().message()), reason);
}

}  // namespace

v1::JobEstimate EstimateJob(const ResolvedJob& job, const JobCapacity& capacity) {
  const Network network(job.card);
  double cache = CacheOf(job);
  if (capacity.cache_bytes > 0) cache = std::min(cache, static_cast<double>(capacity.cache_bytes));
  v1::JobEstimate estimate;
  estimate.set_memory_bytes(
      static_cast<int64_t>(MemoryOf(job, network, capacity.cuda_devices > 0)));
  estimate.set_disk_bytes(static_cast<int64_t>(cache + CheckpointsOf(job, network)));
  constexpr double kMostSeconds = 3e11;  // what a Duration may hold
  estimate.mutable_duration()->set_seconds(
      static_cast<int64_t>(std::min(kMostSeconds, SecondsOf(job, network, capacity))));
  return estimate;
}

absl::Status CheckFits(const ResolvedJob& job, const v1::JobEstimate& estimate,
                       const JobCapacity& capacity) {
  const auto& run = job.spec.optimization();
  const bool cuda = capacity.cuda_devices > 0;  // each rank has a device's memory
  const auto memory = static_cast<double>(estimate.memory_bytes()) * (cuda ? 1 : run.world_size());
  if (capacity.memory_bytes > 0 && memory > static_cast<double>(capacity.memory_bytes)) {
    Violations violations("job.spec.");
    violations.Add("data.crop",
                   absl::StrCat("the job needs about ", Gib(memory), " of memory, and the ",
                                cuda ? "device" : "server", " has ",
                                Gib(static_cast<double>(capacity.memory_bytes)), "; lower ",
                                job.spec.data().crop(), ", or take a smaller network.size"));
    violations.Add("optimization.batch_size", absl::StrCat("lower ", run.batch_size(),
                                                           ", or raise optimization.accumulation"));
    if (!cuda && run.world_size() > 1) {
      violations.Add("optimization.world_size",
                     absl::StrCat("lower ", run.world_size(), ": each rank has its own memory"));
    }
    return Refuse(violations, "JOB_TOO_LARGE");
  }
  if (capacity.disk_bytes > 0 && estimate.disk_bytes() > capacity.disk_bytes) {
    Violations violations("job.spec.");
    violations.Add(
        "upkeep.keep_checkpoints",
        absl::StrCat("the job needs about ", Gib(static_cast<double>(estimate.disk_bytes())),
                     " of disk for its volumes' cache and checkpoints, and ",
                     Gib(static_cast<double>(capacity.disk_bytes)), " are free; lower ",
                     job.spec.upkeep().keep_checkpoints(), ", or delete old jobs"));
    return Refuse(violations, "DISK_FULL");
  }
  return absl::OkStatus();
}

}  // namespace gvsl
