// Small stored volumes for the tests of training: blobs at places that vary a little from one to
// the next.
#ifndef GVSL_MODEL_TRAINING_VOLUMES_H_
#define GVSL_MODEL_TRAINING_VOLUMES_H_

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "imaging/sha256.h"
#include "model/random_stream.h"
#include "model/test_files.h"
#include "model/volume_cache.h"

namespace gvsl {

// Writes `count` int16 volumes of (columns, rows, slices) as raw voxels into the folder.
inline std::vector<SourceVolume> MakeTrainingVolumes(const TestFolder& folder, int count,
                                                     const std::array<int64_t, 3>& size) {
  std::vector<SourceVolume> sources;
  for (int n = 0; n < count; ++n) {
    RandomStream random({99, static_cast<uint64_t>(n)});
    std::array<std::array<double, 3>, 4> centres;
    for (int blob = 0; blob < 4; ++blob) {
      for (int axis = 0; axis < 3; ++axis) {
        centres[blob][axis] = 0.3 + 0.4 * ((blob >> (axis % 2)) & 1) + random.Uniform(-0.06, 0.06);
      }
    }
    std::vector<int16_t> voxels;
    for (int64_t z = 0; z < size[2]; ++z) {
      for (int64_t y = 0; y < size[1]; ++y) {
        for (int64_t x = 0; x < size[0]; ++x) {
          double value = 0;
          for (int blob = 0; blob < 4; ++blob) {
            const double dx = (x + 0.5) / size[0] - centres[blob][0];
            const double dy = (y + 0.5) / size[1] - centres[blob][1];
            const double dz = (z + 0.5) / size[2] - centres[blob][2];
            value += (300 + 200 * blob) * std::exp(-(dx * dx + dy * dy + dz * dz) / 0.015);
          }
          voxels.push_back(static_cast<int16_t>(value + 20 * random.Uniform()));
        }
      }
    }
    const std::string bytes(reinterpret_cast<const char*>(voxels.data()), voxels.size() * 2);
    SourceVolume source;
    source.name = "volumes/" + std::to_string(n);
    source.path = folder / ("voxels" + std::to_string(n));
    source.voxels_sha256 = Sha256Of(bytes);
    source.grid.size = size;
    source.type = VoxelType::kInt16;
    source.modality = "MR";
    WriteBytes(source.path, bytes);
    sources.push_back(source);
  }
  return sources;
}

}  // namespace gvsl

#endif  // GVSL_MODEL_TRAINING_VOLUMES_H_
