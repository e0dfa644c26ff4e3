// VectorIndex: the nearest of many unit vectors by cosine, with Faiss.
//
//   VectorIndex index("fingerprint", 512, {});
//   index.Add(keys, vectors);
//   auto nearest = index.Search(query, 10);
//
// Below Options::exact_up_to vectors every one is compared with; above, a graph of neighbours
// (HNSW; Malkov and Yashunin, TPAMI 2018) leads to the nearest.
#ifndef GVSL_SERVER_VECTOR_INDEX_H_
#define GVSL_SERVER_VECTOR_INDEX_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

struct Neighbour {
  int64_t key = 0;
  float similarity = 0;  // cosine
};

// Safe for concurrent use: searches run side by side, changes one after the other; searches wait
// while a change is put in, not while a graph is built for more vectors.
class VectorIndex {
 public:
  struct Options {
    int64_t exact_up_to = 20000;  // vectors; more make a graph
    int links = 32;               // of a vector in the graph (M); twice as many on its ground level
    int build_effort = 80;        // candidates looked at for each new vector (efConstruction)
    int search_effort = 128;      // candidates a search keeps (efSearch); more find more
  };

  // `identity` says whose vectors these are, and travels with the file.
  VectorIndex(std::string identity, int dimension, const Options& options);
  ~VectorIndex();

  // Reads a saved index. NOT_FOUND: no file. DATA_LOSS: the file is damaged, or of another
  // identity, dimension or format; the index is then to be made anew.
  static absl::StatusOr<std::unique_ptr<VectorIndex>> Load(const std::string& path,
                                                           const std::string& identity,
                                                           int dimension, const Options& options);
  // Writes aside, syncs and renames. The statuses of OutputFile.
  absl::Status Save(const std::string& path) const;

  // `vectors` holds one of `dimension` values, of length 1, for each key. Keys that are there stay
  // as they are.
  absl::Status Add(const std::vector<int64_t>& keys, const std::vector<float>& vectors);
  // Keys that are not there are passed over.
  absl::Status Remove(const std::vector<int64_t>& keys);

  // The `k` nearest, or all where there are fewer, nearest first.
  absl::StatusOr<std::vector<Neighbour>> Search(const std::vector<float>& query, int k) const;
  // The same among these keys alone; every one is compared with.
  absl::StatusOr<std::vector<Neighbour>> SearchAmong(const std::vector<float>& query, int k,
                                                     const std::vector<int64_t>& keys) const;

  std::vector<int64_t> Keys() const;  // in no order
  int64_t size() const;
  bool exact() const;
  int64_t memory_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_VECTOR_INDEX_H_
