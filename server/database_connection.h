// What the stores over a Database share: its one connection, records as JSON, pages.
#ifndef GVSL_SERVER_DATABASE_CONNECTION_H_
#define GVSL_SERVER_DATABASE_CONNECTION_H_

#include <google/protobuf/util/json_util.h>
#include <soci/soci.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/timestamp.pb.h"
#include "imaging/status_reason.h"
#include "server/database.h"
#include "server/list_query.h"

namespace gvsl {

// The tables whose rows name a blob.
constexpr const char* kBlobTables[] = {"volumes", "models", "registrations"};

struct Database::Connection {
  std::mutex mutex;
  soci::session sql;

  // Runs a body on the one connection; the database's exceptions become statuses.
  template <typename F>
  auto Locked(F&& body) -> decltype(body()) {
    const std::lock_guard<std::mutex> lock(mutex);
    try {
      return body();
    } catch (const std::exception& error) {
      const std::string text = error.what();
      if (text.find("disk is full") != std::string::npos) {
        return WithReason(
            absl::ResourceExhaustedError("the disk of the server's data folder is full"),
            "DISK_FULL");
      }
      return absl::InternalError(absl::StrCat("metadata store: ", text));
    }
  }

  // The id that an earlier creation of this request made, or "". ALREADY_EXISTS
  // (REQUEST_ID_REUSED) if it asked for something else. Both within Locked.
  absl::StatusOr<std::string> MadeBefore(const std::string& collection, const Creation& creation);
  void Remember(const std::string& collection, const Creation& creation, const std::string& id);
  // The blob of a record that was just deleted, if nothing else needs it, or "".
  std::string Unneeded(const std::string& blob);
  // `jobs/{id}` of one that has not ended and needs this volume or model, or "".
  std::string JobThatNeeds(const std::string& collection, const std::string& id);
  // The rows of a page, and one more if there is one; `visit` returns false for no more.
  template <typename Visit>
  void Rows(const ListPlan& plan, Visit&& visit);
};

template <typename M>
std::string ToJson(const M& message) {
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text);
  return text;
}

template <typename M>
absl::StatusOr<M> FromJson(const std::string& text) {
  M message;
  if (!google::protobuf::util::JsonStringToMessage(text, &message).ok()) {
    return absl::DataLossError("a record of the metadata store cannot be read");
  }
  return message;
}

inline int64_t Micros(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000000 + time.nanos() / 1000;
}

inline std::string IdPart(const std::string& name) { return name.substr(name.find('/') + 1); }

// NOT_FOUND with its reason: `volumes` gives VOLUME_NOT_FOUND.
absl::Status NotFound(const std::string& collection, const std::string& id);

absl::Status InUse(const std::string& name, const std::string& job);

// A page ends before its message would exceed 1 MiB, whatever the page size.
constexpr size_t kMostPageBytes = (1 << 20) - 4096;
constexpr size_t kItemOverheadBytes = 16;  // tag, length, and is_default of a model

template <typename T>
bool IsFull(const std::vector<T>& items, size_t bytes_with_next) {
  return !items.empty() && bytes_with_next > kMostPageBytes;
}

template <typename Visit>
void Database::Connection::Rows(const ListPlan& plan, Visit&& visit) {
  soci::statement statement(sql);
  std::vector<long long> numbers;
  numbers.reserve(plan.values.size());  // bound by address
  for (size_t i = 0; i < plan.values.size(); ++i) {
    const std::string name = absl::StrCat("p", i);
    const SqlValue& value = plan.values[i];
    if (!value.is_number) {
      statement.exchange(soci::use(value.text, name));
    } else {
      numbers.push_back(value.number);
      statement.exchange(soci::use(numbers.back(), name));
    }
  }
  std::vector<std::string> row(plan.columns);
  for (std::string& column : row) statement.exchange(soci::into(column));
  statement.alloc();
  statement.prepare(plan.sql);
  statement.define_and_bind();
  statement.execute();
  while (statement.fetch() && visit(row)) {
  }
}

// One page of records that have a name, a display name and a time; `decode` makes one of a row.
// Returns the token of the next page, "" after the last.
template <typename M, typename Decode>
absl::StatusOr<std::string> FetchPage(Database::Connection& connection, const ListPlan& plan,
                                      Decode&& decode, std::vector<M>& page) {
  absl::StatusOr<std::string> token = std::string();
  size_t bytes = 0;
  connection.Rows(plan, [&](const std::vector<std::string>& row) {
    absl::StatusOr<M> record = decode(row);
    if (!record.ok()) {
      token = record.status();
      return false;
    }
    bytes += record->ByteSizeLong() + kItemOverheadBytes;
    if (static_cast<int>(page.size()) == plan.size || IsFull(page, bytes)) {
      const M& last = page.back();
      token = MakePageToken(plan.query, {plan.by_time ? std::to_string(Micros(last.create_time()))
                                                      : last.display_name(),
                                         IdPart(last.name())});
      return false;
    }
    page.push_back(*std::move(record));
    return true;
  });
  return token;
}

}  // namespace gvsl

#endif  // GVSL_SERVER_DATABASE_CONNECTION_H_
