// Maps of space: composing, inverting, displacing, and what their Jacobians tell.
#include "imaging/spatial_map.h"

#include <gtest/gtest.h>

#include "imaging/testing.h"

namespace gvsl {
namespace {

Grid Oblique() {
  Grid grid = GridOf({20, 16, 12}, {1, 1.5, 2}, {-10, 5, 30});
  grid.direction = Rotation(20);
  return grid;
}

// The field whose displacement at each lattice point is u(point).
template <typename U>
DisplacementField FieldOf(const Grid& grid, const U& u) {
  DisplacementField field;
  field.grid = grid;
  field.values_mm.resize(static_cast<size_t>(3 * grid.voxel_count()));
  for (int64_t i = 0; i < grid.voxel_count(); ++i) {
    const Vec3 value =
        u(grid.IndexToPhysical({static_cast<double>(i % grid.size[0]),
                                static_cast<double>(i / grid.size[0] % grid.size[1]),
                                static_cast<double>(i / (grid.size[0] * grid.size[1]))}));
    for (int c = 0; c < 3; ++c) {
      field.values_mm[static_cast<size_t>(c * grid.voxel_count() + i)] =
          static_cast<float>(value[c]);
    }
  }
  return field;
}

AffineMap SomeAffine() {
  AffineMap affine;
  affine.matrix = {{{1.1, 0.05, 0}, {-0.04, 0.95, 0.02}, {0, 0.03, 1.02}}};
  affine.translation_mm = {5, -7, 11};
  return affine;
}

void ExpectNear(const Vec3& a, const Vec3& b, double tolerance) {
  for (int r = 0; r < 3; ++r) EXPECT_NEAR(a[r], b[r], tolerance) << r;
}

TEST(AffineMapTest, InverseUndoesAndCompositionAppliesTheInnerFirst) {
  const AffineMap affine = SomeAffine();
  AffineMap shift;
  shift.translation_mm = {1, 2, 3};
  const Vec3 point = {3, -4, 5};
  // Rounding alone.
  ExpectNear(affine.Inverse()->Apply(affine.Apply(point)), point, 1e-12);
  ExpectNear(Composed(affine, shift).Apply(point), affine.Apply({4, -2, 8}), 1e-12);
}

TEST(AffineMapTest, AFlatOneHasNoInverse) {
  AffineMap flat;
  flat.matrix[2] = {0, 0, 0};
  const auto inverse = flat.Inverse();
  EXPECT_EQ(inverse.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(inverse.status(), "determinant is 0"));
}

TEST(SpatialMapTest, IsTheIdentityWhenNothingIsSet) {
  const Vec3 point = {1.5, -2.25, 1000};
  EXPECT_EQ(SpatialMap().Apply(point), point);
}

TEST(SpatialMapTest, DisplacesFirstThenAppliesTheAffinePart) {
  SpatialMap map;
  map.affine = SomeAffine();
  map.displacement = FieldOf(Oblique(), [](const Vec3&) { return Vec3{1, 2, -3}; });
  ExpectNear(map.Apply({0, 10, 40}), map.affine.Apply({1, 12, 37}), 1e-6);
}

TEST(SpatialMapTest, IsLinearBetweenVoxelsAndHoldsTheBordersValueOutside) {
  SpatialMap map;
  map.displacement = FieldOf(Oblique(), [](const Vec3& at) {
    return Vec3{0.1 * at[0], 0.02 * at[1] - 0.1 * at[2], 0.05 * at[0]};
  });
  const Grid grid = Oblique();
  const Vec3 inside = grid.IndexToPhysical({7.3, 4.8, 9.1});
  // A linear field is met exactly; float32 holds values below 10 within 1e-6.
  ExpectNear(PointMapper(map).Displacement(inside),
             {0.1 * inside[0], 0.02 * inside[1] - 0.1 * inside[2], 0.05 * inside[0]}, 2e-6);
  ExpectNear(PointMapper(map).Displacement(grid.IndexToPhysical({-50, 4, 9})),
             PointMapper(map).Displacement(grid.IndexToPhysical({0, 4, 9})), 1e-6);
}

TEST(JacobianTest, OfAnAffineMapIsItsDeterminant) {
  SpatialMap map;
  map.affine = SomeAffine();
  const JacobianStatistics statistics = JacobianOf(map);
  EXPECT_DOUBLE_EQ(statistics.min, Determinant(map.affine.matrix));
  EXPECT_DOUBLE_EQ(statistics.max, statistics.min);
  EXPECT_EQ(statistics.non_positive_percent, 0);
}

TEST(JacobianTest, OfALinearFieldOnAnObliqueLatticeIsExact) {
  SpatialMap map;
  map.affine.matrix = {{{2, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  map.displacement = FieldOf(Oblique(), [](const Vec3& at) {
    return Vec3{0.1 * at[0], -0.2 * at[1], 0.3 * at[2]};
  });
  const JacobianStatistics statistics = JacobianOf(map);
  // float32 displacements of some 10 mm, differences over 1 mm.
  EXPECT_NEAR(statistics.min, 2 * 1.1 * 0.8 * 1.3, 1e-4);
  EXPECT_NEAR(statistics.max, 2 * 1.1 * 0.8 * 1.3, 1e-4);
  EXPECT_NEAR(statistics.sd_log, 0, 1e-4);
}

TEST(JacobianTest, CountsFolds) {
  // Space is turned back where x > 0: half of the cells.
  SpatialMap map;
  map.displacement = FieldOf(GridOf({21, 4, 4}, {1, 1, 1}, {-10, 0, 0}), [](const Vec3& at) {
    return Vec3{at[0] > 0 ? -2 * at[0] : 0, 0, 0};
  });
  const JacobianStatistics statistics = JacobianOf(map);
  EXPECT_NEAR(statistics.non_positive_percent, 50, 1e-9);
  EXPECT_NEAR(statistics.min, -1, 1e-6);
}

TEST(InverseTest, EndsWhereItBegan) {
  const Grid grid = Oblique();
  SpatialMap map;
  map.affine = SomeAffine();
  map.displacement = FieldOf(grid, [](const Vec3& at) {
    return Vec3{std::sin(at[1] / 5), 0.8 * std::cos(at[0] / 4), std::sin(at[2] / 6)};
  });
  const auto inverse = Invert(map, GridOf({30, 30, 30}, {1, 1, 1}, {-15, -15, 25}));
  ASSERT_TRUE(inverse.ok()) << inverse.status();
  // The iteration stops at steps below 1e-4 mm.
  EXPECT_LT(inverse->max_residual_mm, 1e-3);
  // At a voxel of the inverse's lattice its field is not interpolated.
  const Vec3 y = {-3, -2, 40};
  ExpectNear(map.Apply(inverse->map.Apply(y)), y, 1e-3);
}

TEST(InverseTest, ItsResidualTellsThatAMapThatFoldsHasNone) {
  // Neighbours leap over each other.
  const Grid grid = GridOf({21, 4, 4}, {1, 1, 1}, {-10, 0, 0});
  SpatialMap map;
  map.displacement = FieldOf(grid, [](const Vec3& at) {
    return Vec3{std::llround(at[0]) % 2 == 0 ? 6.0 : -6.0, 0, 0};
  });
  const auto inverse = Invert(map, grid);
  ASSERT_TRUE(inverse.ok());
  EXPECT_GT(inverse->max_residual_mm, 1);
}

TEST(InverseTest, StretchingByTwoAndAHalfIsUndone) {
  // A slope above 1, where the plain iteration would swing ever wider.
  SpatialMap map;
  map.displacement = FieldOf(GridOf({21, 4, 4}, {1, 1, 1}, {-10, 0, 0}), [](const Vec3& at) {
    return Vec3{1.5 * at[0], 0, 0};
  });
  const auto inverse = Invert(map, GridOf({41, 4, 4}, {1, 1, 1}, {-20, 0, 0}));
  ASSERT_TRUE(inverse.ok());
  EXPECT_LT(inverse->max_residual_mm, 1e-3);
}

TEST(DeformationEnergyTest, IsTheMeanSquaredSlope) {
  const DisplacementField field = FieldOf(Oblique(), [](const Vec3& at) {
    return Vec3{0.1 * at[0], -0.2 * at[1], 0.3 * at[2]};
  });
  EXPECT_NEAR(DeformationEnergy(field), 0.01 + 0.04 + 0.09, 1e-4);
  EXPECT_EQ(DeformationEnergy({}), 0);
}

}  // namespace
}  // namespace gvsl
