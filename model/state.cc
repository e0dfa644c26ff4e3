#include "model/state.h"

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"
#include "imaging/status_reason.h"
#include "model/shown.h"

namespace gvsl {
namespace {

constexpr char kUnetPrefix[] = "unet.";
constexpr char kCardKey[] = "gvsl_card";
constexpr char kWeightsKey[] = "gvsl_weights_sha256";
constexpr size_t kMostNamed = 12;  // tensors named in one message

// Conv, GroupNorm, conv, GroupNorm of a DoubleConv; LeakyReLU has no tensors.
void AddDoubleConv(const std::string& prefix, int64_t in, int64_t out,
                   std::vector<TensorSpec>& layout) {
  for (const auto& [index, channels] : {std::pair{0, in}, std::pair{3, out}}) {
    layout.push_back(
        {absl::StrCat(prefix, ".double_conv.", index, ".weight"), {out, channels, 3, 3, 3}});
    layout.push_back({absl::StrCat(prefix, ".double_conv.", index, ".bias"), {out}});
    layout.push_back({absl::StrCat(prefix, ".double_conv.", index + 1, ".weight"), {out}});
    layout.push_back({absl::StrCat(prefix, ".double_conv.", index + 1, ".bias"), {out}});
  }
}

void AddLayer(const std::string& name, std::vector<int64_t> weight,
              std::vector<TensorSpec>& layout) {
  const int64_t out = weight[0];
  layout.push_back({name + ".weight", std::move(weight)});
  layout.push_back({name + ".bias", {out}});
}

std::string ShapeText(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) absl::StrAppend(&text, i > 0 ? ", " : "", shape[i]);
  return text + "]";
}

// The official name, whatever wrapper saved it: DataParallel's `module.`, and the U-Net's own
// `unet.`.
std::string OfficialName(const std::string& name, const std::set<std::string>& known) {
  std::string plain = name.rfind("module.", 0) == 0 ? name.substr(7) : name;
  if (known.count(plain) == 0 && known.count(kUnetPrefix + plain) > 0) plain = kUnetPrefix + plain;
  return plain;
}

// Up to kMostNamed names and how many more there are.
std::string Listed(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < kMostNamed; ++i)
    absl::StrAppend(&text, i > 0 ? ", " : "", names[i]);
  if (names.size() > kMostNamed)
    absl::StrAppend(&text, " and ", names.size() - kMostNamed, " more");
  return text;
}

}  // namespace

std::vector<TensorSpec> StateLayout(const std::array<int64_t, 5>& widths) {
  const int64_t hidden = HeadWidth(widths[0]);
  std::vector<TensorSpec> layout;
  AddDoubleConv("unet.inc", 1, widths[0], layout);
  for (size_t i = 1; i < 5; ++i) {
    AddDoubleConv(absl::StrCat("unet.down", i, ".maxpool_conv.1"), widths[i - 1], widths[i],
                  layout);
  }
  for (size_t i = 1; i < 5; ++i) {
    AddDoubleConv(absl::StrCat("unet.up", i, ".conv"), widths[4 - i] + widths[5 - i], widths[4 - i],
                  layout);
  }
  AddDoubleConv("f_conv", 2 * widths[4], widths[4] / 2, layout);
  AddDoubleConv("sp_conv", 2 * widths[0], hidden, layout);
  AddLayer("res_conv.0", {hidden, widths[0], 3, 3, 3}, layout);
  AddLayer("res_conv.1", {hidden}, layout);
  AddLayer("res_conv.3", {1, hidden, 1, 1, 1}, layout);
  AddLayer("out_flow", {3, hidden, 3, 3, 3}, layout);
  for (const auto& [name, count] :
       {std::pair{"fc_rot", int64_t{3}}, std::pair{"fc_scl", int64_t{3}},
        std::pair{"fc_trans", int64_t{3}}, std::pair{"fc_shear", int64_t{6}}}) {
    AddLayer(name, {count, widths[4] / 2}, layout);
  }
  return layout;
}

absl::StatusOr<FittedState> FitState(const StateDict& state) {
  // The names do not depend on the widths.
  std::set<std::string> known;
  for (const TensorSpec& spec : StateLayout({8, 16, 32, 64, 128})) known.insert(spec.name);
  std::map<std::string, at::Tensor> tensors;
  std::vector<std::string> unexpected;
  for (const auto& [name, tensor] : state) {
    const std::string official = OfficialName(name, known);
    if (known.count(official) == 0 || !tensors.emplace(official, tensor).second) {
      unexpected.push_back(Shown(name));
    }
  }

  FittedState fitted;
  fitted.has_heads = false;
  for (const auto& [name, tensor] : tensors) {
    if (name.rfind(kUnetPrefix, 0) != 0) fitted.has_heads = true;
  }
  // Level i's width is the number of filters of its first convolution; where that tensor is missing
  // or no convolution, base is assumed, and the tensor reported.
  fitted.widths = {32, 64, 128, 256, 512};
  for (size_t i = 0; i < 5; ++i) {
    const std::string first =
        i == 0 ? "unet.inc.double_conv.0.weight"
               : absl::StrCat("unet.down", i, ".maxpool_conv.1.double_conv.0.weight");
    const auto found = tensors.find(first);
    if (found != tensors.end() && found->second.dim() == 5 && found->second.size(0) >= 8 &&
        found->second.size(0) <= 4096 && found->second.size(0) % 8 == 0) {
      fitted.widths[i] = found->second.size(0);
    }
  }
  std::vector<std::string> missing, misshapen;
  for (const TensorSpec& spec : StateLayout(fitted.widths)) {
    if (!fitted.has_heads && spec.name.rfind(kUnetPrefix, 0) != 0) continue;
    const auto found = tensors.find(spec.name);
    if (found == tensors.end()) {
      missing.push_back(spec.name);
    } else if (found->second.sizes() != at::IntArrayRef(spec.shape)) {
      misshapen.push_back(absl::StrCat(spec.name, " is ", ShapeText(found->second.sizes()),
                                       " where ", ShapeText(spec.shape), " is needed"));
    } else {
      fitted.state.emplace_back(spec.name, found->second.to(at::kFloat).contiguous());
    }
  }
  if (missing.empty() && misshapen.empty() && unexpected.empty()) return fitted;
  std::string text = "the tensors are not those of a GVSL network.";
  if (!missing.empty())
    absl::StrAppend(&text, " Missing (", missing.size(), "): ", Listed(missing), ".");
  if (!unexpected.empty())
    absl::StrAppend(&text, " Unexpected (", unexpected.size(), "): ", Listed(unexpected), ".");
  if (!misshapen.empty())
    absl::StrAppend(&text, " Misshapen (", misshapen.size(), "): ", Listed(misshapen), ".");
  return WithReason(absl::InvalidArgumentError(text), "MISMATCHED_TENSORS");
}

std::string WeightsDigest(const StateDict& state) {
  Sha256 hash;
  for (const auto& [name, tensor] : state) {
    const at::Tensor plain = tensor.to(at::kCPU, at::kFloat).contiguous();
    const std::string head = name + ShapeText(plain.sizes());
    hash.Update(head.data(), head.size() + 1);  // with its end
    hash.Update(plain.data_ptr(), plain.nbytes());
  }
  return hash.Finish();
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& safetensors_path, int64_t memory_bytes) {
  auto file = ReadSafetensors(safetensors_path, memory_bytes);
  if (!file.ok()) return file.status();
  std::string card_text, weights;
  for (const auto& [key, value] : file->metadata) {
    if (key == kCardKey) card_text = value;
    if (key == kWeightsKey) weights = value;
  }
  if (card_text.empty()) {
    return WithReason(
        absl::InvalidArgumentError("the safetensors file has no GVSL model card in its metadata"),
        "UNREADABLE_MODEL_FILE");
  }
  auto card = CardFromJson(card_text);
  if (!card.ok()) {
    return WithReason(card.status(), "UNREADABLE_MODEL_FILE");
  }
  auto fitted = FitState(file->state);
  if (!fitted.ok()) return fitted.status();
  if (fitted->widths != card->widths || fitted->state.size() != StateLayout(card->widths).size()) {
    return WithReason(
        absl::InvalidArgumentError("the model card's widths are not those of the tensors"),
        "MISMATCHED_TENSORS");
  }
  LoadedModel model;
  model.card = *std::move(card);
  model.state = std::move(fitted->state);
  model.weights_sha256 = WeightsDigest(model.state);
  if (!weights.empty() && weights != model.weights_sha256) {
    return WithReason(
        absl::DataLossError("the weights are not those the file's own digest names; it is damaged"),
        "CHECKSUM_MISMATCH");
  }
  return model;
}

absl::Status SaveModel(const LoadedModel& model, const std::string& safetensors_path) {
  SafetensorsFile file;
  file.state = model.state;
  file.metadata = {{kCardKey, CardToJson(model.card)}, {kWeightsKey, WeightsDigest(model.state)}};
  return WriteSafetensors(file, safetensors_path);
}

}  // namespace gvsl
