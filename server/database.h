// Database: the one file of SQL in which a server keeps what it knows. SQLite today; one code path
// through SOCI, so that PostgreSQL can stand beside it. The stores over it say what is in it.
#ifndef GVSL_SERVER_DATABASE_H_
#define GVSL_SERVER_DATABASE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace gvsl {

// What a finished creation remembers, so that asking again gives the same.
struct Creation {
  std::string request_id;      // empty: nothing to remember
  std::string request_sha256;  // of what was asked for
};

// Safe for concurrent use. A change that has returned OK is on the disk.
class Database {
 public:
  // Opens or makes the file and brings its schema up to date. FAILED_PRECONDITION: the file cannot
  // be opened, or was written by a newer program.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path);
  ~Database();

  struct Connection;  // server/database_connection.h: for the stores alone
  Connection& connection() { return *connection_; }

 private:
  explicit Database(std::unique_ptr<Connection> connection);
  std::unique_ptr<Connection> connection_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_DATABASE_H_
