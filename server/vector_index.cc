#include "server/vector_index.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/index_io.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/guarded.h"
#include "server/vector_index_file.h"

namespace gvsl {
namespace {

constexpr int64_t kRemoved = -1;
// Removed vectors stay in place until they are this share of all, or fewer than kFewRemoved.
constexpr double kMostRemoved = 0.25;
constexpr int64_t kFewRemoved = 1000;

// One generation of vectors: positions 0, 1, ... in Faiss, a key for each.
struct Generation {
  std::unique_ptr<faiss::Index> index;  // IndexFlatIP or IndexHNSWFlat
  std::vector<int64_t> keys;            // by position; kRemoved for one that was removed
  std::unordered_map<int64_t, int64_t> positions;
  std::vector<uint8_t> kept;  // a bit a position, for faiss::IDSelectorBitmap

  bool exact() const { return dynamic_cast<const faiss::IndexHNSW*>(index.get()) == nullptr; }
  int64_t size() const { return static_cast<int64_t>(positions.size()); }
  int64_t removed() const { return static_cast<int64_t>(keys.size()) - size(); }
  const faiss::IndexFlat& vectors() const {
    const auto* graph = dynamic_cast<const faiss::IndexHNSW*>(index.get());
    return dynamic_cast<const faiss::IndexFlat&>(graph == nullptr ? *index : *graph->storage);
  }
  const float* vector(int64_t position) const { return vectors().get_xb() + position * index->d; }

  void Append(const std::vector<int64_t>& added, const float* values) {
    index->add(static_cast<faiss::Index::idx_t>(added.size()), values);
    for (const int64_t key : added) Note(key);
  }
  // Keeps the key of the next position.
  void Note(int64_t key) {
    const auto position = static_cast<int64_t>(keys.size());
    keys.push_back(key);
    kept.resize(keys.size() / 8 + 1);
    if (key == kRemoved) return;
    positions[key] = position;
    kept[position / 8] |= static_cast<uint8_t>(1 << (position % 8));
  }
  void Remove(int64_t key) {
    const auto found = positions.find(key);
    if (found == positions.end()) return;
    keys[found->second] = kRemoved;
    kept[found->second / 8] &= static_cast<uint8_t>(~(1 << (found->second % 8)));
    positions.erase(found);
  }
};

}  // namespace

struct VectorIndex::Impl {
  Impl(std::string i, int d, const Options& o) : identity(std::move(i)), dimension(d), options(o) {}

  std::unique_ptr<faiss::Index> Empty(bool exact) const {
    if (exact) return std::make_unique<faiss::IndexFlatIP>(dimension);
    auto graph = std::make_unique<faiss::IndexHNSWFlat>(dimension, options.links,
                                                        faiss::METRIC_INNER_PRODUCT);
    graph->hnsw.efConstruction = options.build_effort;
    graph->hnsw.efSearch = options.search_effort;
    return graph;
  }

  // The vectors that were not removed, and those to be added, in an index of the right kind. Only
  // reads `now`, so searches go on meanwhile.
  Generation Rebuilt(const std::vector<int64_t>& added, const std::vector<float>& values) const {
    Generation next;
    const int64_t size = now.size() + static_cast<int64_t>(added.size());
    next.index = Empty(size <= options.exact_up_to);
    constexpr size_t kPiece = 4096;
    std::vector<int64_t> keys;
    std::vector<float> piece;
    for (size_t position = 0; position <= now.keys.size(); ++position) {
      const bool end = position == now.keys.size();
      if (end || keys.size() == kPiece) {
        next.Append(keys, piece.data());
        keys.clear();
        piece.clear();
      }
      if (end || now.keys[position] == kRemoved) continue;
      keys.push_back(now.keys[position]);
      const float* vector = now.vector(static_cast<int64_t>(position));
      piece.insert(piece.end(), vector, vector + dimension);
    }
    next.Append(added, values.data());
    return next;
  }

  std::vector<Neighbour> Exact(const std::vector<float>& query, int k,
                               const std::vector<faiss::Index::idx_t>& positions) const {
    std::vector<float> similarities(positions.size());
    now.vectors().compute_distance_subset(1, query.data(), positions.size(), similarities.data(),
                                          positions.data());
    std::vector<Neighbour> found;
    for (size_t i = 0; i < positions.size(); ++i)
      found.push_back({now.keys[positions[i]], similarities[i]});
    const auto nearer = [](const Neighbour& a, const Neighbour& b) {
      return std::pair(-a.similarity, a.key) < std::pair(-b.similarity, b.key);
    };
    const size_t wanted = std::min(found.size(), static_cast<size_t>(k));
    std::partial_sort(found.begin(), found.begin() + wanted, found.end(), nearer);
    found.resize(wanted);
    return found;
  }

  absl::Status Check(const std::vector<float>& query) const {
    if (static_cast<int>(query.size()) == dimension) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat("a vector of ", query.size(), " values for an index of ", dimension));
  }

  const std::string identity;
  const int dimension;
  const Options options;
  std::mutex change_mutex;               // held by who changes; taken before data_mutex
  mutable std::shared_mutex data_mutex;  // guards `now`
  Generation now;
};

VectorIndex::VectorIndex(std::string identity, int dimension, const Options& options)
    : impl_(std::make_unique<Impl>(std::move(identity), dimension, options)) {
  impl_->now.index = impl_->Empty(true);
}
VectorIndex::~VectorIndex() = default;

absl::StatusOr<std::unique_ptr<VectorIndex>> VectorIndex::Load(const std::string& path,
                                                               const std::string& identity,
                                                               int dimension,
                                                               const Options& options) {
  auto file = ReadVectorIndexFile(path);
  if (!file.ok()) return file.status();
  if (file->identity != identity || file->index->d != dimension)
    return absl::DataLossError(absl::StrCat(path, " holds the vectors of another model"));
  auto index = std::make_unique<VectorIndex>(identity, dimension, options);
  Generation& now = index->impl_->now;
  now.index = std::move(file->index);
  auto* graph = dynamic_cast<faiss::IndexHNSW*>(now.index.get());
  if (graph != nullptr) graph->hnsw.efSearch = options.search_effort;
  if (now.index->ntotal != static_cast<int64_t>(file->keys.size()) ||
      now.index->metric_type != faiss::METRIC_INNER_PRODUCT ||
      dynamic_cast<faiss::IndexFlat*>(graph == nullptr ? now.index.get() : graph->storage) ==
          nullptr) {
    return absl::DataLossError(absl::StrCat(path, " holds no vectors of ours"));
  }
  for (const int64_t key : file->keys) now.Note(key);
  return index;
}

absl::Status VectorIndex::Save(const std::string& path) const {
  const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
  return WriteVectorIndexFile(path, impl_->identity, impl_->now.keys, *impl_->now.index);
}

absl::Status VectorIndex::Add(const std::vector<int64_t>& keys, const std::vector<float>& vectors) {
  return Guarded([&]() -> absl::Status {
    Impl& impl = *impl_;
    const std::lock_guard<std::mutex> changing(impl.change_mutex);
    std::vector<int64_t> added;
    std::vector<float> values;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (impl.now.positions.count(keys[i]) > 0) continue;
      added.push_back(keys[i]);
      const auto begin = vectors.begin() + static_cast<int64_t>(i) * impl.dimension;
      values.insert(values.end(), begin, begin + impl.dimension);
    }
    if (added.empty()) return absl::OkStatus();
    const int64_t size = impl.now.size() + static_cast<int64_t>(added.size());
    if (impl.now.exact() && size > impl.options.exact_up_to) {
      Generation next = impl.Rebuilt(added, values);
      const std::lock_guard<std::shared_mutex> lock(impl.data_mutex);
      impl.now = std::move(next);
      return absl::OkStatus();
    }
    const std::lock_guard<std::shared_mutex> lock(impl.data_mutex);
    impl.now.Append(added, values.data());
    return absl::OkStatus();
  });
}

absl::Status VectorIndex::Remove(const std::vector<int64_t>& keys) {
  return Guarded([&]() -> absl::Status {
    Impl& impl = *impl_;
    const std::lock_guard<std::mutex> changing(impl.change_mutex);
    {
      const std::lock_guard<std::shared_mutex> lock(impl.data_mutex);
      for (const int64_t key : keys) impl.now.Remove(key);
    }
    const auto all = static_cast<double>(impl.now.keys.size());
    if (impl.now.removed() < kFewRemoved ||
        static_cast<double>(impl.now.removed()) < kMostRemoved * all) {
      return absl::OkStatus();
    }
    Generation next = impl.Rebuilt({}, {});
    const std::lock_guard<std::shared_mutex> lock(impl.data_mutex);
    impl.now = std::move(next);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<Neighbour>> VectorIndex::Search(const std::vector<float>& query,
                                                           int k) const {
  std::vector<Neighbour> found;
  absl::Status status = Guarded([&]() -> absl::Status {
    if (absl::Status wrong = impl_->Check(query); !wrong.ok()) return wrong;
    const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
    const Generation& now = impl_->now;
    const auto wanted = std::min<int64_t>(k, now.size());
    if (wanted < 1) return absl::OkStatus();
    std::vector<float> similarities(wanted);
    std::vector<faiss::Index::idx_t> positions(wanted);
    faiss::IDSelectorBitmap kept(now.kept.size(), now.kept.data());
    faiss::SearchParameters all;
    faiss::SearchParametersHNSW graph;
    graph.efSearch = std::max(impl_->options.search_effort, k);
    faiss::SearchParameters& parameters = now.exact() ? all : graph;
    if (now.removed() > 0) parameters.sel = &kept;
    now.index->search(1, query.data(), wanted, similarities.data(), positions.data(), &parameters);
    for (int64_t i = 0; i < wanted; ++i) {
      if (positions[i] >= 0) found.push_back({now.keys[positions[i]], similarities[i]});
    }
    if (static_cast<int64_t>(found.size()) == wanted) return absl::OkStatus();
    // A graph leads to fewer where most vectors around the query were removed.
    positions.clear();
    for (size_t i = 0; i < now.keys.size(); ++i) {
      if (now.keys[i] != kRemoved) positions.push_back(static_cast<int64_t>(i));
    }
    found = impl_->Exact(query, k, positions);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return found;
}

absl::StatusOr<std::vector<Neighbour>> VectorIndex::SearchAmong(
    const std::vector<float>& query, int k, const std::vector<int64_t>& keys) const {
  std::vector<Neighbour> found;
  absl::Status status = Guarded([&]() -> absl::Status {
    if (absl::Status wrong = impl_->Check(query); !wrong.ok()) return wrong;
    const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
    std::vector<faiss::Index::idx_t> positions;
    for (const int64_t key : keys) {
      const auto position = impl_->now.positions.find(key);
      if (position != impl_->now.positions.end()) positions.push_back(position->second);
    }
    std::sort(positions.begin(), positions.end());  // through memory in its order
    found = impl_->Exact(query, k, positions);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return found;
}

std::vector<int64_t> VectorIndex::Keys() const {
  const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
  std::vector<int64_t> keys;
  for (const auto& [key, position] : impl_->now.positions) keys.push_back(key);
  return keys;
}

int64_t VectorIndex::size() const {
  const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
  return impl_->now.size();
}

bool VectorIndex::exact() const {
  const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
  return impl_->now.exact();
}

int64_t VectorIndex::memory_bytes() const {
  // Of a key: its place in the list and in the map. Of a link: four bytes, on 1 + 1/M levels.
  constexpr int64_t kKeyBytes = 64;
  const std::shared_lock<std::shared_mutex> lock(impl_->data_mutex);
  const int64_t links = impl_->now.exact() ? 0 : int64_t{3} * impl_->options.links * 4;
  return static_cast<int64_t>(impl_->now.keys.size()) *
         (impl_->dimension * int64_t{sizeof(float)} + kKeyBytes + links);
}

}  // namespace gvsl
