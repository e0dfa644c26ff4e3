#include "model/optimizer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
constexpr double kPolynomialPower = 0.9;

StateDict ZerosLike(const StateDict& state) {
  StateDict zeros;
  for (const auto& [name, tensor] : state) zeros.emplace_back(name, at::zeros_like(tensor));
  return zeros;
}

// What a tensor's steps are multiplied by (OptimizationOptions::rate_by_fan_in).
double RateFactor(const at::Tensor& parameter) {
  constexpr double kInputs = 216;  // 8 channels of 27 taps: the narrowest convolution but the first
  if (parameter.dim() != 5) return 1;
  return std::min(1.0, kInputs * static_cast<double>(parameter.size(0)) /
                           static_cast<double>(parameter.numel()));
}

}  // namespace

double LearningRate(const OptimizationOptions& options, int64_t done) {
  const double warmup =
      options.warmup_steps > 0
          ? std::min(1.0, static_cast<double>(done + 1) / static_cast<double>(options.warmup_steps))
          : 1.0;
  const double progress = static_cast<double>(done) / static_cast<double>(options.steps);
  double decay = 1;
  if (options.schedule == Schedule::kCosine) {
    decay = 0.5 * (1 + std::cos(3.14159265358979323846 * progress));
  } else if (options.schedule == Schedule::kPolynomial) {
    decay = std::pow(1 - progress, kPolynomialPower);
  }
  return options.learning_rate * warmup * decay;
}

Adam::Adam(StateDict parameters, const OptimizationOptions& options)
    : options_(options),
      parameters_(std::move(parameters)),
      means_(ZerosLike(parameters_)),
      squares_(ZerosLike(parameters_)) {
  if (options_.ema_decay <= 0) return;
  for (const auto& [name, tensor] : parameters_) {
    average_.emplace_back(name, tensor.detach().clone());
  }
}

void Adam::Step(double rate) {
  const at::NoGradGuard no_grad;
  ++steps_;
  const double count = static_cast<double>(steps_);
  const double step_size = rate / (1 - std::pow(kBeta1, count));
  const double root_correction = std::sqrt(1 - std::pow(kBeta2, count));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor parameter = parameters_[i].second;
    at::Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    at::Tensor &mean = means_[i].second, &square = squares_[i].second;
    if (options_.weight_decay > 0) {
      if (options_.decoupled_decay) {
        parameter.mul_(1 - rate * options_.weight_decay);
      } else {
        gradient = gradient + parameter * options_.weight_decay;
      }
    }
    mean.mul_(kBeta1).add_(gradient, 1 - kBeta1);
    square.mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
    const at::Tensor denominator = square.sqrt().div_(root_correction).add_(kEpsilon);
    const double factor = options_.rate_by_fan_in ? RateFactor(parameter) : 1;
    parameter.addcdiv_(mean, denominator, -step_size * factor);
  }
  if (average_.empty()) return;
  // The first averages would else be of the random beginning.
  const double decay = std::min(options_.ema_decay, (1 + count) / (10 + count));
  for (size_t i = 0; i < average_.size(); ++i) {
    average_[i].second.mul_(decay).add_(parameters_[i].second, 1 - decay);
  }
}

StateDict Adam::State() const {
  StateDict state;
  const auto add = [&](const char* prefix, const StateDict& part) {
    for (const auto& [name, tensor] : part) {
      state.emplace_back(absl::StrCat(prefix, name), tensor.detach());
    }
  };
  add("weights.", parameters_);
  add("mean.", means_);
  add("square.", squares_);
  add("average.", average_);
  return state;
}

absl::Status Adam::Load(const StateDict& state, int64_t steps) {
  const at::NoGradGuard no_grad;
  const StateDict own = State();
  bool same = own.size() == state.size();
  for (size_t i = 0; same && i < own.size(); ++i) {
    same = own[i].first == state[i].first && own[i].second.sizes() == state[i].second.sizes();
  }
  if (!same)
    return absl::InvalidArgumentError("it holds the tensors of another network or optimiser");
  for (size_t i = 0; i < own.size(); ++i) {
    at::Tensor target = own[i].second;
    target.copy_(state[i].second);
  }
  steps_ = steps;
  return absl::OkStatus();
}

double ClipGradients(const StateDict& parameters, double limit) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> norms;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.grad().defined()) norms.push_back(parameter.grad().norm());
  }
  if (norms.empty()) return 0;
  const double norm = at::stack(norms).norm().item<double>();
  if (limit > 0 && norm > limit) {
    for (const auto& [name, parameter] : parameters) {
      at::Tensor gradient = parameter.grad();
      if (gradient.defined()) gradient.mul_(limit / norm);
    }
  }
  return norm;
}

}  // namespace gvsl
