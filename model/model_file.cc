#include "model/model_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "imaging/mix64.h"
#include "imaging/status_reason.h"
#include "model/mapped_file.h"
#include "model/memory_budget.h"
#include "model/state.h"

namespace gvsl {
namespace {

// The k-th tensor's i-th value in [-1, 1), by a hash of both: the same on every machine and in any
// order.
double UniformValue(uint64_t seed, uint64_t k, uint64_t i) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
  const uint64_t bits = Mix64((seed * kGolden + (k << 40) + i) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1p-52 - 1;
}

// Heads whose output is a transform: near zero, so that an untrained network aligns by the
// identity, but not zero, so that gradients pass.
bool IsTransformHead(const std::string& name) {
  return name.rfind("out_flow.", 0) == 0 || name.rfind("fc_", 0) == 0;
}

at::Tensor InitialTensor(const TensorSpec& spec, uint64_t seed, uint64_t k) {
  const bool bias =
      spec.name.size() > 5 && spec.name.compare(spec.name.size() - 5, 5, ".bias") == 0;
  if (bias) return at::zeros(spec.shape);
  if (spec.shape.size() == 1) return at::ones(spec.shape);  // GroupNorm
  at::Tensor tensor = at::empty(spec.shape);
  double fan_in = 1;
  for (size_t i = 1; i < spec.shape.size(); ++i) fan_in *= static_cast<double>(spec.shape[i]);
  // He et al. 2015, uniform, for LeakyReLU of slope 0.2.
  double bound = std::sqrt(6 / ((1 + 0.2 * 0.2) * fan_in));
  if (IsTransformHead(spec.name)) bound *= 1e-3;
  float* values = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = static_cast<float>(bound * UniformValue(seed, k, static_cast<uint64_t>(i)));
  }
  return tensor;
}

int64_t BytesOf(const std::vector<TensorSpec>& layout) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : layout) {
    bytes += std::accumulate(spec.shape.begin(), spec.shape.end(),
                             static_cast<int64_t>(sizeof(float)), std::multiplies<>());
  }
  return bytes;
}

}  // namespace

StateDict InitialState(const std::array<int64_t, 5>& widths, uint64_t seed) {
  StateDict state;
  for (const TensorSpec& spec : StateLayout(widths)) {
    state.emplace_back(spec.name, InitialTensor(spec, seed, state.size()));
  }
  return state;
}

ModelInfo InfoOf(const LoadedModel& model) {
  ModelInfo info;
  info.card = model.card;
  info.weights_sha256 = model.weights_sha256;
  info.preprocessing_sha256 = PreprocessingDigest(model.card);
  info.fingerprint = Fingerprint(model.card, model.weights_sha256);
  for (const auto& [name, tensor] : model.state) info.parameter_count += tensor.numel();
  return info;
}

namespace {

absl::StatusOr<ModelInfo> Save(LoadedModel& model, const std::string& output) {
  // Widths taken from a file's tensors may be none that a card allows.
  if (absl::Status status = ValidateCard(model.card); !status.ok()) return status;
  model.weights_sha256 = WeightsDigest(model.state);
  if (absl::Status status = SaveModel(model, output); !status.ok()) return status;
  return InfoOf(model);
}

absl::StatusOr<LoadedModel> FromPth(const std::string& input, const ModelCard& card,
                                    int64_t memory_bytes) {
  auto state = ReadPth(input, memory_bytes);
  if (!state.ok()) return state.status();
  auto fitted = FitState(*state);
  if (!fitted.ok()) return fitted.status();
  LoadedModel model;
  model.card = card;
  model.card.widths = fitted->widths;
  model.card.size = SizeOf(fitted->widths);
  model.card.has_heads = fitted->has_heads;
  model.state = std::move(fitted->state);
  const std::vector<TensorSpec> layout = StateLayout(fitted->widths);
  if (absl::Status status = MemoryBudget(memory_bytes).Take(BytesOf(layout)); !status.ok()) {
    return status;
  }
  // The heads that a U-Net alone lacks.
  for (size_t k = model.state.size(); k < layout.size(); ++k) {
    model.state.emplace_back(layout[k].name, InitialTensor(layout[k], 0, k));
  }
  return model;
}

bool IsSafetensors(const MappedFile& file) {
  uint64_t header = 0;
  if (file.size() < sizeof(header) + 2) return false;
  std::memcpy(&header, file.data(), sizeof(header));
  return header <= file.size() - sizeof(header) && file.data()[sizeof(header)] == '{';
}

}  // namespace

bool CarriesCard(const std::string& path) {
  const auto file = MappedFile::Open(path);
  return file.ok() && IsSafetensors(**file);
}

namespace {

absl::Status CheckFinite(const StateDict& state) {
  for (const auto& [name, tensor] : state) {
    // Not at::isfinite, which takes memory for the largest tensor's answers.
    const float* values = tensor.data_ptr<float>();
    if (!std::all_of(values, values + tensor.numel(), [](float v) { return std::isfinite(v); })) {
      return WithReason(
          absl::InvalidArgumentError(absl::StrCat("tensor ", name, " holds NaN or infinity")),
          "UNREADABLE_MODEL_FILE");
    }
  }
  return absl::OkStatus();
}

// LibTorch throws; nothing does beyond this room.
template <typename F>
auto Guarded(F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("LibTorch: ", std::string(error.what()).substr(0, 300)));
  }
}

}  // namespace

absl::StatusOr<ModelInfo> ImportModelFile(const std::string& input, const ModelCard& card,
                                          const std::string& output, int64_t memory_bytes) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  return Guarded([&]() -> absl::StatusOr<ModelInfo> {
    if (absl::Status status = ValidateCard(card); !status.ok()) return status;
    auto file = MappedFile::Open(input);
    if (!file.ok()) return file.status();
    if ((*file)->size() == 0) {
      return WithReason(absl::InvalidArgumentError("the model file is empty"),
                        "UNREADABLE_MODEL_FILE");
    }
    auto model =
        IsSafetensors(**file) ? LoadModel(input, memory_bytes) : FromPth(input, card, memory_bytes);
    if (!model.ok()) return model.status();
    if (absl::Status status = CheckFinite(model->state); !status.ok()) return status;
    return Save(*model, output);
  });
}

absl::StatusOr<ModelInfo> CreateModelFile(const ModelCard& card, uint64_t seed,
                                          const std::string& output) {
  return Guarded([&]() -> absl::StatusOr<ModelInfo> {
    if (absl::Status status = ValidateCard(card); !status.ok()) return status;
    LoadedModel model;
    model.card = card;
    model.state = InitialState(card.widths, seed);
    return Save(model, output);
  });
}

absl::StatusOr<ModelInfo> ReadModelInfo(const std::string& path) {
  return Guarded([&]() -> absl::StatusOr<ModelInfo> {
    auto model = LoadModel(path);
    if (!model.ok()) return model.status();
    return InfoOf(*model);
  });
}

absl::Status ExportPth(const std::string& input, const std::string& output) {
  return Guarded([&]() -> absl::Status {
    auto model = LoadModel(input);
    if (!model.ok()) return model.status();
    return WritePth(model->state, output);
  });
}

}  // namespace gvsl
