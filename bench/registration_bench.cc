// Registration of real pairs: ours beside elastix, in one run.
//
//   gvsl_registration_bench DATA [--set hippocampus|fetal|decubitus|lung] [--pairs N]
//       [--model F.safetensors] [--untrained SEED] [--mode refine|network|both]
//       [--steps N] [--smoothness W] [--lncc W] [--mind W] [--features W] [--discrete 0|1]
//       [--elastix PARAMETERS] [--verbose]
//
// DATA is the folder with registration_pairs.json and volumes/. Prints Markdown. elastix and
// transformix (Debian's `elastix`) run with affine and B-spline parameter files of
// bench/registration_parameters.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/elastix.h"
#include "imaging/image_file.h"
#include "imaging/warp_volume.h"
#include "model/extractor.h"
#include "model/model_file.h"
#include "model/network.h"
#include "model/registration.h"
#include "model/state.h"

namespace {

using gvsl::Case;
using gvsl::Checked;
using gvsl::Elastix;
using gvsl::Fail;
using gvsl::Pair;
using gvsl::Read;
using gvsl::SecondsSince;
using gvsl::Volume;

constexpr char kUsage[] =
    "usage: gvsl_registration_bench DATA [--set hippocampus|fetal|decubitus|lung] [--pairs N]\n"
    "  [--model F.safetensors] [--untrained SEED] [--mode refine|network|both] [--steps N]\n"
    "  [--smoothness W] [--lncc W] [--mind W] [--features W]\n"
    "  [--discrete 0|1] [--elastix PARAMETERS] [--verbose]\n";

std::vector<Pair> PairsOf(const std::string& data, const std::string& set) {
  std::ifstream file(data + "/registration_pairs.json");
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (json.is_discarded()) Fail(data + "/registration_pairs.json cannot be read");
  std::vector<Pair> pairs;
  const auto hippocampus = [&](int id) {
    char name[64];
    std::snprintf(name, sizeof(name), "/hippocampus_%03d.nii.gz", id);
    const std::string folder = data + "/volumes/hippocampus_mr";
    return Case{folder + "/images" + name, folder + "/labels" + name, ""};
  };
  const auto fetal = [&](const std::string& folder) {
    return Case{data + "/" + folder + "/srr.nii.gz", data + "/" + folder + "/parcellation.nii.gz",
                data + "/" + folder + "/lmks.nii.gz"};
  };
  const auto plain = [&](const std::string& path) { return Case{data + "/" + path, "", ""}; };
  if (set == "hippocampus") {
    for (const auto& pair : json["hippocampus_inter_subject"]["pairs"]) {
      const int fixed = pair["fixed_id"], moving = pair["moving_id"];
      pairs.push_back(
          {absl::StrCat(fixed, " / ", moving), hippocampus(fixed), hippocampus(moving)});
    }
  } else if (set == "fetal") {
    for (const auto& pair : json["fetal_inter_age"]) {
      const std::string fixed = pair["fixed"], moving = pair["moving"];
      pairs.push_back(
          {fixed.substr(fixed.find("GA"), 4) + " / " + moving.substr(moving.find("GA"), 4),
           fetal(fixed), fetal(moving)});
    }
  } else if (set == "decubitus") {
    for (const auto& pair : json["siemens_t1_same_subject_rigid"]) {
      pairs.push_back({"supine / left decubitus",
                       plain(std::string(pair["fixed"]) + "/ref/dcm2niix.nii.gz"),
                       plain(std::string(pair["moving"]) + "/ref/dcm2niix.nii.gz")});
    }
  } else if (set == "lung") {
    const std::string folder = "volumes/elastix_lung_ct/";
    pairs.push_back({"baseline / follow-up", plain(folder + "3DCT_lung_baseline_small.mha"),
                     plain(folder + "3DCT_lung.mha")});
  } else {
    Fail("there is no set called " + set);
  }
  return pairs;
}

template <typename Visit>
void ForEachLabel(const Volume& labels, const Visit& visit) {
  gvsl::VisitVoxelType(labels.type(), [&](auto zero) {
    const auto* voxels = labels.voxels<decltype(zero)>();
    for (int64_t i = 0; i < labels.voxel_count(); ++i) visit(i, static_cast<int32_t>(voxels[i]));
  });
}

// Dice of every label of `a`, ascending, background left out.
std::vector<double> DiceOf(const Volume& a, const Volume& b) {
  std::map<int32_t, std::array<double, 3>> counts;  // in a, in b, in both
  std::vector<int32_t> of_a(static_cast<size_t>(a.voxel_count()));
  ForEachLabel(a, [&](int64_t i, int32_t label) {
    of_a[static_cast<size_t>(i)] = label;
    counts[label][0] += 1;
  });
  ForEachLabel(b, [&](int64_t i, int32_t label) {
    counts[label][1] += 1;
    if (of_a[static_cast<size_t>(i)] == label) counts[label][2] += 1;
  });
  std::vector<double> dice;
  for (const auto& [label, count] : counts) {
    if (label != 0 && count[0] > 0) dice.push_back(2 * count[2] / (count[0] + count[1]));
  }
  return dice;
}

// Landmarks as the centres of their labels.
std::map<int32_t, gvsl::Vec3> LandmarksOf(const Volume& labels) {
  std::map<int32_t, std::array<double, 4>> sums;
  const auto& size = labels.grid().size;
  ForEachLabel(labels, [&](int64_t i, int32_t label) {
    if (label == 0) return;
    auto& sum = sums[label];
    sum[0] += static_cast<double>(i % size[0]);
    sum[1] += static_cast<double>(i / size[0] % size[1]);
    sum[2] += static_cast<double>(i / (size[0] * size[1]));
    sum[3] += 1;
  });
  std::map<int32_t, gvsl::Vec3> points;
  for (const auto& [label, sum] : sums) {
    points[label] =
        labels.grid().IndexToPhysical({sum[0] / sum[3], sum[1] / sum[3], sum[2] / sum[3]});
  }
  return points;
}

double LandmarkErrorMm(const Volume& fixed, const Volume& moving,
                       const std::function<gvsl::Vec3(const gvsl::Vec3&)>& fixed_to_moving) {
  const auto in_fixed = LandmarksOf(fixed), in_moving = LandmarksOf(moving);
  double sum = 0, count = 0;
  for (const auto& [label, point] : in_fixed) {
    const auto found = in_moving.find(label);
    if (found == in_moving.end()) continue;
    const gvsl::Vec3 at = fixed_to_moving(point);
    sum += std::hypot(at[0] - found->second[0], at[1] - found->second[1], at[2] - found->second[2]);
    ++count;
  }
  return count > 0 ? sum / count : 0;
}

gvsl::Vec3 CentreOf(const gvsl::Grid& grid) {
  gvsl::Vec3 middle;
  for (int i = 0; i < 3; ++i) middle[i] = static_cast<double>(grid.size[i] - 1) / 2;
  return grid.IndexToPhysical(middle);
}

// The angle of the rotation nearest to the affine part, in degrees (polar decomposition by
// Newton's iteration).
double RotationDegrees(const gvsl::Mat3& matrix, const gvsl::Mat3& other) {
  const auto nearest = [](gvsl::Mat3 m) {
    for (int step = 0; step < 50; ++step) {
      const auto inverse = gvsl::AffineMap{m, {0, 0, 0}}.Inverse();
      for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) m[r][c] = (m[r][c] + inverse->matrix[c][r]) / 2;
      }
    }
    return m;
  };
  const gvsl::Mat3 a = nearest(matrix), b = nearest(other);
  double trace = 0;  // of a b^T
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) trace += a[r][c] * b[r][c];
  }
  return std::acos(std::clamp((trace - 1) / 2, -1.0, 1.0)) * 180 / M_PI;
}

struct Row {
  std::vector<double> dice;
  double landmarks_mm = 0, local_ncc = 0, ncc = 0, folding = 0, seconds = 0;
};

void Print(const char* name, const std::vector<Row>& rows) {
  Row mean;
  for (const Row& row : rows) {
    const double share = 1 / static_cast<double>(rows.size());
    mean.dice.resize(std::max(mean.dice.size(), row.dice.size()));
    for (size_t i = 0; i < row.dice.size(); ++i) mean.dice[i] += row.dice[i] * share;
    mean.landmarks_mm += row.landmarks_mm * share;
    mean.local_ncc += row.local_ncc * share;
    mean.ncc += row.ncc * share;
    mean.folding += row.folding * share;
    mean.seconds += row.seconds * share;
  }
  std::printf("| %s |", name);
  double all = 0;
  for (double dice : mean.dice) all += dice / static_cast<double>(mean.dice.size());
  if (!mean.dice.empty()) std::printf(" %.4f", all);
  std::printf(" |");
  for (double dice : mean.dice) std::printf(" %.3f", dice);
  std::printf(" | %.2f | %.4f | %.4f | %.3f | %.2f |\n", mean.landmarks_mm, mean.ncc,
              mean.local_ncc, mean.folding, mean.seconds);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> options = {
      {"set", "hippocampus"}, {"pairs", "1000"}, {"mode", "refine"}, {"model", ""},
      {"untrained", ""},      {"steps", "50"},   {"smoothness", ""}, {"lncc", "1"},
      {"mind", "0"},          {"features", "0"}, {"elastix", ""},    {"discrete", "0"},
      {"verbose", ""}};
  std::string data;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--verbose") {
      options["verbose"] = "1";
    } else if (word.rfind("--", 0) == 0 && options.count(word.substr(2)) > 0 && i + 1 < argc) {
      options[word.substr(2)] = argv[++i];
    } else {
      data = word;
    }
  }
  if (data.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (!gvsl::InitializeLibTorch({"cpu", 0}).ok()) return 1;
  gvsl::ModelCard card;
  gvsl::RegistrationOptions registering;
  registering.use_network = options["mode"] != "refine";
  registering.refine_steps = options["mode"] == "network" ? 0 : std::stoi(options["steps"]);
  if (!options["smoothness"].empty())
    registering.smoothness_weight = std::stod(options["smoothness"]);
  registering.metric = {std::stod(options["lncc"]), std::stod(options["mind"]),
                        std::stod(options["features"])};
  registering.discrete_stage = options["discrete"] == "1";
  if (options["set"] == "hippocampus") {
    registering.initialisation = gvsl::Initialisation::kCentreOfView;
  }
  if (options["set"] == "decubitus") {
    registering.linear = gvsl::LinearModel::kRigid;
    registering.deformable = false;
  }
  const bool rigid = options["set"] == "decubitus";
  gvsl::GvslNetwork network(nullptr);
  if (!options["model"].empty()) {
    gvsl::LoadedModel model = Checked(gvsl::LoadModel(options["model"]));
    if (!options["untrained"].empty()) {
      model.state = gvsl::InitialState(model.card.widths, std::stoull(options["untrained"]));
    }
    card = model.card;
    network = gvsl::GvslNetwork(card);
    if (!network->LoadState(model.state).ok()) Fail("the weights do not fit");
  }
  std::vector<Row> before, ours, elastix;
  const std::string modality = options["set"] == "lung" ? "CT" : "MR";
  std::vector<Pair> pairs = PairsOf(data, options["set"]);
  if (pairs.size() > std::stoul(options["pairs"])) pairs.resize(std::stoul(options["pairs"]));
  std::printf(
      "| %zu pairs | mean Dice | of each label | landmarks mm | NCC | local NCC | folding %% | "
      "seconds a pair |\n|---|---|---|---|---|---|---|---|\n",
      pairs.size());
  std::map<std::string, int> qualities;
  for (const Pair& pair : pairs) {
    const Volume fixed = Read(pair.fixed.image, gvsl::VolumeKind::kImage, modality);
    const Volume moving = Read(pair.moving.image, gvsl::VolumeKind::kImage, modality);
    const auto start = std::chrono::steady_clock::now();
    const auto registration = Checked(gvsl::Register(
        {&fixed, &moving}, card, network.is_empty() ? nullptr : network.get(), registering, {}));
    Row row, plain, its;
    row.seconds = SecondsSince(start);
    const gvsl::RegistrationVerdict& verdict = registration.verdict;
    ++qualities[gvsl::QualityName(verdict.quality)];
    row.local_ncc = verdict.local_ncc_after;
    row.ncc = verdict.ncc_after;
    row.folding = verdict.jacobian.non_positive_percent;
    plain.local_ncc = verdict.local_ncc_before;
    plain.ncc = verdict.ncc_before;
    gvsl::SpatialMap nothing;
    if (registering.initialisation == gvsl::Initialisation::kCentreOfView) {
      const gvsl::Vec3 from = CentreOf(fixed.grid()), to = CentreOf(moving.grid());
      for (int r = 0; r < 3; ++r) nothing.affine.translation_mm[r] = to[r] - from[r];
    }
    Elastix peer(options["elastix"], rigid);
    const bool with_peer = !options["elastix"].empty();
    if (with_peer) its.seconds = peer.Register(pair);
    if (!pair.fixed.labels.empty()) {
      const Volume labels = Read(pair.fixed.labels, gvsl::VolumeKind::kLabels, "");
      const Volume moving_labels = Read(pair.moving.labels, gvsl::VolumeKind::kLabels, "");
      const auto carried = [&](const gvsl::SpatialMap& map) {
        return DiceOf(labels, Checked(gvsl::WarpVolume(moving_labels, map, labels.grid())));
      };
      row.dice = carried(registration.fixed_to_moving);
      plain.dice = carried(nothing);
      if (with_peer) its.dice = DiceOf(labels, peer.Labels(pair));
    }
    if (with_peer && !rigid) its.folding = peer.FoldingPercent();
    if (!pair.fixed.landmarks.empty()) {
      const Volume a = Read(pair.fixed.landmarks, gvsl::VolumeKind::kLabels, "");
      const Volume b = Read(pair.moving.landmarks, gvsl::VolumeKind::kLabels, "");
      row.landmarks_mm = LandmarkErrorMm(a, b, gvsl::PointMapper(registration.fixed_to_moving));
      plain.landmarks_mm = LandmarkErrorMm(a, b, gvsl::PointMapper(nothing));
      if (with_peer) {
        its.landmarks_mm =
            LandmarkErrorMm(a, b, [&](const gvsl::Vec3& point) { return peer.MapPoint(point); });
      }
    }
    before.push_back(plain);
    ours.push_back(row);
    elastix.push_back(its);
    if (!options["verbose"].empty()) {
      Print(pair.name.c_str(), {row});
      std::printf("  %s: %s\n", gvsl::QualityName(verdict.quality), verdict.reason.c_str());
    }
    if (rigid && with_peer) {
      std::printf(
          "rotation: %.2f degrees by ours, %.2f degrees between ours and elastix's\n\n",
          RotationDegrees(registration.fixed_to_moving.affine.matrix, gvsl::AffineMap().matrix),
          RotationDegrees(registration.fixed_to_moving.affine.matrix, peer.Rotation()));
    }
  }
  Print("before", before);
  if (!options["elastix"].empty()) Print("elastix", elastix);
  Print("ours", ours);
  for (const auto& [name, count] : qualities) std::printf("%s: %d  ", name.c_str(), count);
  std::printf("\n");
  return 0;
}
