// EmbeddingCatalog: the embeddings of volumes, searched. One set a model fingerprint, each with an
// index beside the store that it is made from.
#ifndef GVSL_SERVER_EMBEDDING_CATALOG_H_
#define GVSL_SERVER_EMBEDDING_CATALOG_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/embedding_store.h"
#include "server/vector_index.h"

namespace gvsl {

struct CatalogHit {
  EmbeddedVolume volume;
  double similarity = 0;  // cosine
};

struct CatalogAnswer {
  std::vector<CatalogHit> hits;  // nearest first
  int64_t candidates = 0;        // that could have been hits
  bool exact = true;             // each of them was compared with
};

// The store is the truth. An index is a copy: read from its file when its set is first used,
// brought up to what the store holds, or made anew where the file is missing, damaged or another
// model's. Files are written now and then and when the catalog goes; what a killed server did not
// write is read from the store again. Safe for concurrent use.
class EmbeddingCatalog {
 public:
  struct Options {
    VectorIndex::Options index;
    int64_t memory_bytes = int64_t{4} << 30;  // of indexes; the last used always stays
  };
  // `folder` is there and is the catalog's own; `database` outlives it.
  EmbeddingCatalog(Database& database, std::string folder, const Options& options);
  // Writes the indexes that have changed.
  ~EmbeddingCatalog();

  // Keeps a volume's unit vector. NOT_FOUND: the volume was deleted meanwhile.
  absl::Status Add(const std::string& fingerprint, const std::string& volume,
                   const std::vector<float>& values);
  // Takes the vectors of a volume that was deleted out of the indexes; the store's went with it.
  absl::Status Forget(const std::string& volume);

  // The volumes nearest to a unit vector, at most `k`, without `excluded`. With a filter (of
  // ListVolumes) every volume that matches is compared with. INVALID_ARGUMENT: the filter is wrong.
  absl::StatusOr<CatalogAnswer> Search(const std::string& fingerprint,
                                       const std::vector<float>& query, int k,
                                       const std::string& filter, const std::string& excluded);

  EmbeddingStore& store() { return store_; }

 private:
  struct Set;

  // The set with its index, read or made where it was not in memory.
  absl::StatusOr<std::shared_ptr<Set>> Open(const std::string& fingerprint, int dimension);
  absl::Status Fill(const std::string& fingerprint, int dimension, Set& set);
  void Changed(Set& set, int64_t vectors);
  void Save(Set& set);
  void MakeRoom();
  std::string PathOf(const std::string& fingerprint) const;

  EmbeddingStore store_;
  const std::string folder_;
  const Options options_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Set>> sets_;  // guarded by mutex_
  int64_t uses_ = 0;                                  // guarded by mutex_
};

}  // namespace gvsl

#endif  // GVSL_SERVER_EMBEDDING_CATALOG_H_
