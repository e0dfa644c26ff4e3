// The safetensors format (github.com/huggingface/safetensors, README "Format"). Declared in
// model/state.h.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "model/mapped_file.h"
#include "model/memory_budget.h"
#include "model/shown.h"
#include "model/state.h"
#include "model/strict_json.h"

namespace gvsl {
namespace {

using nlohmann::json;

// Two hundred times the header of our network. The reference implementation takes 100 MB, of which
// JSON can make gigabytes in memory.
constexpr uint64_t kMaxHeader = 4 << 20;

absl::Status Unreadable(const std::string& what) {
  return WithReason(absl::InvalidArgumentError(absl::StrCat("safetensors: ", what)),
                    "UNREADABLE_MODEL_FILE");
}

struct Stored {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

absl::Status ReadEntry(const std::string& name, const json& entry, uint64_t data_size,
                       Stored& stored) {
  static const std::map<std::string, std::pair<at::ScalarType, uint64_t>> kTypes = {
      {"F32", {at::kFloat, 4}},
      {"F16", {at::kHalf, 2}},
      {"BF16", {at::kBFloat16, 2}},
      {"F64", {at::kDouble, 8}}};
  constexpr uint64_t kMaxSide = uint64_t{1} << 40;
  const std::string shown = Shown(name);
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets") || !entry["dtype"].is_string() ||
      !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    return Unreadable(absl::StrCat("tensor ", shown, " lacks dtype, shape or data_offsets"));
  }
  const auto type = kTypes.find(entry["dtype"].get<std::string>());
  if (type == kTypes.end())
    return Unreadable(absl::StrCat("tensor ", shown, " is not floating point"));
  stored.name = name;
  stored.type = type->second.first;
  uint64_t bytes = type->second.second;
  for (const json& side : entry["shape"]) {
    if (!side.is_number_integer() || side.get<int64_t>() < 0 || stored.shape.size() >= 16) {
      return Unreadable(absl::StrCat("tensor ", shown, " has no valid shape"));
    }
    const uint64_t n = static_cast<uint64_t>(side.get<int64_t>());
    if (n > kMaxSide || (n != 0 && bytes > data_size / n))
      return Unreadable(absl::StrCat("tensor ", shown, " is larger than the file"));
    bytes *= n;
    stored.shape.push_back(static_cast<int64_t>(n));
  }
  for (const json& offset : entry["data_offsets"]) {
    if (!offset.is_number_integer() || offset.get<int64_t>() < 0) {
      return Unreadable(absl::StrCat("tensor ", shown, " has no valid data_offsets"));
    }
  }
  stored.begin = static_cast<uint64_t>(entry["data_offsets"][0].get<int64_t>());
  stored.end = static_cast<uint64_t>(entry["data_offsets"][1].get<int64_t>());
  if (stored.end < stored.begin || stored.end > data_size || stored.end - stored.begin != bytes) {
    return Unreadable(absl::StrCat("tensor ", shown,
                                   " lies outside the file or has another size than its shape"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsFile> ReadSafetensors(const std::string& path, int64_t memory_bytes) {
  auto mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  const std::shared_ptr<const MappedFile> file = *mapped;
  uint64_t header_size = 0;
  if (file->size() < sizeof(header_size)) return Unreadable("the file is too short");
  std::memcpy(&header_size, file->data(), sizeof(header_size));
  if (header_size > kMaxHeader || header_size > file->size() - sizeof(header_size)) {
    return Unreadable(
        "the header is longer than the file, or than 4 MiB; it is truncated or no safetensors "
        "file");
  }
  const char* text = reinterpret_cast<const char*>(file->data()) + sizeof(header_size);
  json header;
  if (absl::Status status = ParseStrictJson(text, text + header_size, header); !status.ok()) {
    return Unreadable(absl::StrCat("the header: ", std::string(status.message())));
  }
  if (!header.is_object()) return Unreadable("the header is no JSON object");
  const uint8_t* data = file->data() + sizeof(header_size) + header_size;
  const uint64_t data_size = file->size() - sizeof(header_size) - header_size;

  SafetensorsFile result;
  std::vector<Stored> entries;
  for (const auto& item : header.items()) {
    if (item.key() == "__metadata__") {
      if (!item.value().is_object()) return Unreadable("__metadata__ is no object");
      for (const auto& field : item.value().items()) {
        if (!field.value().is_string()) return Unreadable("__metadata__ holds more than text");
        result.metadata.emplace_back(field.key(), field.value().get<std::string>());
      }
      continue;
    }
    entries.emplace_back();
    if (absl::Status status = ReadEntry(item.key(), item.value(), data_size, entries.back());
        !status.ok()) {
      return status;
    }
  }
  // The format allows neither holes nor overlaps; a file that has them hides something.
  std::sort(entries.begin(), entries.end(),
            [](const Stored& a, const Stored& b) { return a.begin < b.begin; });
  uint64_t expected = 0;
  for (const Stored& entry : entries) {
    if (entry.begin != expected)
      return Unreadable(absl::StrCat("a hole or an overlap before tensor ", Shown(entry.name)));
    expected = entry.end;
  }
  if (expected != data_size) return Unreadable("bytes that belong to no tensor");
  MemoryBudget budget(memory_bytes);
  try {
    for (const Stored& entry : entries) {
      const uint8_t* begin = data + entry.begin;
      at::Tensor tensor;
      const bool aligned = reinterpret_cast<uintptr_t>(begin) % 8 == 0;
      const int64_t stored = static_cast<int64_t>(entry.end - entry.begin);
      const int64_t copied = aligned ? 0 : stored;
      // A conversion to float32 takes its result beside what it converts.
      int64_t converted = 0;
      if (entry.type != at::kFloat) {
        converted = static_cast<int64_t>(sizeof(float)) * stored /
                    static_cast<int64_t>(at::elementSize(entry.type));
      }
      if (absl::Status status = budget.Take(copied + converted); !status.ok()) return status;
      if (aligned) {
        tensor = at::from_blob(
            const_cast<uint8_t*>(begin), entry.shape, [file](void*) {},
            at::TensorOptions(entry.type));
      } else {  // a header of odd length, by another writer
        tensor = at::empty(entry.shape, at::TensorOptions(entry.type));
        if (entry.end > entry.begin) std::memcpy(tensor.data_ptr(), begin, entry.end - entry.begin);
      }
      result.state.emplace_back(entry.name, tensor.to(at::kFloat));
      if (converted > 0) budget.GiveBack(copied);
    }
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat("safetensors: ", error.what()));
  }
  return result;
}

absl::Status WriteSafetensors(const SafetensorsFile& file, const std::string& path) {
  json header = json::object();
  for (const auto& [key, value] : file.metadata) header["__metadata__"][key] = value;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : file.state) {
    const uint64_t bytes = static_cast<uint64_t>(tensor.numel()) * sizeof(float);
    header[name] = {{"dtype", "F32"},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors aligned to 8 bytes
  // Tensors may lie in the file that is replaced; its bytes stay until they are let go.
  OutputFile out(path);
  const uint64_t size = text.size();
  absl::Status status = out.Write(&size, sizeof(size), 0);
  if (status.ok()) status = out.Write(text.data(), text.size(), sizeof(size));
  int64_t at = static_cast<int64_t>(sizeof(size) + size);
  try {
    for (const auto& [name, tensor] : file.state) {
      if (!status.ok()) return status;
      const at::Tensor plain = tensor.to(at::kCPU, at::kFloat).contiguous();
      status = out.Write(plain.data_ptr(), plain.nbytes(), at);
      at += static_cast<int64_t>(plain.nbytes());
    }
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat("safetensors: ", error.what()));
  }
  return status.ok() ? out.Commit() : status;
}

}  // namespace gvsl
