#include "server/embedding_store.h"

#include <cstdlib>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "imaging/sha256.h"
#include "server/database_connection.h"
#include "server/volume_query.h"

namespace gvsl {
namespace {

constexpr int kKeyDigits = 15;      // hexadecimal: 60 bits
constexpr int kKeysAPiece = 50000;  // read under one lock

// A vector in the database: base64 of its little-endian floats, which every database keeps alike.
std::string ToText(const std::vector<float>& values) {
  return absl::Base64Escape(absl::string_view(reinterpret_cast<const char*>(values.data()),
                                              values.size() * sizeof(float)));
}
absl::StatusOr<std::vector<float>> FromText(const std::string& text) {
  std::string bytes;
  if (!absl::Base64Unescape(text, &bytes) || bytes.size() % sizeof(float) != 0)
    return absl::DataLossError("an embedding of the metadata store cannot be read");
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// A plan of `columns` columns; its values are :p0, :p1, ...
ListPlan PlanOf(std::string sql, std::vector<SqlValue> values, int columns) {
  ListPlan plan;
  plan.sql = std::move(sql);
  plan.values = std::move(values);
  plan.columns = columns;
  return plan;
}

// Condition on a row of `volumes`: an image that matches the filter and has no embedding.
absl::StatusOr<SqlCondition> MissingCondition(const std::string& fingerprint,
                                              const std::string& filter) {
  auto condition = ParseVolumeFilter(filter);
  if (!condition.ok()) return condition;
  absl::StrAppend(&condition->sql,
                  " AND kind <> 'LABELS' AND NOT EXISTS (SELECT 1 FROM embeddings WHERE "
                  "volume_id = volumes.id AND fingerprint = :p",
                  condition->values.size(), ")");
  condition->values.emplace_back(fingerprint);
  return condition;
}

}  // namespace

int64_t EmbeddingStore::KeyOf(const std::string& fingerprint, const std::string& volume) {
  const std::string digest = Sha256Of(absl::StrCat(fingerprint, "/", volume));
  return std::strtoll(digest.substr(0, kKeyDigits).c_str(), nullptr, 16);
}

absl::Status EmbeddingStore::Add(const std::string& fingerprint, const std::string& volume,
                                 const std::vector<float>& values) {
  const std::string text = ToText(values), id = IdPart(volume);
  const long long key = KeyOf(fingerprint, volume);
  return connection_.Locked([&]() -> absl::Status {
    soci::transaction all(connection_.sql);
    int found = 0;
    connection_.sql << "SELECT COUNT(*) FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(found);
    if (found == 0) return NotFound("volumes", id);
    connection_.sql << "SELECT COUNT(*) FROM embeddings WHERE vector_key = :k", soci::use(key, "k"),
        soci::into(found);
    if (found > 0) return absl::OkStatus();
    connection_.sql << "INSERT INTO embeddings (vector_key, fingerprint, volume_id, vector) VALUES "
                       "(:k, :f, :i, :v)",
        soci::use(key, "k"), soci::use(fingerprint, "f"), soci::use(id, "i"), soci::use(text, "v");
    all.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::optional<StoredEmbedding>> EmbeddingStore::Find(const std::string& fingerprint,
                                                                    const std::string& volume) {
  auto found = Read({KeyOf(fingerprint, volume)});
  if (!found.ok()) return found.status();
  if (found->empty()) return std::optional<StoredEmbedding>();
  return std::optional<StoredEmbedding>(std::move(found->front()));
}

absl::StatusOr<int64_t> EmbeddingStore::Count(const std::string& fingerprint) {
  return connection_.Locked([&]() -> absl::StatusOr<int64_t> {
    long long count = 0;
    connection_.sql << "SELECT COUNT(*) FROM embeddings WHERE fingerprint = :f",
        soci::use(fingerprint, "f"), soci::into(count);
    return count;
  });
}

absl::StatusOr<std::vector<int64_t>> EmbeddingStore::Keys(const std::string& fingerprint) {
  return KeysWhere(fingerprint, "");
}

absl::StatusOr<std::vector<int64_t>> EmbeddingStore::Matching(const std::string& fingerprint,
                                                              const std::string& filter) {
  return KeysWhere(fingerprint, filter);
}

absl::StatusOr<std::vector<int64_t>> EmbeddingStore::KeysWhere(const std::string& fingerprint,
                                                               const std::string& filter) {
  auto condition = ParseVolumeFilter(filter);
  if (!condition.ok()) return condition.status();
  std::string sql = "SELECT vector_key FROM embeddings WHERE ";
  if (!filter.empty())
    absl::StrAppend(&sql, "volume_id IN (SELECT id FROM volumes WHERE ", condition->sql, ") AND ");
  const size_t n = condition->values.size();
  absl::StrAppend(&sql, "fingerprint = :p", n, " AND vector_key > :p", n + 1,
                  " ORDER BY vector_key LIMIT ", kKeysAPiece);
  condition->values.emplace_back(fingerprint);
  condition->values.emplace_back(int64_t{-1});
  ListPlan plan = PlanOf(std::move(sql), std::move(condition->values), 1);
  std::vector<int64_t> keys;
  while (true) {
    const size_t before = keys.size();
    if (!keys.empty()) plan.values.back().number = keys.back();
    absl::Status status = connection_.Locked([&]() -> absl::Status {
      connection_.Rows(plan, [&](const std::vector<std::string>& row) {
        keys.push_back(std::atoll(row[0].c_str()));
        return true;
      });
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
    if (keys.size() - before < kKeysAPiece) return keys;
  }
}

absl::StatusOr<std::vector<StoredEmbedding>> EmbeddingStore::Read(
    const std::vector<int64_t>& keys) {
  std::vector<StoredEmbedding> found;
  if (keys.empty()) return found;
  return connection_.Locked([&]() -> absl::StatusOr<std::vector<StoredEmbedding>> {
    absl::Status damage;
    connection_.Rows(
        PlanOf(absl::StrCat("SELECT vector_key, vector FROM embeddings WHERE vector_key IN (",
                            absl::StrJoin(keys, ","), ")"),
               {}, 2),
        [&](const std::vector<std::string>& row) {
          auto values = FromText(row[1]);
          if (!values.ok()) {
            damage = values.status();
            return false;
          }
          found.push_back({std::atoll(row[0].c_str()), *std::move(values)});
          return true;
        });
    if (!damage.ok()) return damage;
    return std::move(found);
  });
}

absl::StatusOr<std::vector<EmbeddedVolume>> EmbeddingStore::Volumes(
    const std::vector<int64_t>& keys) {
  std::vector<EmbeddedVolume> volumes;
  if (keys.empty()) return volumes;
  return connection_.Locked([&]() -> absl::StatusOr<std::vector<EmbeddedVolume>> {
    connection_.Rows(
        PlanOf(absl::StrCat("SELECT vector_key, id, display_name, modality FROM embeddings JOIN "
                            "volumes ON volumes.id = volume_id WHERE vector_key IN (",
                            absl::StrJoin(keys, ","), ")"),
               {}, 4),
        [&](const std::vector<std::string>& row) {
          volumes.push_back({std::atoll(row[0].c_str()), "volumes/" + row[1], row[2], row[3]});
          return true;
        });
    return std::move(volumes);
  });
}

absl::StatusOr<std::vector<std::string>> EmbeddingStore::Missing(const std::string& fingerprint,
                                                                 const std::string& filter,
                                                                 const std::string& after,
                                                                 int limit) {
  auto condition = MissingCondition(fingerprint, filter);
  if (!condition.ok()) return condition.status();
  const std::string sql =
      absl::StrCat("SELECT id FROM volumes WHERE ", condition->sql, " AND id > :p",
                   condition->values.size(), " ORDER BY id LIMIT ", limit);
  condition->values.emplace_back(after.empty() ? after : IdPart(after));
  return connection_.Locked([&]() -> absl::StatusOr<std::vector<std::string>> {
    std::vector<std::string> names;
    connection_.Rows(PlanOf(sql, condition->values, 1), [&](const std::vector<std::string>& row) {
      names.push_back("volumes/" + row[0]);
      return true;
    });
    return names;
  });
}

absl::StatusOr<int64_t> EmbeddingStore::CountMissing(const std::string& fingerprint,
                                                     const std::string& filter) {
  auto condition = MissingCondition(fingerprint, filter);
  if (!condition.ok()) return condition.status();
  return connection_.Locked([&]() -> absl::StatusOr<int64_t> {
    int64_t count = 0;
    connection_.Rows(
        PlanOf("SELECT COUNT(*) FROM volumes WHERE " + condition->sql, condition->values, 1),
        [&](const std::vector<std::string>& row) {
          count = std::atoll(row[0].c_str());
          return true;
        });
    return count;
  });
}

}  // namespace gvsl
