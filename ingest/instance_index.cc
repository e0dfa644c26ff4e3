#include "ingest/instance_index.h"

#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"

namespace gvsl {
namespace {

constexpr int kBusyTimeoutMs = 5000;

// Of this start of the machine; empty where the kernel does not say.
std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

// An SQL statement with its values; they must outlive it.
class Statement {
 public:
  Statement(sqlite3* database, const char* sql) {
    sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // SQLITE_ROW, SQLITE_DONE or an error.
  int Begin(std::initializer_list<const std::string*> values) {
    sqlite3_reset(statement_);
    int at = 0;
    for (const std::string* value : values) {
      sqlite3_bind_text(statement_, ++at, value->data(), static_cast<int>(value->size()),
                        SQLITE_STATIC);
    }
    return Next();
  }
  int Next() { return sqlite3_step(statement_); }
  std::string Text() const {
    return reinterpret_cast<const char*>(sqlite3_column_text(statement_, 0));
  }

 private:
  sqlite3_stmt* statement_ = nullptr;  // null where it could not be made; SQLite takes that
};

}  // namespace

absl::StatusOr<std::unique_ptr<InstanceIndex>> InstanceIndex::Open(const std::string& path) {
  for (bool again = false;; again = true) {
    sqlite3* database = nullptr;
    const int opened = sqlite3_open(path.c_str(), &database);
    std::unique_ptr<InstanceIndex> index(new InstanceIndex(path, database));
    if (opened != SQLITE_OK) return index->Failed();
    sqlite3_busy_timeout(database, kBusyTimeoutMs);
    // With a write-ahead log a transaction need not wait for the disk, and the file stays whole.
    const absl::Status made = index->Run(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
        "CREATE TABLE IF NOT EXISTS instances (name TEXT, key TEXT, PRIMARY KEY (name, key))"
        "  WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS filled (boot_id TEXT);");
    if (made.ok()) return index;
    const int code = sqlite3_errcode(database);
    if (again || (code != SQLITE_CORRUPT && code != SQLITE_NOTADB)) return made;
    index.reset();
    for (const char* part : {"", "-wal", "-shm"}) {
      std::error_code ignored;
      std::filesystem::remove(path + part, ignored);
    }
  }
}

InstanceIndex::~InstanceIndex() { sqlite3_close(database_); }

absl::Status InstanceIndex::Failed() const {
  const std::string text =
      absl::StrCat("the index ", ShownPath(path_), ": ", sqlite3_errmsg(database_));
  return sqlite3_errcode(database_) == SQLITE_FULL ? absl::ResourceExhaustedError(text)
                                                   : absl::UnavailableError(text);
}

absl::Status InstanceIndex::Run(const char* sql) {
  return sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? absl::OkStatus()
                                                                              : Failed();
}

absl::StatusOr<InstanceIndex::Freshness> InstanceIndex::freshness() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Statement select(database_, "SELECT boot_id FROM filled");
  const int found = select.Begin({});
  if (found == SQLITE_DONE) return Freshness::kEmpty;
  if (found != SQLITE_ROW) return Failed();
  const std::string boot_id = BootId();
  return !boot_id.empty() && select.Text() == boot_id ? Freshness::kCurrent : Freshness::kBehind;
}

absl::Status InstanceIndex::MarkCurrent() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (absl::Status status = Run("BEGIN IMMEDIATE; DELETE FROM filled"); !status.ok()) {
      return status;
    }
    const std::string boot_id = BootId();
    Statement insert(database_, "INSERT INTO filled VALUES (?)");
    if (insert.Begin({&boot_id}) != SQLITE_DONE) {
      absl::Status status = Failed();
      Run("ROLLBACK").IgnoreError();
      return status;
    }
    if (absl::Status status = Run("COMMIT"); !status.ok()) return status;
  }
  return Sync();
}

absl::Status InstanceIndex::Add(const std::string& key, const std::set<std::string>& names) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = Run("BEGIN IMMEDIATE"); !status.ok()) return status;
  absl::Status status;
  {
    Statement insert(database_, "INSERT OR IGNORE INTO instances VALUES (?, ?)");
    for (const std::string& name : names) {
      if (insert.Begin({&name, &key}) == SQLITE_DONE) continue;
      status = Failed();
      break;
    }
  }
  if (status.ok()) status = Run("COMMIT");
  if (!status.ok()) Run("ROLLBACK").IgnoreError();
  return status;
}

absl::StatusOr<std::set<std::string>> InstanceIndex::Find(const std::set<std::string>& names) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::set<std::string> keys;
  Statement select(database_, "SELECT key FROM instances WHERE name = ?");
  for (const std::string& name : names) {
    int found = select.Begin({&name});
    for (; found == SQLITE_ROW; found = select.Next()) keys.insert(select.Text());
    if (found != SQLITE_DONE) return Failed();
  }
  return keys;
}

absl::Status InstanceIndex::Sync() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Run("PRAGMA wal_checkpoint(TRUNCATE)");
}

}  // namespace gvsl
