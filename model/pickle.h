// Reads the pickles of torch.save without running anything: a machine of the opcodes that tensors
// need, and a short list of names that may stand in one. Everything else is refused by name.
#ifndef GVSL_MODEL_PICKLE_H_
#define GVSL_MODEL_PICKLE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gvsl {

class Pickle {
 public:
  using Id =
      int32_t;  // of a node; they live in the pickle, so that no file can nest deeper than memory
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kTuple,
    kList,
    kDict,
    kGlobal,
    kStorage,
    kTensor,
    kMark
  };
  struct Node {
    Kind kind = Kind::kNone;
    int64_t integer = 0;  // kBool, kInt; kStorage: number of elements; kTensor: offset in elements
    std::string text;     // kText, kGlobal ("module.name"), integers beyond 64 bits; kStorage: key
    std::string type;     // kStorage: "FloatStorage", ...
    std::vector<Id> items;      // kTuple, kList; kDict: key, value, key, value...
    Id storage = -1;            // kTensor
    std::vector<int64_t> size;  // kTensor
    std::vector<int64_t> stride;
  };

  // Parses one pickle from the bytes; `used` becomes its length.
  // INVALID_ARGUMENT: damaged; reason FORBIDDEN_PICKLE where it names what is not on the list.
  absl::StatusOr<Id> Parse(const uint8_t* data, size_t size, size_t* used);

  Id node_count() const { return static_cast<Id>(nodes_.size()); }
  const Node& node(Id id) const { return nodes_[static_cast<size_t>(id)]; }
  // The value of a dictionary's text key; -1 without it.
  Id Lookup(Id dict, const std::string& key) const;

 private:
  friend class PickleMachine;
  std::deque<Node> nodes_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_PICKLE_H_
