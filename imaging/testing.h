// What the tests of imaging share.
#ifndef GVSL_IMAGING_TESTING_H_
#define GVSL_IMAGING_TESTING_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "imaging/volume.h"

namespace gvsl {

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

template <typename T>
bool Contains(const T& status, const std::string& part) {
  return Contains(std::string(status.message()), part);
}

// A folder that is gone when the test is over.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = ::testing::TempDir() + "/imaging.XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A rotation by `degrees` about each axis in turn: oblique to all three.
inline Mat3 Rotation(double degrees) {
  const double c = std::cos(degrees * M_PI / 180), s = std::sin(degrees * M_PI / 180);
  const Mat3 turns[3] = {{{{1, 0, 0}, {0, c, -s}, {0, s, c}}},
                         {{{c, 0, s}, {0, 1, 0}, {-s, 0, c}}},
                         {{{c, -s, 0}, {s, c, 0}, {0, 0, 1}}}};
  Mat3 result = turns[0];
  for (int turn = 1; turn < 3; ++turn) {
    Mat3 product = {};
    for (int r = 0; r < 3; ++r) {
      for (int c2 = 0; c2 < 3; ++c2) {
        for (int k = 0; k < 3; ++k) product[r][c2] += result[r][k] * turns[turn][k][c2];
      }
    }
    result = product;
  }
  return result;
}

// A volume whose voxel (column, row, slice) is value(column, row, slice).
template <typename T, typename Value>
Volume Filled(const Grid& grid, const Value& value, VolumeKind kind = VolumeKind::kImage) {
  absl::StatusOr<Volume> volume = Volume::Allocate(grid, VoxelTypeOf<T>::value, kind);
  EXPECT_TRUE(volume.ok()) << volume.status();
  T* voxel = volume->template mutable_voxels<T>();
  for (int64_t z = 0; z < grid.size[2]; ++z) {
    for (int64_t y = 0; y < grid.size[1]; ++y) {
      for (int64_t x = 0; x < grid.size[0]; ++x) *voxel++ = static_cast<T>(value(x, y, z));
    }
  }
  return *std::move(volume);
}

// As noise: every voxel differs from its neighbours, and no axis is like another.
inline int Scrambled(int64_t x, int64_t y, int64_t z) {
  return static_cast<int>((x * 7919 + y * 104729 + z * 1299709) % 2003) - 1000;
}

inline Grid GridOf(const std::array<int64_t, 3>& size, const Vec3& spacing_mm = {1, 1, 1},
                   const Vec3& origin_mm = {0, 0, 0}) {
  Grid grid;
  grid.size = size;
  grid.spacing_mm = spacing_mm;
  grid.origin_mm = origin_mm;
  return grid;
}

template <typename T>
T At(const Volume& volume, int64_t x, int64_t y, int64_t z) {
  const auto& size = volume.grid().size;
  return volume.voxels<T>()[(z * size[1] + y) * size[0] + x];
}

// Both lattices agree within `tolerance` (mm, mm, and of a unit vector).
inline void ExpectSameLattice(const Grid& a, const Grid& b, double tolerance) {
  EXPECT_EQ(a.size, b.size);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(a.spacing_mm[i], b.spacing_mm[i], tolerance) << "spacing " << i;
    EXPECT_NEAR(a.origin_mm[i], b.origin_mm[i], tolerance) << "origin " << i;
    for (int r = 0; r < 3; ++r) {
      EXPECT_NEAR(a.direction[r][i], b.direction[r][i], tolerance) << "direction " << r << i;
    }
  }
}

}  // namespace gvsl

#endif  // GVSL_IMAGING_TESTING_H_
