// EmbeddingStore: the embeddings of volumes in the metadata store, which is the truth that every
// index is made from.
#ifndef GVSL_SERVER_EMBEDDING_STORE_H_
#define GVSL_SERVER_EMBEDDING_STORE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/database.h"

namespace gvsl {

struct StoredEmbedding {
  int64_t key = 0;  // KeyOf
  std::vector<float> values;
};

// What a hit tells of its volume.
struct EmbeddedVolume {
  int64_t key = 0;
  std::string volume;  // volumes/{id}
  std::string display_name;
  std::string modality;
};

// An embedding belongs to a volume and a model's fingerprint, and goes with its volume. Safe for
// concurrent use; a change that has returned OK is on the disk. Every method may return INTERNAL
// with the database's own words. Long lists are read in pieces, so that others get their turn.
class EmbeddingStore {
 public:
  // `database` outlives the store.
  explicit EmbeddingStore(Database& database) : connection_(database.connection()) {}

  // The number under which an index knows an embedding: 60 bits of a digest of both names. So it
  // means the same vector in every copy, older or newer, of database and index.
  static int64_t KeyOf(const std::string& fingerprint, const std::string& volume);

  // Keeps an embedding; one that is there stays. NOT_FOUND: the volume was deleted meanwhile.
  absl::Status Add(const std::string& fingerprint, const std::string& volume,
                   const std::vector<float>& values);
  absl::StatusOr<std::optional<StoredEmbedding>> Find(const std::string& fingerprint,
                                                      const std::string& volume);
  absl::StatusOr<int64_t> Count(const std::string& fingerprint);

  // All keys of a fingerprint, ascending.
  absl::StatusOr<std::vector<int64_t>> Keys(const std::string& fingerprint);
  // The keys of the volumes that match a filter of ListVolumes, ascending. INVALID_ARGUMENT.
  absl::StatusOr<std::vector<int64_t>> Matching(const std::string& fingerprint,
                                                const std::string& filter);
  // At most kBatch embeddings, those that are still there.
  absl::StatusOr<std::vector<StoredEmbedding>> Read(const std::vector<int64_t>& keys);
  // The volumes of at most kMostKeys keys, in no order; those that are still there.
  absl::StatusOr<std::vector<EmbeddedVolume>> Volumes(const std::vector<int64_t>& keys);

  // Images that match a filter and have no embedding: names after `after` in their order, at most
  // `limit`.
  absl::StatusOr<std::vector<std::string>> Missing(const std::string& fingerprint,
                                                   const std::string& filter,
                                                   const std::string& after, int limit);
  absl::StatusOr<int64_t> CountMissing(const std::string& fingerprint, const std::string& filter);

  static constexpr size_t kBatch = 1000, kMostKeys = 1100;

 private:
  absl::StatusOr<std::vector<int64_t>> KeysWhere(const std::string& fingerprint,
                                                 const std::string& filter);

  Database::Connection& connection_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_EMBEDDING_STORE_H_
