// VolumeCache: volumes as a model's card wants them, kept on disk as half precision and mapped, so
// that a training step reads its crops without any preprocessing.
//
// One file a volume, named by a hash of all that its content depends on; written aside, synced and
// renamed, so that several processes may fill one folder at once. No LibTorch type appears here.
#ifndef GVSL_MODEL_VOLUME_CACHE_H_
#define GVSL_MODEL_VOLUME_CACHE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "imaging/volume.h"
#include "model/card.h"

namespace gvsl {

class MappedFile;

// A stored volume and the file of its raw voxels.
struct SourceVolume {
  std::string name;  // for messages
  std::string path;
  std::string voxels_sha256;
  Grid grid;
  VoxelType type = VoxelType::kInt16;
  std::string modality;
};

// SHA-256 of all that the cached form of a volume depends on: its voxels, geometry and what its
// modality means for the card, and the card's preprocessing.
std::string CacheKey(const SourceVolume& source, const ModelCard& card);

// A preprocessed volume. Safe for concurrent use.
class CachedVolume {
 public:
  // Slices, rows, columns (D, H, W).
  const std::array<int64_t, 3>& size() const { return size_; }
  // Writes the box [begin, begin + side) of (D, H, W) as float32 in [0, 1]; zero outside the
  // volume.
  void Read(const std::array<int64_t, 3>& begin, const std::array<int64_t, 3>& side,
            float* out) const;

 private:
  friend class VolumeCache;
  std::shared_ptr<const MappedFile> file_;
  std::array<int64_t, 3> size_ = {0, 0, 0};
};

// Not thread-safe; the folder may be shared between processes.
class VolumeCache {
 public:
  // Files not used for longest are deleted above `limit_bytes`; 0: no limit.
  VolumeCache(std::string folder, int64_t limit_bytes);

  // Preprocesses the volume unless the folder holds it whole, and maps it. Bounded memory: slab by
  // slab.
  // RESOURCE_EXHAUSTED (DISK_FULL; CACHE_TOO_SMALL: this run's volumes alone exceed the limit).
  absl::StatusOr<std::shared_ptr<const CachedVolume>> Get(const SourceVolume& source,
                                                          const ModelCard& card);

 private:
  // Preprocesses the volume into a file of this path, over a damaged one.
  absl::Status Make(const SourceVolume& source, const ModelCard& card, const std::string& path);
  // The volume of this file: NOT_FOUND without it, DATA_LOSS where it is damaged.
  static absl::StatusOr<std::shared_ptr<CachedVolume>> Map(const std::string& path);
  absl::Status MakeRoom(int64_t bytes);

  const std::string folder_;
  const int64_t limit_bytes_;
  int64_t used_bytes_ = 0;  // by this run's volumes
  std::set<std::string> used_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_VOLUME_CACHE_H_
