#include "model/point_matching.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "imaging/spatial_map.h"

namespace gvsl {
namespace {

constexpr int64_t kMostScores = int64_t{1} << 23;  // cosines that are in memory at a time
constexpr int64_t kMostCandidates = 100000;        // places whose fine features are
constexpr int kMostRadius = 4;                     // of the fine search, in the card's voxels

// Of length 1; empty where there is nothing.
using Vector = std::vector<float>;

void Normalise(Vector& vector) {
  const double length =
      std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0));
  for (float& value : vector) value = static_cast<float>(value / std::max(length, 1e-12));
}

double Cosine(const Vector& a, const Vector& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// The voxel nearest to a point: not interpolated, for a mean of neighbours looks like no place.
struct NearestVoxel {
  Vector feature;  // empty more than half a voxel outside
  Vec3 centre_mm = {0, 0, 0};
};
NearestVoxel NearestTo(const LevelImage& image, const Vec3& point_mm) {
  Vec3 index = image.grid.PhysicalToIndex(point_mm);
  int64_t voxel = 0;
  for (int i = 2; i >= 0; --i) {
    const double last = static_cast<double>(image.grid.size[i] - 1);
    if (!(index[i] >= -0.5 && index[i] <= last + 0.5)) return {};
    index[i] = std::clamp(std::round(index[i]), 0.0, last);
    voxel = voxel * image.grid.size[i] + static_cast<int64_t>(index[i]);
  }
  const float* values = image.values.data() + voxel * image.channels;
  NearestVoxel nearest;
  nearest.feature.assign(values, values + image.channels);
  Normalise(nearest.feature);
  nearest.centre_mm = image.grid.IndexToPhysical(index);
  return nearest;
}

absl::StatusOr<std::vector<Vector>> FineFeatures(const MatchingSide& side,
                                                 const std::vector<Vec3>& points_mm) {
  std::vector<Vector> features;
  features.reserve(points_mm.size());
  if (side.factor == 1) {
    for (const Vec3& point : points_mm) features.push_back(NearestTo(side.whole, point).feature);
    return features;
  }
  auto sampled = side.fine(points_mm);
  if (!sampled.ok()) return sampled.status();
  for (PointFeature& feature : *sampled) {
    features.push_back(feature.out_of_view ? Vector() : std::move(feature.values));
    Normalise(features.back());
  }
  return features;
}

// What is looked for.
struct Query {
  Vector coarse, fine;  // both empty for a point outside its volume
  // From the place that the features are of to the point itself; it is small enough to be the same
  // in the other volume.
  Vec3 rest_mm = {0, 0, 0};
};
absl::StatusOr<std::vector<Query>> Describe(const MatchingSide& side,
                                            const std::vector<Vec3>& points_mm) {
  auto fine = FineFeatures(side, points_mm);
  if (!fine.ok()) return fine.status();
  std::vector<Query> queries(points_mm.size());
  for (size_t i = 0; i < queries.size(); ++i) {
    NearestVoxel nearest = NearestTo(side.whole, points_mm[i]);
    if (nearest.feature.empty() || (*fine)[i].empty()) continue;
    queries[i] = {std::move(nearest.feature), std::move((*fine)[i])};
    for (int r = 0; side.factor == 1 && r < 3; ++r)
      queries[i].rest_mm[r] = points_mm[i][r] - nearest.centre_mm[r];
  }
  return queries;
}

// A place that was found.
struct Place {
  Vec3 point_mm = {0, 0, 0};
  double coarse = 0, fine = -2;  // cosines
};

// The voxel of the whole volume that is most like each query.
std::vector<Place> SearchWhole(const LevelImage& image, const std::vector<Query>& queries) {
  const int64_t voxels = image.grid.voxel_count(), count = static_cast<int64_t>(queries.size());
  const at::Tensor features =
      torch::from_blob(const_cast<float*>(image.values.data()), {voxels, image.channels});
  const at::Tensor ignored =
      torch::from_blob(const_cast<uint8_t*>(image.counted.data()), {voxels, 1}, torch::kByte).eq(0);
  at::Tensor asked = torch::zeros({count, image.channels});
  for (int64_t i = 0; i < count; ++i) {
    const Vector& query = queries[static_cast<size_t>(i)].coarse;
    std::copy(query.begin(), query.end(), asked.data_ptr<float>() + i * image.channels);
  }
  const float to_cosine =
      2 / std::sqrt(static_cast<float>(image.channels));  // DenseFeatures' length
  at::Tensor best = torch::full({count}, -std::numeric_limits<float>::infinity());
  at::Tensor where = torch::zeros({count}, torch::kLong);
  const int64_t step = std::max<int64_t>(1, kMostScores / std::max<int64_t>(1, count));
  for (int64_t begin = 0; begin < voxels; begin += step) {
    const int64_t part = std::min(step, voxels - begin);
    at::Tensor scores = features.narrow(0, begin, part).matmul(asked.t());
    scores.masked_fill_(ignored.narrow(0, begin, part), -std::numeric_limits<float>::infinity());
    const auto [its_best, its_place] = scores.max(0);
    const at::Tensor better = its_best > best;
    best = torch::where(better, its_best, best);
    where = torch::where(better, its_place + begin, where);
  }
  const AffineMap to_physical = IndexToPhysicalMap(image.grid);
  std::vector<Place> places(queries.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t voxel = where.data_ptr<int64_t>()[i];
    const auto& size = image.grid.size;
    Place& place = places[static_cast<size_t>(i)];
    place.point_mm = to_physical.Apply({static_cast<double>(voxel % size[0]),
                                        static_cast<double>(voxel / size[0] % size[1]),
                                        static_cast<double>(voxel / (size[0] * size[1]))});
    place.coarse = best.data_ptr<float>()[i] * to_cosine;
  }
  return places;
}

// Where a parabola through three values, the middle one the greatest, has its top: -0.5..0.5.
double TopOf(double before, double middle, double after) {
  const double bend = before - 2 * middle + after;
  return bend < 0 && before > -2 && after > -2
             ? std::clamp((before - after) / (2 * bend), -0.5, 0.5)
             : 0;
}

// Moves places to the best of their surroundings.
absl::Status SearchAround(const MatchingSide& side, const std::vector<Query>& queries,
                          std::vector<Place>& places) {
  const int radius =
      side.factor == 1 ? 1 : std::min(kMostRadius, static_cast<int>(std::ceil(side.factor)) + 1);
  const int64_t edge = 2 * radius + 1, around = edge * edge * edge;
  // One voxel of the card along each axis of the lattice, in mm.
  Mat3 step = IndexToPhysicalMap(side.whole.grid).matrix;
  for (Vec3& row : step) {
    for (double& value : row) value /= side.factor;
  }
  const auto moved = [&](const Vec3& from, const Vec3& by) {
    Vec3 to = from;
    for (int r = 0; r < 3; ++r) {
      for (int i = 0; i < 3; ++i) to[r] += step[r][i] * by[i];
    }
    return to;
  };
  const auto offset = [&](int64_t k) {
    return Vec3{static_cast<double>(k % edge - radius),
                static_cast<double>(k / edge % edge - radius),
                static_cast<double>(k / (edge * edge) - radius)};
  };
  const size_t batch = static_cast<size_t>(std::max<int64_t>(1, kMostCandidates / around));
  for (size_t first = 0; first < places.size(); first += batch) {
    const size_t last = std::min(places.size(), first + batch);
    std::vector<Vec3> candidates;
    for (size_t i = first; i < last; ++i) {
      for (int64_t k = 0; k < around; ++k)
        candidates.push_back(moved(places[i].point_mm, offset(k)));
    }
    auto features = FineFeatures(side, candidates);
    if (!features.ok()) return features.status();
    std::vector<double> cosines(static_cast<size_t>(around));
    for (size_t i = first; i < last; ++i) {
      if (queries[i].fine.empty()) continue;
      const auto* its = features->data() + (i - first) * static_cast<size_t>(around);
      for (size_t k = 0; k < cosines.size(); ++k)
        cosines[k] = its[k].empty() ? -2 : Cosine(its[k], queries[i].fine);
      const int64_t best = std::max_element(cosines.begin(), cosines.end()) - cosines.begin();
      Vec3 by = offset(best);
      const int64_t strides[3] = {1, edge, edge * edge};
      for (int axis = 0; axis < 3; ++axis) {
        if (std::abs(by[axis]) >= radius) continue;
        by[axis] += TopOf(cosines[static_cast<size_t>(best - strides[axis])],
                          cosines[static_cast<size_t>(best)],
                          cosines[static_cast<size_t>(best + strides[axis])]);
      }
      places[i].fine = cosines[static_cast<size_t>(best)];
      places[i].point_mm = moved(places[i].point_mm, by);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Place>> Search(const MatchingSide& side,
                                          const std::vector<Query>& queries) {
  std::vector<Place> places = SearchWhole(side.whole, queries);
  if (absl::Status status = SearchAround(side, queries, places); !status.ok()) return status;
  for (size_t i = 0; i < places.size(); ++i) {
    for (int r = 0; r < 3; ++r) places[i].point_mm[r] += queries[i].rest_mm[r];
  }
  return places;
}

}  // namespace

absl::StatusOr<std::vector<PointMatch>> MatchByFeatures(const MatchingSide& fixed,
                                                        const MatchingSide& moving,
                                                        const std::vector<Vec3>& points_mm) {
  auto described = Describe(fixed, points_mm);
  if (!described.ok()) return described.status();
  std::vector<PointMatch> matches(points_mm.size());
  std::vector<size_t> asked;  // those inside
  std::vector<Query> queries;
  for (size_t i = 0; i < points_mm.size(); ++i) {
    if ((*described)[i].coarse.empty()) continue;
    asked.push_back(i);
    queries.push_back(std::move((*described)[i]));
  }
  if (asked.empty()) return matches;
  auto places = Search(moving, queries);
  if (!places.ok()) return places.status();
  std::vector<Vec3> found;
  for (const Place& place : *places) found.push_back(place.point_mm);
  auto back_queries = Describe(moving, found);
  if (!back_queries.ok()) return back_queries.status();
  auto back = Search(fixed, *back_queries);
  if (!back.ok()) return back.status();
  for (size_t i = 0; i < asked.size(); ++i) {
    PointMatch& match = matches[asked[i]];
    const Vec3 &start = points_mm[asked[i]], &end = (*back)[i].point_mm;
    match.found = true;
    match.point_mm = found[i];
    match.score = ((*places)[i].coarse + (*places)[i].fine) / 2;
    if (!(*back_queries)[i].coarse.empty())
      match.cycle_distance_mm = std::hypot(end[0] - start[0], end[1] - start[1], end[2] - start[2]);
  }
  return matches;
}

}  // namespace gvsl
