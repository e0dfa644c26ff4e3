#include "model/pickle.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "model/shown.h"

namespace gvsl {
namespace {

// A state_dict of the network with its optimizer has some ten thousand values. The limits keep what
// a small file can make the machine hold to some tens of megabytes.
constexpr size_t kMaxNodes = 200000;
constexpr size_t kMaxText = 1 << 20;
constexpr size_t kMaxKey = 64;  // of a storage; torch.save writes a number

const std::set<std::string>& StorageTypes() {
  static const std::set<std::string> types = {
      "FloatStorage", "HalfStorage",  "BFloat16Storage", "DoubleStorage", "LongStorage",
      "IntStorage",   "ShortStorage", "CharStorage",     "ByteStorage",   "BoolStorage"};
  return types;
}

bool IsAllowed(const std::string& name) {
  if (name == "collections.OrderedDict" || name == "torch._utils._rebuild_tensor_v2" ||
      name == "torch._utils._rebuild_parameter") {
    return true;
  }
  return name.rfind("torch.", 0) == 0 && StorageTypes().count(name.substr(6)) > 0;
}

}  // namespace

// One run over one pickle. The opcodes are those of Python's pickletools, protocols 0 to 4.
class PickleMachine {
 public:
  using Id = Pickle::Id;
  using Kind = Pickle::Kind;

  PickleMachine(Pickle& pickle, const uint8_t* data, size_t size)
      : pickle_(pickle), data_(data), size_(size) {}

  absl::StatusOr<Id> Run(size_t* used) {
    while (status_.ok() && !stopped_) Step();
    if (!status_.ok()) return status_;
    *used = at_;
    return result_;
  }

 private:
  Pickle::Node& node(Id id) { return pickle_.nodes_[static_cast<size_t>(id)]; }

  void Fail(const std::string& what) {
    if (status_.ok()) {
      status_ = WithReason(absl::InvalidArgumentError(absl::StrCat("damaged pickle: ", what)),
                           "UNREADABLE_MODEL_FILE");
    }
  }
  void Forbid(const std::string& name) {
    if (status_.ok()) {
      status_ = WithReason(
          absl::InvalidArgumentError(absl::StrCat("the file's pickle asks for \"", Shown(name),
                                                  "\", which is no tensor; it was refused and "
                                                  "nothing was run. Save the state_dict alone: "
                                                  "torch.save(model.state_dict(), path)")),
          "FORBIDDEN_PICKLE");
    }
  }

  // `count` bytes from the stream; a pointer to zeros after a failure.
  const uint8_t* Take(size_t count) {
    static const uint8_t zeros[16] = {};
    if (count > size_ - at_) {
      Fail("it ends too early");
      return count <= sizeof(zeros) ? zeros : nullptr;
    }
    at_ += count;
    return data_ + at_ - count;
  }
  uint64_t TakeNumber(int bytes) {
    const uint8_t* at = Take(static_cast<size_t>(bytes));
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) value = value << 8 | at[i];
    return value;
  }
  std::string TakeText(uint64_t count) {
    if (count > kMaxText) {
      Fail("a text is too long");
      return "";
    }
    const uint8_t* at = Take(count);
    return at == nullptr || !status_.ok() ? ""
                                          : std::string(reinterpret_cast<const char*>(at), count);
  }
  std::string TakeLine() {
    const size_t limit = std::min(size_ - at_, kMaxText);
    const void* end = std::memchr(data_ + at_, '\n', limit);
    if (end == nullptr) {
      Fail("a line has no end");
      return "";
    }
    const size_t length = static_cast<size_t>(static_cast<const uint8_t*>(end) - data_) - at_;
    std::string line(reinterpret_cast<const char*>(data_ + at_), length);
    at_ += length + 1;
    return line;
  }

  Id Make(Kind kind, int64_t integer = 0, std::string text = "") {
    if (pickle_.nodes_.size() >= kMaxNodes) {
      Fail("too many values");
      return 0;
    }
    pickle_.nodes_.emplace_back();
    Pickle::Node& made = pickle_.nodes_.back();
    made.kind = kind;
    made.integer = integer;
    made.text = std::move(text);
    return static_cast<Id>(pickle_.nodes_.size() - 1);
  }
  void Push(Id id) {
    if (stack_.size() >= kMaxNodes) return Fail("its stack is too deep");
    stack_.push_back(id);
  }
  Id Pop() {
    if (stack_.empty()) {
      Fail("its stack is empty");
      return Make(Kind::kNone);
    }
    const Id id = stack_.back();
    stack_.pop_back();
    return id;
  }
  Id Top() {
    const Id id = Pop();
    Push(id);
    return id;
  }
  std::vector<Id> PopToMark() {
    size_t mark = stack_.size();
    while (mark > 0 && node(stack_[mark - 1]).kind != Kind::kMark) --mark;
    if (mark == 0) {
      Fail("a mark is missing");
      return {};
    }
    std::vector<Id> items(stack_.begin() + static_cast<ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return items;
  }
  void PushItems(Kind kind, std::vector<Id> items) {
    const Id id = Make(kind);
    node(id).items = std::move(items);
    Push(id);
  }
  void PushTuple(int count) {
    std::vector<Id> items(static_cast<size_t>(count));
    for (int i = count - 1; i >= 0; --i) items[static_cast<size_t>(i)] = Pop();
    PushItems(Kind::kTuple, std::move(items));
  }
  void Extend(Kind kind, const std::vector<Id>& items) {
    const Id target = Top();
    if (!status_.ok()) return;
    if (node(target).kind != kind || (kind == Kind::kDict && items.size() % 2 != 0)) {
      return Fail("items for something that holds none");
    }
    auto& held = node(target).items;
    if (held.size() + items.size() > kMaxNodes) return Fail("too many items");
    held.insert(held.end(), items.begin(), items.end());
  }
  void PushGlobal(const std::string& name) {
    if (!IsAllowed(name)) return Forbid(name);
    Push(Make(Kind::kGlobal, 0, name));
  }
  void Remember(uint64_t key) {
    if (memo_.size() >= kMaxNodes) return Fail("too many memos");
    memo_[key] = Top();
  }
  void Recall(uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) return Fail("an unknown memo");
    Push(found->second);
  }
  void PushLong(uint64_t bytes) {
    const std::string raw = TakeText(bytes);
    if (!status_.ok()) return;
    if (raw.size() > 8) return Push(Make(Kind::kInt, 0, raw));
    uint64_t value = 0;
    for (size_t i = raw.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(raw[i]);
    if (!raw.empty() && raw.size() < 8 && (raw.back() & 0x80))
      value |= ~uint64_t{0} << 8 * raw.size();
    Push(Make(Kind::kInt, static_cast<int64_t>(value)));
  }
  void PushDecimal(const std::string& line) {
    if (line == "00" || line == "01") return Push(Make(Kind::kBool, line == "01"));
    char* end = nullptr;
    const int64_t value = std::strtoll(line.c_str(), &end, 10);
    if (line.empty() || (*end != '\0' && *end != 'L')) return Fail("a number is none");
    Push(Make(Kind::kInt, value));
  }

  // ('storage', type, key, location, elements[, view]) names the data of a tensor.
  void PersistentId() {
    const Id id = Pop();
    if (!status_.ok()) return;
    const auto& items = node(id).items;
    if (node(id).kind != Kind::kTuple || items.size() < 5 || items.size() > 6 ||
        node(items[0]).text != "storage" || node(items[1]).kind != Kind::kGlobal ||
        node(items[2]).kind != Kind::kText || node(items[2]).text.size() > kMaxKey ||
        !IsCount(items[4])) {
      return Fail("a storage is not described as torch.save does");
    }
    const std::string& type = node(items[1]).text;
    if (type.rfind("torch.", 0) != 0 || StorageTypes().count(type.substr(6)) == 0)
      return Forbid(type);
    if (items.size() == 6 && node(items[5]).kind != Kind::kNone) {
      return Fail(
          "a view of a storage (a file of PyTorch 0.3 or before); load it and save it again");
    }
    const Id storage = Make(Kind::kStorage, node(items[4]).integer, node(items[2]).text);
    node(storage).type = type.substr(6);
    Push(storage);
  }

  // A whole number from 0 to 2^63 - 1.
  bool IsCount(Id id) {
    return node(id).kind == Kind::kInt && node(id).integer >= 0 && node(id).text.empty();
  }
  bool Numbers(Id id, std::vector<int64_t>& out) {
    if (node(id).kind != Kind::kTuple || node(id).items.size() > 16) return false;
    for (Id item : node(id).items) {
      if (!IsCount(item)) return false;
      out.push_back(node(item).integer);
    }
    return true;
  }

  void Reduce() {
    const Id arguments = Pop(), callee = Pop();
    if (!status_.ok()) return;
    if (node(callee).kind != Kind::kGlobal || node(arguments).kind != Kind::kTuple)
      return Fail("a call of no function");
    const std::string name = node(callee).text;
    const std::vector<Id> items = node(arguments).items;
    if (name == "collections.OrderedDict" && items.empty()) return Push(Make(Kind::kDict));
    if (name == "torch._utils._rebuild_parameter" && items.size() == 3 &&
        node(items[0]).kind == Kind::kTensor) {
      return Push(items[0]);
    }
    if (name == "torch._utils._rebuild_tensor_v2" && (items.size() == 6 || items.size() == 7) &&
        node(items[0]).kind == Kind::kStorage && IsCount(items[1])) {
      const Id tensor = Make(Kind::kTensor, node(items[1]).integer);
      node(tensor).storage = items[0];
      if (!Numbers(items[2], node(tensor).size) || !Numbers(items[3], node(tensor).stride) ||
          node(tensor).size.size() != node(tensor).stride.size()) {
        return Fail("a tensor's shape is no shape");
      }
      return Push(tensor);
    }
    Forbid(name + "() in an unusual form");
  }

  void Step() {
    switch (const uint8_t op = static_cast<uint8_t>(TakeNumber(1)); op) {
      case 0x80:  // PROTO
        if (TakeNumber(1) > 5) Fail("a newer protocol");
        return;
      case 0x95:  // FRAME
        TakeNumber(8);
        return;
      case '.':
        result_ = Pop();
        stopped_ = true;
        return;
      case '(':
        return Push(Make(Kind::kMark));
      case ')':
        return Push(Make(Kind::kTuple));
      case ']':
        return Push(Make(Kind::kList));
      case '}':
        return Push(Make(Kind::kDict));
      case 't':
        return PushItems(Kind::kTuple, PopToMark());
      case 'l':
        return PushItems(Kind::kList, PopToMark());
      case 'd': {
        const std::vector<Id> items = PopToMark();
        Push(Make(Kind::kDict));
        return Extend(Kind::kDict, items);
      }
      case 0x85:
      case 0x86:
      case 0x87:
        return PushTuple(op - 0x84);
      case 'a': {
        const Id item = Pop();
        return Extend(Kind::kList, {item});
      }
      case 'e':
        return Extend(Kind::kList, PopToMark());
      case 's': {
        const Id value = Pop(), key = Pop();
        return Extend(Kind::kDict, {key, value});
      }
      case 'u':
        return Extend(Kind::kDict, PopToMark());
      case 'N':
        return Push(Make(Kind::kNone));
      case 0x88:
      case 0x89:
        return Push(Make(Kind::kBool, op == 0x88));
      case 'J':
        return Push(Make(Kind::kInt, static_cast<int32_t>(TakeNumber(4))));
      case 'K':
        return Push(Make(Kind::kInt, static_cast<int64_t>(TakeNumber(1))));
      case 'M':
        return Push(Make(Kind::kInt, static_cast<int64_t>(TakeNumber(2))));
      case 0x8a:
        return PushLong(TakeNumber(1));
      case 'I':
      case 'L':
        return PushDecimal(TakeLine());
      case 'G':
        TakeNumber(8);
        return Push(Make(Kind::kFloat));
      case 'X':
      case 'T':
        return Push(Make(Kind::kText, 0, TakeText(TakeNumber(4))));
      case 0x8c:
      case 'U':
        return Push(Make(Kind::kText, 0, TakeText(TakeNumber(1))));
      case 0x8d:
        return Push(Make(Kind::kText, 0, TakeText(TakeNumber(8))));
      case 'c': {
        const std::string module = TakeLine();
        return PushGlobal(absl::StrCat(module, ".", TakeLine()));
      }
      case 0x93: {  // STACK_GLOBAL
        const Id name = Pop(), module = Pop();
        return PushGlobal(absl::StrCat(node(module).text, ".", node(name).text));
      }
      case 'R':
        return Reduce();
      case 'b': {  // BUILD: a dictionary's attributes (_metadata) are not needed
        Pop();
        if (status_.ok() && node(Top()).kind != Kind::kDict) Forbid("an object's state");
        return;
      }
      case 'Q':
        return PersistentId();
      case 'q':
        return Remember(TakeNumber(1));
      case 'r':
        return Remember(TakeNumber(4));
      case 'h':
        return Recall(TakeNumber(1));
      case 'j':
        return Recall(TakeNumber(4));
      case 0x94:
        return Remember(memo_.size());
      case '0':
        Pop();
        return;
      default:
        // Objects of classes, extension registries, out-of-band buffers: nothing a tensor needs.
        return Forbid(absl::StrCat("opcode ", op));
    }
  }

  Pickle& pickle_;
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
  std::vector<Id> stack_;
  std::map<uint64_t, Id> memo_;
  absl::Status status_;
  bool stopped_ = false;
  Id result_ = 0;
};

absl::StatusOr<Pickle::Id> Pickle::Parse(const uint8_t* data, size_t size, size_t* used) {
  return PickleMachine(*this, data, size).Run(used);
}

Pickle::Id Pickle::Lookup(Id dict, const std::string& key) const {
  const auto& items = node(dict).items;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (node(items[i]).kind == Kind::kText && node(items[i]).text == key) return items[i + 1];
  }
  return -1;
}

}  // namespace gvsl
