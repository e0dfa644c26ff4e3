// Stored voxel types of image files, and how each becomes one of Volume's types.
#ifndef GVSL_IMAGING_VOXEL_CONVERSION_H_
#define GVSL_IMAGING_VOXEL_CONVERSION_H_

#include <cstdint>
#include <functional>

#include "imaging/volume.h"

namespace gvsl {

enum class StoredType {
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat32,
  kFloat64,
};

size_t BytesPerStoredVoxel(StoredType type);

// Brings the runs of a file's voxels into a volume, in order.
class VoxelConverter {
 public:
  // value = slope * stored + inter. Slope 1 and inter 0 keep integers; anything else gives float32.
  VoxelConverter(StoredType stored, double slope, double inter, VolumeKind kind);

  // The type of the volume to allocate: the stored one where Volume has it, else the least that
  // holds it; int32 for labels stored as floating point.
  VoxelType type() const { return type_; }
  // True if the stored bytes are the volume's: they may be read straight into it.
  bool is_copy() const { return copy_; }
  StoredType stored() const { return stored_; }

  // Converts `count` stored voxels (native byte order) to the volume's voxels from `first` on.
  // INVALID_ARGUMENT if one is not finite, or does not fit the volume's type; the message has its
  // index.
  absl::Status Convert(const void* stored, int64_t count, int64_t first, Volume& volume) const;
  // For voxels that were read straight into the volume: checks that they are finite.
  absl::Status Check(const Volume& volume, int64_t first, int64_t count) const;

 private:
  StoredType stored_;
  double slope_, inter_;
  VoxelType type_;
  bool copy_;
};

// Puts the next `count` bytes of a file at `out`, and returns how many there were.
using ByteReader = std::function<absl::StatusOr<int64_t>(uint8_t* out, int64_t count)>;

// Fills `volume` with a file's voxels slice by slice: straight into it, or through one slice of
// memory where values convert. `swap_bytes`: they are stored in the other byte order. DATA_LOSS
// where the file ends early.
absl::Status ReadSlices(const ByteReader& read, const VoxelConverter& converter, bool swap_bytes,
                        Volume& volume);

}  // namespace gvsl

#endif  // GVSL_IMAGING_VOXEL_CONVERSION_H_
