#include "model/golden_set.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "imaging/mix64.h"

namespace gvsl {
namespace {

using Json = nlohmann::json;

template <size_t N>
std::vector<std::array<double, N>> Rows(const Json& json) {
  std::vector<std::array<double, N>> rows;
  for (const auto& entry : json) {
    std::array<double, N> row;
    for (size_t i = 0; i < N; ++i) row[i] = entry.at(i).template get<double>();
    rows.push_back(row);
  }
  return rows;
}

VolumeFormula ParseFormula(const Json& json) {
  return {json.at("base").get<double>(), Rows<7>(json.at("gauss")), Rows<5>(json.at("sines"))};
}

// A hash as a number in [-1, 1).
double HashedUnit(uint64_t seed, uint64_t tensor, uint64_t index) {
  const uint64_t bits = Mix64(seed + (tensor << 32) + index);
  return std::ldexp(static_cast<double>(bits >> 40), -23) - 1;
}

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

bool EndsWith(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

double GainOf(const GoldenSet& set, const std::string& name) {
  double gain = 1;
  size_t longest = 0;
  for (const auto& [prefix, value] : set.gains) {
    if (StartsWith(name, prefix) && prefix.size() >= longest) {
      longest = prefix.size();
      gain = value;
    }
  }
  return gain;
}

at::Tensor FormulaTensor(const GoldenSet& set, uint64_t tensor_index, const std::string& name,
                         const std::vector<int64_t>& shape) {
  double offset = 0, factor = 0.05;  // a bias
  if (shape.size() > 1) {
    int64_t fan_in = 1;
    for (size_t axis = 1; axis < shape.size(); ++axis) fan_in *= shape[axis];
    factor = GainOf(set, name) * std::sqrt(6.0 / static_cast<double>(fan_in));
  } else if (EndsWith(name, ".weight")) {  // of a group norm
    offset = 1;
    factor = 0.1;
  }
  at::Tensor tensor = at::empty(shape, at::kFloat);
  float* values = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = static_cast<float>(offset + factor * HashedUnit(set.seed, tensor_index, i));
  }
  return tensor;
}

// The text after `key` in a .npy header, which is a Python dict literal.
std::string HeaderField(const std::string& header, const std::string& key) {
  const size_t at = header.find(absl::StrCat("'", key, "':"));
  return at == std::string::npos ? "" : header.substr(at + key.size() + 3);
}

}  // namespace

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path));
  }
  return text.str();
}

absl::StatusOr<std::vector<std::vector<std::string>>> ReadTable(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path);
  if (!text.ok()) return text.status();
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> fields;
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, '\t');) fields.push_back(cell);
    if (!fields.empty()) rows.push_back(fields);
  }
  return rows;
}

absl::StatusOr<GoldenSet> ReadGoldenSet(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "set.json").string();
  absl::StatusOr<std::string> text = ReadWholeFile(path);
  if (!text.ok()) return text.status();
  GoldenSet set;
  set.folder = folder;
  try {
    const Json json = Json::parse(*text);
    set.seed = json.at("seed").get<uint64_t>();
    for (const auto& gain : json.at("gains").items()) {
      set.gains.emplace_back(gain.key(), gain.value().get<double>());
    }
    set.fixed = ParseFormula(json.at("A"));
    set.moving = ParseFormula(json.at("B"));
    for (const auto& entry : json.at("cases").items()) {
      GoldenCase one{entry.key(), {}};
      for (size_t axis = 0; axis < 3; ++axis)
        one.size[axis] = entry.value().at(axis).get<int64_t>();
      if (*std::min_element(one.size.begin(), one.size.end()) < 1) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": case ", one.name, " has no voxels"));
      }
      set.cases.push_back(one);
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a golden set: ", error.what()));
  }
  if (set.cases.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " lists no case"));
  return set;
}

absl::StatusOr<StateDict> FormulaState(const GoldenSet& set) {
  const std::string path =
      (std::filesystem::absolute(set.folder) / ".." / "official_state_dict.tsv").lexically_normal();
  auto rows = ReadTable(path);
  if (!rows.ok()) return rows.status();
  StateDict state;
  for (const auto& row : *rows) {
    std::vector<int64_t> shape;
    std::istringstream sizes(row.size() == 2 ? row[1] : "");
    for (std::string size; std::getline(sizes, size, ',');) {
      shape.push_back(std::strtoll(size.c_str(), nullptr, 10));
    }
    if (shape.empty() || *std::min_element(shape.begin(), shape.end()) < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has a line that is not name, tab, shape: ", row[0]));
    }
    state.emplace_back(row[0], FormulaTensor(set, state.size(), row[0], shape));
  }
  return state;
}

at::Tensor FormulaVolume(const VolumeFormula& formula, const std::array<int64_t, 3>& size) {
  constexpr double kTwoPi = 6.28318530717958647692;
  at::Tensor volume = at::empty({1, 1, size[0], size[1], size[2]}, at::kFloat);
  float* value = volume.data_ptr<float>();
  for (int64_t k = 0; k < size[0]; ++k) {
    for (int64_t j = 0; j < size[1]; ++j) {
      for (int64_t i = 0; i < size[2]; ++i) {
        const double z = (k + 0.5) / size[0], y = (j + 0.5) / size[1], x = (i + 0.5) / size[2];
        double sum = formula.base;
        for (const auto& [amplitude, cz, cy, cx, sz, sy, sx] : formula.blobs) {
          const double dz = (z - cz) / sz, dy = (y - cy) / sy, dx = (x - cx) / sx;
          sum += amplitude * std::exp(-0.5 * (dz * dz + dy * dy + dx * dx));
        }
        for (const auto& [amplitude, pz, py, px, phase] : formula.waves) {
          sum += amplitude * std::sin(kTwoPi * (pz * z + py * y + px * x) + phase);
        }
        *value++ = static_cast<float>(std::clamp(sum, 0.0, 1.0));
      }
    }
  }
  return volume;
}

absl::StatusOr<at::Tensor> ReadNpy(const std::string& path) {
  absl::StatusOr<std::string> bytes = ReadWholeFile(path);
  if (!bytes.ok()) return bytes.status();
  const auto bad = [&](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a float32 .npy file: ", why));
  };
  constexpr size_t kPreamble = 10;  // magic, version, header length (NumPy enhancement proposal 1)
  if (bytes->size() < kPreamble || bytes->compare(0, 6, "\x93NUMPY") != 0) return bad("no magic");
  if ((*bytes)[6] != 1) return bad("only version 1 is read");
  const size_t start = kPreamble + static_cast<uint8_t>((*bytes)[8]) +
                       256 * static_cast<size_t>(static_cast<uint8_t>((*bytes)[9]));
  if (bytes->size() < start) return bad("cut in the header");
  const std::string header = bytes->substr(kPreamble, start - kPreamble);
  if (HeaderField(header, "descr").find("'<f4'") > 1) return bad("not little-endian float32");
  if (HeaderField(header, "fortran_order").find("False") > 1) return bad("not in C order");

  std::vector<int64_t> shape;
  size_t count = 1;
  const std::string field = HeaderField(header, "shape");
  const size_t open = field.find('('), close = field.find(')');
  if (open == std::string::npos || close == std::string::npos) return bad("no shape");
  std::istringstream sizes(field.substr(open + 1, close - open - 1));
  for (std::string size; std::getline(sizes, size, ',');) {
    if (size.find_first_not_of(' ') == std::string::npos) continue;  // "(3,)"
    const int64_t length = std::strtoll(size.c_str(), nullptr, 10);
    if (length < 1 || static_cast<uint64_t>(length) > bytes->size()) return bad("absurd shape");
    shape.push_back(length);
    count *= length;
    if (count > bytes->size()) return bad("the shape promises more than the file holds");
  }
  if (bytes->size() - start != count * sizeof(float)) return bad("its size does not fit its shape");
  at::Tensor array = at::empty(shape, at::kFloat);
  std::memcpy(array.data_ptr<float>(), bytes->data() + start, count * sizeof(float));
  return array;
}

}  // namespace gvsl
