#include "client/reports.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/html.h"
#include "client/wire.h"
#include "imaging/map_pictures.h"
#include "imaging/planes.h"

namespace gvsl {
namespace {

constexpr int kEdge = 320;         // pixels of the longest side
constexpr int kRegionPixels = 12;  // of a region's side

std::string Figure(const std::string& png, const std::string& words) {
  return absl::StrCat("<figure>", HtmlPng(png, words), "<figcaption>", HtmlText(words),
                      "</figcaption></figure>\n");
}

std::string Pair(const std::string& title, const std::string& before, const std::string& after) {
  return absl::StrCat("<h2>", HtmlText(title), "</h2>\n<div class=\"pair\">",
                      Figure(before, "before"), Figure(after, "after"), "</div>\n");
}

// A correlation as a colour: red below 0, black at 0, white at 1, blue where there is none.
Colour RegionColour(float ncc) {
  if (std::isnan(ncc)) return {40, 60, 120};
  const auto level = static_cast<uint8_t>(std::lround(255 * std::min(1.0f, std::abs(ncc))));
  return ncc < 0 ? Colour{level, 0, 0} : Colour{level, level, level};
}

// Slices of regions side by side, from the first to the last.
absl::StatusOr<std::string> RegionsPng(const v1::RegionSimilarity& regions) {
  auto grid = FromProto(regions.grid());
  if (!grid.ok()) return grid.status();
  if (regions.ncc_size() != grid->voxel_count())
    return absl::DataLossError("the server sent another number of regions than it told");
  std::vector<Picture> slices;
  for (int64_t z = 0; z < grid->size[2]; ++z) {
    Grid plane = *grid;
    plane.size = {grid->size[0] * kRegionPixels, grid->size[1] * kRegionPixels, 1};
    Picture slice(plane);
    for (int y = 0; y < slice.height; ++y) {
      for (int x = 0; x < slice.width; ++x) {
        const int64_t region =
            (z * grid->size[1] + y / kRegionPixels) * grid->size[0] + x / kRegionPixels;
        slice.Set(
            static_cast<size_t>(y) * static_cast<size_t>(slice.width) + static_cast<size_t>(x),
            RegionColour(regions.ncc(static_cast<int>(region))));
      }
    }
    slices.push_back(std::move(slice));
  }
  return EncodeSideBySide(slices);
}

}  // namespace

std::vector<std::vector<std::string>> RegistrationFigures(const v1::Registration& registration) {
  const auto& verdict = registration.verdict();
  std::vector<std::vector<std::string>> rows = {
      {"name", registration.name()},
      {"fixed", registration.fixed()},
      {"moving", registration.moving()},
      {"model", registration.model().model()},
      {"quality", absl::StrCat(v1::RegistrationVerdict::Quality_Name(verdict.quality()), ": ",
                               verdict.reason())},
      {"correlation",
       absl::StrFormat("%.4f, before %.4f", verdict.ncc_after(), verdict.ncc_before())},
      {"local correlation",
       absl::StrFormat("%.4f, before %.4f", verdict.local_ncc_after(), verdict.local_ncc_before())},
      {"overlap", absl::StrFormat("%.1f %%", verdict.overlap_percent())},
      {"Jacobian", absl::StrFormat("%.3f to %.3f, %.3f %% folded, SDlogJ %.4f",
                                   verdict.jacobian_min(), verdict.jacobian_max(),
                                   verdict.folding_percent(), verdict.sd_log_jacobian())}};
  if (verdict.has_inverse_consistency_mm()) {
    rows.push_back(
        {"inverse consistency", absl::StrFormat("%.3f mm", verdict.inverse_consistency_mm())});
  }
  if (registration.has_inverse_residual_mm()) {
    rows.push_back({"residual of the inverse",
                    absl::StrFormat("%.4f mm", registration.inverse_residual_mm())});
  }
  if (verdict.has_feature_residual_after()) {
    rows.push_back(
        {"feature residual", absl::StrFormat("%.4f, before %.4f", verdict.feature_residual_after(),
                                             verdict.feature_residual_before())});
  }
  rows.push_back({"time on the device",
                  google::protobuf::util::TimeUtil::ToString(registration.compute_time())});
  return rows;
}

absl::StatusOr<std::string> RegistrationReport(const v1::Registration& registration,
                                               const Volume& fixed, const Volume& moving,
                                               const SpatialMap& fixed_to_moving) {
  auto pictures = DrawMap(fixed, moving, fixed_to_moving, kEdge);
  if (!pictures.ok()) return pictures.status();
  auto rows = RegistrationFigures(registration);
  for (auto& row : rows) {
    for (std::string& cell : row) cell = HtmlText(cell);
  }
  std::string body = HtmlTable(rows, false);
  absl::StrAppend(
      &body,
      "<p>The planes axial, coronal and sagittal through the middle of the fixed volume; the "
      "patient's right is on the left. Before: as the scanner has both volumes. After: the moving "
      "volume through fixed_to_moving.</p>\n",
      Pair("Checkerboard of fixed and moving", pictures->checkerboard_before,
           pictures->checkerboard_after),
      Pair("Overlay: fixed in green, moving in magenta", pictures->overlay_before,
           pictures->overlay_after),
      "<h2>The volumes</h2>\n", Figure(pictures->fixed, "fixed"), "<div class=\"pair\">",
      Figure(pictures->moving_before, "moving, before"),
      Figure(pictures->moving_after, "moving, after"), "</div>\n<h2>The map</h2>\n",
      Figure(pictures->warped_grid,
             absl::StrFormat("warped grid: lines of moving space %g mm apart", pictures->line_mm)),
      Figure(pictures->jacobian,
             "Jacobian determinant: blue halves the volume, white keeps it, red doubles it, black "
             "folds"));
  return HtmlPage(
      registration.display_name().empty() ? "Registration" : registration.display_name(), body);
}

absl::StatusOr<std::string> SearchReport(const std::string& query,
                                         const v1::SearchVolumesResponse& answer,
                                         const std::map<std::string, std::string>& previews) {
  const auto preview = [&](const std::string& volume) {
    const auto found = previews.find(volume);
    return found == previews.end() ? "" : HtmlPng(found->second, "central planes of " + volume);
  };
  std::vector<std::vector<std::string>> rows = {
      {"rank", "volume", "central planes", "cosine", "aligned", "quality", "regions"}};
  for (const auto& hit : answer.hits()) {
    std::vector<std::string> row = {
        absl::StrCat(rows.size()),
        absl::StrCat(HtmlText(hit.display_name()), "<br>", HtmlText(hit.volume()), "<br>",
                     HtmlText(hit.modality())),
        preview(hit.volume()), absl::StrFormat("%.6f", hit.global_similarity())};
    if (hit.has_aligned()) {
      const auto& verdict = hit.aligned().verdict();
      row.push_back(absl::StrFormat("%.4f", hit.aligned().score()));
      row.push_back(absl::StrCat(v1::RegistrationVerdict::Quality_Name(verdict.quality()), "<br>",
                                 HtmlText(verdict.reason())));
      if (hit.aligned().has_regions()) {
        auto png = RegionsPng(hit.aligned().regions());
        if (!png.ok()) return png.status();
        row.push_back(HtmlPng(*png, "correlation in each region, slice by slice"));
      }
    }
    row.resize(rows[0].size());
    rows.push_back(std::move(row));
  }
  return HtmlPage(
      "Volumes most like " + query,
      absl::StrCat(preview(query), "<p>", answer.exact() ? "Each" : "By a graph", " of ",
                   answer.candidate_count(), " volumes, by ", HtmlText(answer.model().model()),
                   ". Regions: correlation after alignment in each, slice by slice; white fits, "
                   "black does not, red is inverted, blue shows nothing.</p>\n",
                   HtmlTable(rows, true)));
}

}  // namespace gvsl
