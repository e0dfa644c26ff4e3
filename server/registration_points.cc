// MatchPoints; declared in server/registration_apply.h.
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/warp_volume.h"
#include "server/engine_call.h"
#include "server/opened_registration.h"
#include "server/registration_apply.h"

namespace gvsl {
namespace {

absl::StatusOr<std::vector<Vec3>> PointsOf(const v1::MatchPointsRequest& request, int most) {
  if (request.points_size() < 1 || request.points_size() > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("points: ", request.points_size(), " points; 1 to ", most, " a call"));
  }
  std::vector<Vec3> points;
  for (const auto& point : request.points()) {
    points.push_back({point.x_mm(), point.y_mm(), point.z_mm()});
    for (double value : points.back()) {
      if (!std::isfinite(value)) {
        return absl::InvalidArgumentError(
            absl::StrCat("points[", points.size() - 1, "]: not a finite position"));
      }
    }
  }
  return points;
}

bool Shows(const Grid& grid, const Vec3& point_mm) {
  const Vec3 index = grid.PhysicalToIndex(point_mm);
  for (int axis = 0; axis < 3; ++axis) {
    if (!(index[axis] >= -0.5 && index[axis] <= static_cast<double>(grid.size[axis]) - 0.5))
      return false;
  }
  return true;
}

void SetPoint(const Vec3& point_mm, v1::SpatialPoint* message) {
  message->set_x_mm(point_mm[0]);
  message->set_y_mm(point_mm[1]);
  message->set_z_mm(point_mm[2]);
}

absl::Status ThroughRegistration(ServerState& state, const v1::MatchPointsRequest& request,
                                 v1::MatchPointsResponse* response) {
  for (const auto& [text, field] :
       {std::pair(&request.fixed(), "fixed"), std::pair(&request.moving(), "moving"),
        std::pair(&request.model(), "model")}) {
    if (text->empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": either a registration, or fixed, moving and model, by whose features to match"));
  }
  auto points = PointsOf(request, kMostMatches);
  if (!points.ok()) return points.status();
  auto opened = OpenRegistration(state, request.registration(), "registration");
  if (!opened.ok()) return opened.status();
  auto map = DirectedMapOf(*opened, request.direction());
  if (!map.ok()) return map.status();
  const std::vector<Vec3> matches = MapPoints(*map->map, *points);
  std::vector<Vec3> back;
  if (map->back != nullptr) back = MapPoints(*map->back, matches);
  // Without one of the volumes there are no scores.
  std::vector<std::optional<double>> scores(points->size());
  const auto from = state.metadata->GetVolume(map->from_volume),
             to = state.metadata->GetVolume(map->to_volume);
  if (from.ok() && to.ok()) {
    auto from_voxels = state.MapVolume(*from), to_voxels = state.MapVolume(*to);
    if (from_voxels.ok() && to_voxels.ok())
      scores = SimilarityAt(*from_voxels, *to_voxels, *map->map, *points);
  }
  for (size_t i = 0; i < matches.size(); ++i) {
    auto* match = response->add_matches();
    SetPoint(matches[i], match->mutable_point());
    match->set_out_of_view(!Shows(map->to, matches[i]));
    if (scores[i] && !match->out_of_view()) match->set_score(*scores[i]);
    if (back.empty()) continue;
    const Vec3 &start = (*points)[i], &end = back[i];
    match->set_cycle_distance_mm(
        std::hypot(end[0] - start[0], end[1] - start[1], end[2] - start[2]));
  }
  return absl::OkStatus();
}

absl::Status ByFeatures(ServerState& state, const v1::MatchPointsRequest& request,
                        const CancelFunction& cancelled, v1::MatchPointsResponse* response) {
  auto points = PointsOf(request, kMostFeatureMatches);
  if (!points.ok()) return points.status();
  if (request.direction() < v1::DIRECTION_UNSPECIFIED || request.direction() > v1::MOVING_TO_FIXED)
    return absl::InvalidArgumentError("direction: FIXED_TO_MOVING or MOVING_TO_FIXED");
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  const auto mapped = [&](const std::string& name, const char* field) -> absl::StatusOr<Volume> {
    auto stored = VolumeOf(state, name, field, false);
    if (!stored.ok()) return stored.status();
    return state.MapVolume(*stored);
  };
  auto fixed = mapped(request.fixed(), "fixed");
  if (!fixed.ok()) return fixed.status();
  auto moving = mapped(request.moving(), "moving");
  if (!moving.ok()) return moving.status();
  const bool backward = request.direction() == v1::MOVING_TO_FIXED;
  WindowOptions window;
  window.memory_bytes = state.memory_bytes();
  absl::StatusOr<std::vector<PointMatch>> matches;
  absl::Status status = OnEngine(state, *model, window, cancelled, [&](Extractor& extractor) {
    matches = extractor.MatchPoints(backward ? *moving : *fixed, backward ? *fixed : *moving,
                                    *points, window, cancelled);
    return matches.status();
  });
  if (!status.ok()) return status;
  for (const PointMatch& found : *matches) {
    auto* match = response->add_matches();
    match->set_out_of_view(!found.found ||
                           !Shows(backward ? fixed->grid() : moving->grid(), found.point_mm));
    if (!found.found) continue;
    SetPoint(found.point_mm, match->mutable_point());
    match->set_score(found.score);
    if (found.cycle_distance_mm) match->set_cycle_distance_mm(*found.cycle_distance_mm);
  }
  *response->mutable_model() = model->model.identity();
  return absl::OkStatus();
}

}  // namespace

absl::Status MatchPoints(ServerState& state, const v1::MatchPointsRequest& request,
                         const CancelFunction& cancelled, v1::MatchPointsResponse* response) {
  return request.registration().empty() ? ByFeatures(state, request, cancelled, response)
                                        : ThroughRegistration(state, request, response);
}

}  // namespace gvsl
