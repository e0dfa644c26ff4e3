#include "server/embedding_catalog.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log.h"

namespace gvsl {
namespace {

// A file is written after so many changes at least, and after this share of its vectors.
constexpr int64_t kLeastChanges = 256;
constexpr int64_t kShareOfChanges = 8;

}  // namespace

struct EmbeddingCatalog::Set {
  std::string path;
  std::mutex mutex;                    // held while the index is made and while its file is written
  std::unique_ptr<VectorIndex> index;  // once made, never another
  std::atomic<bool> made{false};
  std::atomic<int64_t> changes{0};  // that its file lacks
  std::atomic<int64_t> memory_bytes{0};
  int64_t last_use = 0;  // guarded by the catalog's mutex_
};

EmbeddingCatalog::EmbeddingCatalog(Database& database, std::string folder, const Options& options)
    : store_(database), folder_(std::move(folder)), options_(options) {}

EmbeddingCatalog::~EmbeddingCatalog() {
  for (const auto& [fingerprint, set] : sets_) Save(*set);
}

std::string EmbeddingCatalog::PathOf(const std::string& fingerprint) const {
  return absl::StrCat(folder_, "/", fingerprint, ".index");
}

absl::StatusOr<std::shared_ptr<EmbeddingCatalog::Set>> EmbeddingCatalog::Open(
    const std::string& fingerprint, int dimension) {
  std::shared_ptr<Set> set;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::shared_ptr<Set>& held = sets_[fingerprint];
    if (held == nullptr) held = std::make_shared<Set>();
    held->last_use = ++uses_;
    set = held;
  }
  {
    const std::lock_guard<std::mutex> lock(set->mutex);
    if (set->index == nullptr) {
      set->path = PathOf(fingerprint);
      if (absl::Status status = Fill(fingerprint, dimension, *set); !status.ok()) {
        set->index.reset();
        return status;
      }
      set->memory_bytes = set->index->memory_bytes();
      set->made = true;
    }
  }
  MakeRoom();
  return set;
}

absl::Status EmbeddingCatalog::Fill(const std::string& fingerprint, int dimension, Set& set) {
  auto loaded = VectorIndex::Load(set.path, fingerprint, dimension, options_.index);
  if (loaded.ok()) {
    set.index = *std::move(loaded);
  } else {
    if (loaded.status().code() != absl::StatusCode::kNotFound) {
      LogError(absl::StrCat("search: ", std::string(loaded.status().message()),
                            "; the index is made anew from the metadata store"));
      std::error_code error;
      std::filesystem::remove(set.path, error);
    }
    set.index = std::make_unique<VectorIndex>(fingerprint, dimension, options_.index);
  }
  auto stored = store_.Keys(fingerprint);
  if (!stored.ok()) return stored.status();
  std::vector<int64_t> held = set.index->Keys(), gone, missing;
  std::sort(held.begin(), held.end());
  std::set_difference(held.begin(), held.end(), stored->begin(), stored->end(),
                      std::back_inserter(gone));
  std::set_difference(stored->begin(), stored->end(), held.begin(), held.end(),
                      std::back_inserter(missing));
  set.changes = static_cast<int64_t>(gone.size() + missing.size());
  if (absl::Status status = set.index->Remove(gone); !status.ok()) return status;
  for (size_t at = 0; at < missing.size(); at += EmbeddingStore::kBatch) {
    const size_t end = std::min(missing.size(), at + EmbeddingStore::kBatch);
    auto batch = store_.Read(
        {missing.begin() + static_cast<int64_t>(at), missing.begin() + static_cast<int64_t>(end)});
    if (!batch.ok()) return batch.status();
    std::vector<int64_t> keys;
    std::vector<float> vectors;
    for (const StoredEmbedding& embedding : *batch) {
      if (static_cast<int>(embedding.values.size()) != dimension) {
        return absl::DataLossError(absl::StrCat("an embedding of the metadata store has ",
                                                embedding.values.size(), " values instead of ",
                                                dimension));
      }
      keys.push_back(embedding.key);
      vectors.insert(vectors.end(), embedding.values.begin(), embedding.values.end());
    }
    if (absl::Status status = set.index->Add(keys, vectors); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void EmbeddingCatalog::Save(Set& set) {
  const std::lock_guard<std::mutex> lock(set.mutex);
  if (set.index == nullptr || set.changes.exchange(0) == 0) return;
  if (const absl::Status status = set.index->Save(set.path); !status.ok())
    LogError(absl::StrCat("search: ", std::string(status.message())));
}

void EmbeddingCatalog::Changed(Set& set, int64_t vectors) {
  set.memory_bytes = set.index->memory_bytes();
  const int64_t due = std::max(kLeastChanges, set.index->size() / kShareOfChanges);
  if ((set.changes += vectors) >= due) Save(set);
}

void EmbeddingCatalog::MakeRoom() {
  std::vector<std::shared_ptr<Set>> leaving;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    int64_t total = 0;
    for (const auto& [fingerprint, set] : sets_) total += set->memory_bytes;
    while (total > options_.memory_bytes) {
      auto oldest = sets_.end();
      for (auto it = sets_.begin(); it != sets_.end(); ++it) {
        if (it->second->made && it->second->last_use < uses_ &&
            (oldest == sets_.end() || it->second->last_use < oldest->second->last_use)) {
          oldest = it;
        }
      }
      if (oldest == sets_.end()) break;
      total -= oldest->second->memory_bytes;
      leaving.push_back(std::move(oldest->second));
      sets_.erase(oldest);
    }
  }
  for (const auto& set : leaving) Save(*set);
}

absl::Status EmbeddingCatalog::Add(const std::string& fingerprint, const std::string& volume,
                                   const std::vector<float>& values) {
  if (absl::Status status = store_.Add(fingerprint, volume, values); !status.ok()) return status;
  auto set = Open(fingerprint, static_cast<int>(values.size()));
  if (!set.ok()) return set.status();
  absl::Status status = (*set)->index->Add({EmbeddingStore::KeyOf(fingerprint, volume)}, values);
  if (status.ok()) Changed(**set, 1);
  return status;
}

absl::Status EmbeddingCatalog::Forget(const std::string& volume) {
  std::vector<std::pair<std::string, std::shared_ptr<Set>>> held;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [fingerprint, set] : sets_) {
      if (set->made) held.emplace_back(fingerprint, set);
    }
  }
  for (const auto& [fingerprint, set] : held) {
    absl::Status status = set->index->Remove({EmbeddingStore::KeyOf(fingerprint, volume)});
    if (!status.ok()) return status;
    Changed(*set, 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<CatalogAnswer> EmbeddingCatalog::Search(const std::string& fingerprint,
                                                       const std::vector<float>& query, int k,
                                                       const std::string& filter,
                                                       const std::string& excluded) {
  auto set = Open(fingerprint, static_cast<int>(query.size()));
  if (!set.ok()) return set.status();
  VectorIndex& index = *(*set)->index;
  const int64_t own_key = EmbeddingStore::KeyOf(fingerprint, excluded);
  while (true) {
    CatalogAnswer answer;
    absl::StatusOr<std::vector<Neighbour>> nearest;
    if (filter.empty()) {
      answer.exact = index.exact();
      nearest = index.Search(query, k + 1);  // the excluded one may be among them
      const auto keys = store_.Count(fingerprint);
      if (!keys.ok()) return keys.status();
      auto own = store_.Find(fingerprint, excluded);
      if (!own.ok()) return own.status();
      answer.candidates = *keys - (own->has_value() ? 1 : 0);
    } else {
      auto keys = store_.Matching(fingerprint, filter);
      if (!keys.ok()) return keys.status();
      keys->erase(std::remove(keys->begin(), keys->end(), own_key), keys->end());
      answer.candidates = static_cast<int64_t>(keys->size());
      nearest = index.SearchAmong(query, k, *keys);
    }
    if (!nearest.ok()) return nearest.status();
    nearest->erase(std::remove_if(nearest->begin(), nearest->end(),
                                  [&](const Neighbour& n) { return n.key == own_key; }),
                   nearest->end());
    if (static_cast<int>(nearest->size()) > k) nearest->resize(k);
    std::vector<int64_t> keys;
    for (const Neighbour& neighbour : *nearest) keys.push_back(neighbour.key);
    auto volumes = store_.Volumes(keys);
    if (!volumes.ok()) return volumes.status();
    std::unordered_map<int64_t, EmbeddedVolume> by_key;
    for (EmbeddedVolume& volume : *volumes) by_key[volume.key] = std::move(volume);
    std::vector<int64_t> gone;
    for (const Neighbour& neighbour : *nearest) {
      const auto volume = by_key.find(neighbour.key);
      if (volume == by_key.end()) {
        gone.push_back(neighbour.key);
      } else {
        answer.hits.push_back({std::move(volume->second), neighbour.similarity});
      }
    }
    if (gone.empty()) return answer;
    // Volumes that went while the index was made or searched: they take no one's place.
    if (absl::Status status = index.Remove(gone); !status.ok()) return status;
  }
}

}  // namespace gvsl
