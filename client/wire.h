// What the wire and our types share, for client and server: grids, voxel types, chunks.
#ifndef GVSL_CLIENT_WIRE_H_
#define GVSL_CLIENT_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "gvsl/v1/models.pb.h"
#include "gvsl/v1/volumes.pb.h"
#include "imaging/volume.h"

namespace gvsl {

// Bytes of a chunk at most: a message stays below 1 MiB with its envelope.
constexpr size_t kMaxChunkBytes = (1 << 20) - 1024;
// CRC-32 (zlib) of a chunk's bytes.
uint32_t ChecksumOf(const std::string& data);

// What a feature vector takes in its answer beside its values, at most: tags, lengths, and the name
// or numbers beside it.
constexpr int64_t kGlobalOverheadBytes = 96, kSampleOverheadBytes = 16, kLabelOverheadBytes = 48;
constexpr int64_t kMostVolumes = 256, kMostPoints = 4096;  // of one request
// Points of one request, through a registration and by features.
constexpr int kMostMatches = 16384, kMostFeatureMatches = 1000;
// How many vectors of so many values one answer holds: a message stays below 1 MiB.
constexpr int64_t VectorsInAnswer(int64_t values, int64_t overhead_bytes) {
  return static_cast<int64_t>(kMaxChunkBytes) / (values * 4 + overhead_bytes);
}

// Channels of a model's dense features of so many levels (WindowOptions.levels; 0 is 1).
int64_t DenseChannels(const v1::Model& model, int64_t levels);

v1::Grid ToProto(const Grid& grid);
v1::Volume::VoxelType ToProto(VoxelType type);
// INVALID_ARGUMENT that opens with "grid: " when values are missing; the grid itself is not judged.
absl::StatusOr<Grid> FromProto(const v1::Grid& grid);
VoxelType FromProto(v1::Volume::VoxelType type);

// Volume.content_sha256. Equal for equal voxel type, kind, geometry and voxels.
std::string ContentDigest(const v1::Volume& volume, const std::string& voxels_sha256);

}  // namespace gvsl

#endif  // GVSL_CLIENT_WIRE_H_
