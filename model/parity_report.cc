#include "model/parity_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "model/affine.h"
#include "model/losses.h"
#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;

// Bounds: a few times the difference between the official network in float32 and in float64, as
// measured when the goldens were made (largest: fields 1.5e-5, restored 2.2e-5, affine 3.5e-6,
// losses 6e-7, gradient norms 4.7e-4 relative, trajectory 3e-4 relative).
constexpr double kFieldBound = 1e-4;
constexpr double kRestoredBound = 2e-4;
constexpr double kAffineBound = 2e-5;
constexpr double kLossBound = 5e-6;
constexpr double kGradientBound = 2e-3;
constexpr double kTrajectoryBound = 2e-3;
constexpr double kLearningRate = 1e-4;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Losses {
  Tensor similarity, restoration, smoothness, total;
};

Losses LossesOf(const GvslOutput& output, const Tensor& fixed) {
  Losses losses;
  losses.similarity = OfficialCorrelationLoss(output.warped, fixed);
  losses.restoration = torch::mse_loss(output.restored, fixed);
  losses.smoothness = OfficialSmoothnessLoss(output.flow);
  losses.total = losses.similarity + losses.restoration + losses.smoothness;
  return losses;
}

double Relative(double value, double golden) {
  return std::abs(value - golden) / std::max(std::abs(golden), 1e-12);
}

// One case of a set, and the rows it has produced.
class CaseCheck {
 public:
  CaseCheck(const GoldenSet& set, const GoldenCase& golden_case, const StateDict& state,
            ParityRows& rows)
      : folder_(std::filesystem::path(set.folder) / golden_case.name),
        state_(state),
        rows_(rows),
        fixed_(FormulaVolume(set.fixed, golden_case.size)),
        moving_(FormulaVolume(set.moving, golden_case.size)) {
    ModelCard card;
    card.geometry = Geometry::kOfficial;
    network_ = GvslNetwork(card);
  }

  absl::Status Forward() {
    Restore();
    Compare("A", fixed_[0][0], 1e-6);  // libm's exp and sin, and one rounding
    Compare("B", moving_[0][0], 1e-6);
    const torch::NoGradGuard no_grad;
    const GvslOutput output = network_->forward(fixed_, moving_);
    CompareFeatures("A", output.fixed);
    CompareFeatures("B", output.moving);
    Compare("dense_A_ch0_1", output.fixed.dense[0].narrow(0, 0, 2), kFieldBound);
    Compare("xcor", output.embedding[0], kAffineBound);
    Compare("raw_rot", output.rotation[0], kAffineBound);
    Compare("raw_scl", output.scale[0], kAffineBound);
    Compare("raw_trans", output.translation[0], kAffineBound);
    Compare("raw_shear", output.shear[0], kAffineBound);
    Compare("affine", output.affine[0], kAffineBound);
    Compare("affine_x8",
            AffineMatrix(output.rotation * 8, output.scale * 8, output.translation,
                         output.shear * 8)[0],
            kAffineBound);
    Compare("aff_B", output.moving_affine[0], kFieldBound);
    CompareSummary("aff_dense_B", output.moving_dense_affine[0]);
    Compare("flow", output.flow[0], kFieldBound);
    Compare("warped", output.warped[0], kFieldBound);
    Compare("restored", output.restored[0], kRestoredBound);
    Compare("stn_zero_flow_B", OfficialFlowWarp(moving_, torch::zeros_like(output.flow))[0],
            kFieldBound);
    Compare("affine_identity_B", OfficialAffineWarp(moving_, torch::eye(3, 4).unsqueeze(0))[0],
            kFieldBound);
    CompareLosses(LossesOf(output, fixed_));
    return status_;
  }

  absl::Status Training() {
    for (const bool detach : {true, false}) {
      const std::string mode = detach ? "detached" : "differentiable";
      network_->set_detach_affine(detach);
      CompareGradients(absl::StrCat("grad_norms_", mode));
      CompareTrajectory(absl::StrCat("adam_trajectory_", mode));
    }
    return status_;
  }

 private:
  std::string File(const std::string& name) const { return (folder_ / name).string(); }

  // Keeps the first failure.
  void Note(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }

  void Restore() { Note(network_->LoadState(state_)); }

  void Compare(const std::string& name, const Tensor& value, double bound) {
    auto golden = ReadNpy(File(name + ".npy"));
    if (!golden.ok()) {
      Note(golden.status());
      return;
    }
    // The goldens are not of one mind about axes of length one.
    const Tensor ours = value.squeeze(), theirs = golden->squeeze();
    if (ours.sizes() != theirs.sizes()) {
      Note(absl::InvalidArgumentError(
          absl::StrCat(File(name + ".npy"), " has another shape than the network's output")));
      return;
    }
    // In float64, where a NaN stays one.
    const Tensor difference = (ours.to(torch::kDouble) - theirs.to(torch::kDouble)).abs();
    rows_.push_back({name, difference.max().item<double>(), bound});
  }

  void CompareSummary(const std::string& name, const Tensor& dense) {
    using torch::indexing::None;
    using torch::indexing::Slice;
    const Slice every_fourth(None, None, 4);
    Compare(name + "_s4", dense.index({Slice(), every_fourth, every_fourth, every_fourth}),
            kFieldBound);
    Compare(name + "_mean", dense.mean({1, 2, 3}), kFieldBound);
    Compare(name + "_std", dense.std({1, 2, 3}, /*unbiased=*/false), kFieldBound);
  }

  void CompareFeatures(const std::string& which, const UNetFeatures& features) {
    Compare("x5_" + which, features.global[0], kFieldBound);
    Compare("gap_x5_" + which, features.global[0].mean({1, 2, 3}), kAffineBound);
    CompareSummary("dense_" + which, features.dense[0]);
  }

  void CompareLosses(const Losses& losses) {
    const std::string path = File("losses.json");
    auto text = ReadWholeFile(path);
    if (!text.ok()) {
      Note(text.status());
      return;
    }
    try {
      const auto json = nlohmann::json::parse(*text);
      const auto row = [&](const std::string& name, const Tensor& value, double golden) {
        rows_.push_back({"loss " + name, std::abs(value.item<double>() - golden), kLossBound});
      };
      row("ncc", losses.similarity, json.at("losses").at("ncc").get<double>());
      row("mse", losses.restoration, json.at("losses").at("mse").get<double>());
      row("smooth", losses.smoothness, json.at("losses").at("smooth").get<double>());
      row("total", losses.total, json.at("total").get<double>());
    } catch (const nlohmann::json::exception& error) {
      Note(absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what())));
    }
  }

  void CompareGradients(const std::string& name) {
    auto table = ReadTable(File(name + ".tsv"));
    if (!table.ok()) {
      Note(table.status());
      return;
    }
    Restore();
    network_->zero_grad();
    for (Tensor& parameter : network_->parameters()) parameter.mutable_grad() = Tensor();
    LossesOf(network_->forward(fixed_, moving_), fixed_).total.backward();
    const auto parameters = network_->named_parameters();
    double worst = table->size() == parameters.size() ? 0 : kInfinity;
    std::string worst_name = "number of tensors";
    for (const auto& row : *table) {
      const Tensor* parameter = row.size() == 2 ? parameters.find(row[0]) : nullptr;
      double error = kInfinity;
      if (parameter != nullptr && row[1] == "none") {
        error = parameter->grad().defined() ? kInfinity : 0;
      } else if (parameter != nullptr && parameter->grad().defined()) {
        error =
            Relative(parameter->grad().norm().item<double>(), std::strtod(row[1].c_str(), nullptr));
      }
      if (!(error <= worst)) {  // a NaN counts as worse
        worst = error;
        worst_name = row[0];
      }
    }
    rows_.push_back({absl::StrCat(name, ", worst: ", worst_name), worst, kGradientBound, true});
  }

  void CompareTrajectory(const std::string& name) {
    auto table = ReadTable(File(name + ".tsv"));
    if (!table.ok()) {
      Note(table.status());
      return;
    }
    Restore();
    torch::optim::Adam adam(network_->parameters(), torch::optim::AdamOptions(kLearningRate));
    double worst = 0;
    int steps = 0;
    for (size_t line = 1; line < table->size(); ++line, ++steps) {  // line 0 names the columns
      adam.zero_grad();
      for (Tensor& parameter : network_->parameters()) parameter.mutable_grad() = Tensor();
      const Losses losses = LossesOf(network_->forward(fixed_, moving_), fixed_);
      const std::array<Tensor, 4> values = {losses.similarity, losses.restoration,
                                            losses.smoothness, losses.total};
      const auto& row = (*table)[line];
      for (size_t i = 0; i < values.size(); ++i) {
        const double golden = i + 1 < row.size() ? std::strtod(row[i + 1].c_str(), nullptr) : NAN;
        const double error = Relative(values[i].item<double>(), golden);
        if (!(error <= worst)) worst = error;
      }
      losses.total.backward();
      adam.step();
    }
    if (steps == 0) worst = kInfinity;
    rows_.push_back({absl::StrCat(name, ", ", steps, " steps"), worst, kTrajectoryBound, true});
  }

  std::filesystem::path folder_;
  const StateDict& state_;
  ParityRows& rows_;
  Tensor fixed_, moving_;
  GvslNetwork network_{nullptr};
  absl::Status status_;
};

}  // namespace

absl::Status CheckCase(const GoldenSet& set, const GoldenCase& golden_case, const StateDict& state,
                       const ParityOptions& options, ParityRows& rows) {
  try {
    CaseCheck check(set, golden_case, state, rows);
    const absl::Status forward = check.Forward();
    if (!forward.ok() || !options.training) return forward;
    return check.Training();
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch failed: ", error.what()));
  }
}

int PrintParity(const std::string& title, const ParityRows& rows) {
  std::printf("\n%s\n%-72s %12s %10s\n", title.c_str(), "output", "error", "bound");
  int exceeded = 0;
  for (const ParityRow& row : rows) {
    std::printf("%-72s %12.3e %10.0e%s%s\n", row.output.c_str(), row.error, row.bound,
                row.relative ? " relative" : "", row.within_bound() ? "" : "  EXCEEDED");
    if (!row.within_bound()) ++exceeded;
  }
  return exceeded;
}

}  // namespace gvsl
