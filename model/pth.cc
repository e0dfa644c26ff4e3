// Python's torch.save files (PyTorch, torch/serialization.py), both formats. Declared in
// model/state.h.
#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>

#include <cstring>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "model/mapped_file.h"
#include "model/memory_budget.h"
#include "model/pickle.h"
#include "model/shown.h"
#include "model/state.h"
#include "model/zip_archive.h"

namespace gvsl {
namespace {

constexpr size_t kMaxTensors = 20000;

struct ScalarKind {
  at::ScalarType type;
  int64_t bytes;
};

ScalarKind ScalarKindOf(const std::string& storage_type) {
  if (storage_type == "HalfStorage") return {at::kHalf, 2};
  if (storage_type == "BFloat16Storage") return {at::kBFloat16, 2};
  if (storage_type == "DoubleStorage") return {at::kDouble, 8};
  if (storage_type == "LongStorage") return {at::kLong, 8};
  if (storage_type == "IntStorage") return {at::kInt, 4};
  if (storage_type == "ShortStorage") return {at::kShort, 2};
  if (storage_type == "CharStorage") return {at::kChar, 1};
  if (storage_type == "ByteStorage") return {at::kByte, 1};
  if (storage_type == "BoolStorage") return {at::kBool, 1};
  return {at::kFloat, 4};
}

absl::Status Unreadable(const std::string& what) {
  return WithReason(absl::InvalidArgumentError(what), "UNREADABLE_MODEL_FILE");
}

// Where the bytes of a storage lie in the file.
struct Span {
  const uint8_t* data = nullptr;
  size_t size = 0;
};
using Storages = std::map<std::string, Span>;

// The tensors of a state_dict, copied out of the file once a storage.
class TensorReader {
 public:
  // Tensors may share a storage, so that a small file could name any number of values: all together
  // have at most one for each of the file's bytes. `memory_bytes`: as ReadPth.
  TensorReader(const Pickle& pickle, const Storages& storages, size_t file_bytes,
               int64_t memory_bytes)
      : pickle_(pickle),
        storages_(storages),
        values_left_(static_cast<int64_t>(file_bytes)),
        memory_(memory_bytes) {}

  absl::StatusOr<StateDict> Read(Pickle::Id root) {
    Pickle::Id dict = root;
    for (const char* key : {"state_dict", "model"}) {
      if (pickle_.node(root).kind != Pickle::Kind::kDict) break;
      const Pickle::Id inner = pickle_.Lookup(root, key);
      if (inner >= 0 && pickle_.node(inner).kind == Pickle::Kind::kDict) {
        dict = inner;
        break;
      }
    }
    if (pickle_.node(dict).kind != Pickle::Kind::kDict) {
      return Unreadable("the file holds no dictionary of tensors; save model.state_dict()");
    }
    StateDict state;
    const auto& items = pickle_.node(dict).items;
    if (items.size() / 2 > kMaxTensors) return Unreadable("the file holds too many tensors");
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const Pickle::Node& key = pickle_.node(items[i]);
      const Pickle::Node& value = pickle_.node(items[i + 1]);
      if (key.kind != Pickle::Kind::kText || value.kind != Pickle::Kind::kTensor) {
        return Unreadable(absl::StrCat("entry \"", Shown(key.text),
                                       "\" is no tensor; save model.state_dict() alone"));
      }
      auto tensor = Tensor(value);
      if (!tensor.ok()) {
        if (!ReasonOf(tensor.status()).empty()) return tensor.status();  // of no single tensor
        return WithReason(absl::Status(tensor.status().code(),
                                       absl::StrCat("tensor ", Shown(key.text), ": ",
                                                    std::string(tensor.status().message()))),
                          "UNREADABLE_MODEL_FILE");
      }
      state.emplace_back(key.text, *std::move(tensor));
    }
    return state;
  }

 private:
  absl::StatusOr<at::Tensor> Storage(const Pickle::Node& storage) {
    const auto known = tensors_.find(storage.text);
    if (known != tensors_.end()) return known->second;
    const auto span = storages_.find(storage.text);
    if (span == storages_.end()) return absl::InvalidArgumentError("its data is not in the file");
    const ScalarKind kind = ScalarKindOf(storage.type);
    if (storage.integer > static_cast<int64_t>(span->second.size) / kind.bytes) {
      return absl::InvalidArgumentError("the file holds less data than it promises");
    }
    const int64_t stored = storage.integer * kind.bytes;
    // A conversion to float32 takes its result beside what it converts.
    const int64_t converted =
        kind.type == at::kFloat ? 0 : storage.integer * static_cast<int64_t>(sizeof(float));
    if (absl::Status status = memory_.Take(stored + converted); !status.ok()) return status;
    at::Tensor flat = at::empty({storage.integer}, at::TensorOptions(kind.type));
    if (storage.integer > 0) {
      std::memcpy(flat.data_ptr(), span->second.data, static_cast<size_t>(stored));
    }
    if (converted > 0) {
      flat = flat.to(at::kFloat);
      memory_.GiveBack(stored);
    }
    tensors_[storage.text] = flat;
    return flat;
  }

  absl::StatusOr<at::Tensor> Tensor(const Pickle::Node& tensor) {
    // The last element that shape and strides reach must lie in the storage.
    const Pickle::Node& storage = pickle_.node(tensor.storage);
    constexpr int64_t kMost = int64_t{1} << 40;
    if (tensor.integer > kMost) return absl::InvalidArgumentError("its offset is absurd");
    int64_t last = tensor.integer, count = 1;
    for (size_t i = 0; i < tensor.size.size(); ++i) {
      if (tensor.size[i] > kMost || tensor.stride[i] > kMost ||
          (tensor.size[i] > 0 && count > kMost / tensor.size[i])) {
        return absl::InvalidArgumentError("its shape is absurd");
      }
      count *= tensor.size[i];
      if (tensor.size[i] > 1) {
        if (tensor.stride[i] > kMost / tensor.size[i])
          return absl::InvalidArgumentError("its strides are absurd");
        last += (tensor.size[i] - 1) * tensor.stride[i];
      }
    }
    // Expanded tensors could name more elements than the file has bytes.
    if (count > storage.integer || (count > 0 && last >= storage.integer)) {
      return absl::InvalidArgumentError("its shape reaches beyond its data");
    }
    values_left_ -= count;
    if (values_left_ < 0) {
      return absl::InvalidArgumentError("with it the tensors are larger than the file");
    }
    auto flat = Storage(storage);
    if (!flat.ok()) return flat;
    // Another tensor may have named the storage as a shorter one.
    if (count > 0 && last >= flat->numel()) {
      return absl::InvalidArgumentError("its shape reaches beyond its data");
    }
    const at::Tensor view = flat->as_strided(tensor.size, tensor.stride, tensor.integer);
    if (view.is_contiguous()) return view;
    absl::Status status = memory_.Take(count * static_cast<int64_t>(sizeof(float)));
    if (!status.ok()) return status;
    return view.contiguous();
  }

  const Pickle& pickle_;
  const Storages& storages_;
  int64_t values_left_;
  MemoryBudget memory_;
  std::map<std::string, at::Tensor> tensors_;
};

absl::StatusOr<StateDict> ReadZipFormat(const MappedFile& file, int64_t memory_bytes) {
  auto archive = ZipArchive::Open(file.data(), file.size());
  if (!archive.ok()) return Unreadable(std::string(archive.status().message()));
  auto record = archive->Find("data.pkl");
  if (!record.ok())
    return Unreadable(
        absl::StrCat("no file of torch.save: ", std::string(record.status().message())));
  if (archive->Find("constants.pkl").ok()) {
    return WithReason(
        absl::InvalidArgumentError(
            "the file is a TorchScript program; save the state_dict of the Python module instead"),
        "FORBIDDEN_PICKLE");
  }
  // PyTorch 2.1 and later say in which order the bytes lie.
  if (auto order = archive->Find("byteorder");
      order.ok() && std::string(order->data, order->data + order->size) != "little") {
    return Unreadable("its numbers are not little-endian; save it again on such a machine");
  }
  Pickle pickle;
  size_t used = 0;
  auto root = pickle.Parse(record->data, record->size, &used);
  if (!root.ok()) return root.status();
  // Only the storages that tensors name are looked at, each once.
  Storages storages;
  const auto collect = [&](const std::string& key) -> absl::Status {
    if (storages.count(key) > 0) return absl::OkStatus();
    auto data = archive->Find("data/" + key);
    if (!data.ok()) return Unreadable(std::string(data.status().message()));
    storages[key] = {data->data, data->size};
    return absl::OkStatus();
  };
  for (Pickle::Id id = 0; id < pickle.node_count(); ++id) {
    if (pickle.node(id).kind != Pickle::Kind::kStorage) continue;
    if (absl::Status status = collect(pickle.node(id).text); !status.ok()) return status;
  }
  return TensorReader(pickle, storages, file.size(), memory_bytes).Read(*root);
}

// The format before PyTorch 1.6: magic number, protocol, system, object and storage keys as five
// pickles, then each storage as a 64-bit count of elements and its data.
absl::StatusOr<StateDict> ReadLegacyFormat(const MappedFile& file, int64_t memory_bytes) {
  static const std::string kMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
  const uint8_t* data = file.data();
  size_t left = file.size();
  constexpr uint8_t kProtocol = 0x80;  // the opcode that begins every pickle of torch.save
  if (left == 0 || *data != kProtocol) return Unreadable("not a file of torch.save");
  Pickle pickle;
  Pickle::Id parts[5];
  for (Pickle::Id& part : parts) {
    size_t used = 0;
    auto parsed = pickle.Parse(data, left, &used);
    if (!parsed.ok()) return parsed.status();
    part = *parsed;
    data += used;
    left -= used;
    if (&part == parts && pickle.node(part).text != kMagic)
      return Unreadable("not a file of torch.save");
  }
  const Pickle::Id little = pickle.Lookup(parts[2], "little_endian");
  if (little < 0 || pickle.node(little).integer != 1) {
    return Unreadable("its numbers are not little-endian; save it again on such a machine");
  }
  std::map<std::string, int64_t> element_bytes;
  for (Pickle::Id id = 0; id < pickle.node_count(); ++id) {
    const Pickle::Node& node = pickle.node(id);
    if (node.kind == Pickle::Kind::kStorage)
      element_bytes[node.text] = ScalarKindOf(node.type).bytes;
  }
  if (pickle.node(parts[4]).kind != Pickle::Kind::kList)
    return Unreadable("the list of storages is missing");
  Storages storages;
  for (Pickle::Id id : pickle.node(parts[4]).items) {
    const std::string& key = pickle.node(id).text;
    int64_t count = 0;
    if (element_bytes.count(key) == 0 || left < sizeof(count))
      return Unreadable("the file is truncated");
    std::memcpy(&count, data, sizeof(count));
    data += sizeof(count);
    left -= sizeof(count);
    if (count < 0 || count > static_cast<int64_t>(left) / element_bytes[key]) {
      return Unreadable("the file is truncated: it holds fewer values than it promises");
    }
    storages[key] = {data, static_cast<size_t>(count * element_bytes[key])};
    data += storages[key].size;
    left -= storages[key].size;
  }
  return TensorReader(pickle, storages, file.size(), memory_bytes).Read(parts[3]);
}

// Emits the pickle of an OrderedDict of contiguous float32 tensors, as torch.save does (protocol
// 2).
class PickleWriter {
 public:
  std::string Write(const StateDict& state) {
    out_ = "\x80\x02";
    EmptyDict();
    out_ += '(';
    for (size_t i = 0; i < state.size(); ++i) {
      Text(state[i].first);
      Tensor(std::to_string(i), state[i].second);
    }
    out_ += "u.";
    return std::move(out_);
  }

 private:
  void EmptyDict() { out_ += "ccollections\nOrderedDict\n)R"; }
  void Text(const std::string& text) {
    out_ += 'X';
    Raw(static_cast<uint32_t>(text.size()));
    out_ += text;
  }
  void Raw(uint32_t value) { out_.append(reinterpret_cast<const char*>(&value), sizeof(value)); }
  void Number(int64_t value) {
    if (value <= std::numeric_limits<int32_t>::max()) {
      out_ += 'J';
      return Raw(static_cast<uint32_t>(value));
    }
    out_ += "\x8a\x08";
    out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void Numbers(at::IntArrayRef values) {
    out_ += '(';
    for (int64_t value : values) Number(value);
    out_ += 't';
  }
  void Tensor(const std::string& key, const at::Tensor& tensor) {
    out_ += "ctorch._utils\n_rebuild_tensor_v2\n((";
    Text("storage");
    out_ += "ctorch\nFloatStorage\n";
    Text(key);
    Text("cpu");
    Number(tensor.numel());
    out_ += "tQ";
    Number(0);
    Numbers(tensor.sizes());
    Numbers(tensor.strides());
    out_ += '\x89';  // requires_grad: false
    EmptyDict();     // backward hooks
    out_ += "tR";
  }
  std::string out_;
};

}  // namespace

absl::StatusOr<StateDict> ReadPth(const std::string& path, int64_t memory_bytes) {
  auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  try {
    const bool zip = (*file)->size() >= 4 && std::memcmp((*file)->data(), "PK\x03\x04", 4) == 0;
    return zip ? ReadZipFormat(**file, memory_bytes) : ReadLegacyFormat(**file, memory_bytes);
  } catch (const std::exception& error) {  // LibTorch's own, or no memory
    return absl::ResourceExhaustedError(
        absl::StrCat("the tensors do not fit into memory: ", error.what()));
  }
}

absl::Status WritePth(const StateDict& state, const std::string& path) {
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  absl::Status status;
  int64_t at = 0;
  // LibTorch's writer would throw from its destructor if it were told that a write failed.
  const auto write = [&](const void* data, size_t size) {
    if (status.ok()) status = file.Write(data, size, at);
    at += static_cast<int64_t>(size);
    return size;
  };
  try {
    StateDict plain;
    for (const auto& [name, tensor] : state)
      plain.emplace_back(name, tensor.to(at::kCPU, at::kFloat).contiguous());
    caffe2::serialize::PyTorchStreamWriter writer(write);
    const std::string pickle = PickleWriter().Write(plain);
    writer.writeRecord("data.pkl", pickle.data(), pickle.size());
    for (size_t i = 0; i < plain.size() && status.ok(); ++i) {
      const at::Tensor& tensor = plain[i].second;
      writer.writeRecord("data/" + std::to_string(i), tensor.data_ptr(), tensor.nbytes());
    }
    writer.writeEndOfFile();
  } catch (const std::exception& error) {
    return absl::InternalError(
        absl::StrCat("LibTorch cannot write the file: ", std::string(error.what()).substr(0, 300)));
  }
  return status.ok() ? file.Commit() : status;
}

}  // namespace gvsl
