#include "server/database.h"

#include <soci/sqlite3/soci-sqlite3.h>

#include "absl/strings/ascii.h"
#include "server/database_connection.h"

namespace gvsl {
namespace {

// One step a version; a step that was released is never changed.
const std::vector<std::vector<std::string>>& Migrations() {
  static const std::vector<std::vector<std::string>> steps = {
      {
          R"(CREATE TABLE volumes (id VARCHAR(64) PRIMARY KEY, display_name TEXT NOT NULL,
             kind VARCHAR(16) NOT NULL, modality VARCHAR(16) NOT NULL,
             content_sha256 VARCHAR(64) NOT NULL, blob_sha256 VARCHAR(64) NOT NULL,
             create_us BIGINT NOT NULL, record TEXT NOT NULL))",
          "CREATE INDEX volumes_by_time ON volumes (create_us, id)",
          "CREATE INDEX volumes_by_display_name ON volumes (display_name, id)",
          "CREATE INDEX volumes_by_blob ON volumes (blob_sha256)",
          R"(CREATE TABLE volume_tags (
             volume_id VARCHAR(64) NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
             tag TEXT NOT NULL, PRIMARY KEY (tag, volume_id)))",
          "CREATE INDEX volume_tags_by_volume ON volume_tags (volume_id)",
          R"(CREATE TABLE models (id VARCHAR(64) PRIMARY KEY, blob_sha256 VARCHAR(64) NOT NULL,
             create_us BIGINT NOT NULL, is_default INTEGER NOT NULL, record TEXT NOT NULL))",
          "CREATE INDEX models_by_time ON models (create_us, id)",
          R"(CREATE TABLE creations (collection VARCHAR(16) NOT NULL,
             request_id VARCHAR(64) NOT NULL, request_sha256 VARCHAR(64) NOT NULL,
             resource_id VARCHAR(64) NOT NULL, PRIMARY KEY (collection, request_id)))",
          "CREATE INDEX creations_by_resource ON creations (resource_id)",
      },
      {
          R"(CREATE TABLE jobs (id VARCHAR(64) PRIMARY KEY, display_name TEXT NOT NULL,
             state VARCHAR(16) NOT NULL, create_us BIGINT NOT NULL, queue_us BIGINT NOT NULL,
             spec TEXT NOT NULL, record TEXT NOT NULL, event_sequence BIGINT NOT NULL,
             event_offset BIGINT NOT NULL, checkpoint_step BIGINT NOT NULL,
             crashes INTEGER NOT NULL, stop_requested INTEGER NOT NULL))",
          "CREATE INDEX jobs_by_time ON jobs (create_us, id)",
          "CREATE INDEX jobs_by_state ON jobs (state, queue_us, id)",
          R"(CREATE TABLE job_inputs (
             job_id VARCHAR(64) NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
             position INTEGER NOT NULL, role VARCHAR(16) NOT NULL,
             collection VARCHAR(16) NOT NULL, resource_id VARCHAR(64) NOT NULL,
             PRIMARY KEY (job_id, position)))",
          "CREATE INDEX job_inputs_by_resource ON job_inputs (resource_id)",
      },
      {
          R"(CREATE TABLE embeddings (vector_key BIGINT PRIMARY KEY,
             fingerprint VARCHAR(64) NOT NULL,
             volume_id VARCHAR(64) NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
             vector TEXT NOT NULL))",
          "CREATE UNIQUE INDEX embeddings_by_volume ON embeddings (volume_id, fingerprint)",
          "CREATE INDEX embeddings_by_fingerprint ON embeddings (fingerprint, vector_key)",
      },
      {
          R"(CREATE TABLE registrations (id VARCHAR(64) PRIMARY KEY, display_name TEXT NOT NULL,
             fixed TEXT NOT NULL, moving TEXT NOT NULL, quality VARCHAR(16) NOT NULL,
             blob_sha256 VARCHAR(64) NOT NULL, create_us BIGINT NOT NULL, record TEXT NOT NULL))",
          "CREATE INDEX registrations_by_time ON registrations (create_us, id)",
          "CREATE INDEX registrations_by_blob ON registrations (blob_sha256)",
      }};
  return steps;
}

void Migrate(soci::session& sql, int from) {
  const auto& steps = Migrations();
  for (size_t version = static_cast<size_t>(from); version < steps.size(); ++version) {
    soci::transaction step(sql);
    for (const std::string& statement : steps[version]) sql << statement;
    const int next = static_cast<int>(version + 1);
    sql << "UPDATE schema_version SET version = :v", soci::use(next, "v");
    step.commit();
  }
}

}  // namespace

absl::Status NotFound(const std::string& collection, const std::string& id) {
  const std::string reason =
      absl::AsciiStrToUpper(collection.substr(0, collection.size() - 1)) + "_NOT_FOUND";
  return WithReason(
      absl::NotFoundError(absl::StrCat("there is no ", collection, "/", id.substr(0, 64), "; gvsl ",
                                       collection, " list shows what there is")),
      reason.c_str());
}

absl::Status InUse(const std::string& name, const std::string& job) {
  return absl::FailedPreconditionError(
      absl::StrCat(name, " is needed by ", job,
                   ", which has not ended; wait for it, or cancel it (gvsl jobs "
                   "cancel ",
                   job, ")"));
}

Database::Database(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
Database::~Database() = default;

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path) {
  auto connection = std::make_unique<Connection>();
  soci::session& sql = connection->sql;
  try {
    sql.open(soci::sqlite3, absl::StrCat("dbname=", path, " timeout=30"));
    // Readers never wait for writers, and a commit is on the disk when it returns.
    std::string journal;
    int synchronous = 0;
    constexpr int kFull = 2;
    sql << "PRAGMA journal_mode = WAL", soci::into(journal);
    sql << "PRAGMA synchronous = FULL";
    sql << "PRAGMA synchronous", soci::into(synchronous);
    if (journal != "wal" || synchronous != kFull) {
      return absl::FailedPreconditionError(
          absl::StrCat("data_dir: the file system of ", path, " keeps no write-ahead log (journal ",
                       journal, ", synchronous ", synchronous, "); use a local one"));
    }
    sql << "PRAGMA foreign_keys = ON";
    sql << "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)";
    int rows = 0, version = 0;
    sql << "SELECT COUNT(*) FROM schema_version", soci::into(rows);
    if (rows == 0) {
      sql << "INSERT INTO schema_version (version) VALUES (0)";
    } else {
      sql << "SELECT version FROM schema_version", soci::into(version);
    }
    const int known = static_cast<int>(Migrations().size());
    if (version > known) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " was written by a newer gvsld (schema ", version,
                       ", this program knows ", known, "); run that one, or restore a backup"));
    }
    Migrate(sql, version);
  } catch (const std::exception& error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot open the metadata store ", path, ": ", error.what()));
  }
  return std::unique_ptr<Database>(new Database(std::move(connection)));
}

absl::StatusOr<std::string> Database::Connection::MadeBefore(const std::string& collection,
                                                             const Creation& creation) {
  if (creation.request_id.empty()) return std::string();
  std::string sha256, id;
  sql << "SELECT request_sha256, resource_id FROM creations WHERE collection = :c AND "
         "request_id = :r",
      soci::use(collection, "c"), soci::use(creation.request_id, "r"), soci::into(sha256),
      soci::into(id);
  if (!sql.got_data()) return std::string();
  if (sha256 != creation.request_sha256) {
    return WithReason(
        absl::AlreadyExistsError(absl::StrCat("request_id: ", creation.request_id,
                                              " made something else before; take a new one")),
        "REQUEST_ID_REUSED");
  }
  return id;
}

void Database::Connection::Remember(const std::string& collection, const Creation& creation,
                                    const std::string& id) {
  if (creation.request_id.empty()) return;
  sql << "INSERT INTO creations (collection, request_id, request_sha256, resource_id) VALUES "
         "(:c, :r, :s, :i)",
      soci::use(collection, "c"), soci::use(creation.request_id, "r"),
      soci::use(creation.request_sha256, "s"), soci::use(id, "i");
}

std::string Database::Connection::Unneeded(const std::string& blob) {
  for (const char* table : kBlobTables) {
    int records = 0;
    sql << absl::StrCat("SELECT COUNT(*) FROM ", table, " WHERE blob_sha256 = :b"),
        soci::use(blob, "b"), soci::into(records);
    if (records > 0) return "";
  }
  return blob;
}

std::string Database::Connection::JobThatNeeds(const std::string& collection,
                                               const std::string& id) {
  std::string job;
  sql << "SELECT job_id FROM job_inputs JOIN jobs ON jobs.id = job_id WHERE resource_id = :i AND "
         "collection = :c AND state IN ('QUEUED', 'RUNNING') LIMIT 1",
      soci::use(id, "i"), soci::use(collection, "c"), soci::into(job);
  return sql.got_data() ? "jobs/" + job : "";
}

}  // namespace gvsl
