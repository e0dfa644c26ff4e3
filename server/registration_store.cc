#include "server/registration_store.h"

#include "server/database_connection.h"

namespace gvsl {
namespace {

absl::StatusOr<StoredRegistration> Read(soci::session& sql, const std::string& id) {
  StoredRegistration stored;
  std::string record;
  sql << "SELECT record, blob_sha256 FROM registrations WHERE id = :i", soci::use(id, "i"),
      soci::into(record), soci::into(stored.blob_sha256);
  if (!sql.got_data()) return NotFound("registrations", id);
  auto registration = FromJson<v1::Registration>(record);
  if (!registration.ok()) return registration.status();
  stored.registration = *std::move(registration);
  return stored;
}

absl::StatusOr<SqlCondition> ParseRegistrationFilter(const std::string& filter) {
  using Kind = FilterField::Kind;
  static const FilterGrammar grammar = {
      {{"display_name", Kind::kText, "display_name", {}},
       {"fixed", Kind::kText, "fixed", {}},
       {"moving", Kind::kText, "moving", {}},
       {"quality", Kind::kChoice, "quality", {"GOOD", "DOUBTFUL", "FAILED"}},
       {"create_time", Kind::kTime, "create_us", {}}},
      "quality = GOOD AND fixed = \"volumes/3f2a\""};
  return ParseFilter(filter, grammar);
}

}  // namespace

absl::StatusOr<v1::Registration> RegistrationStore::Add(const StoredRegistration& stored,
                                                        const Creation& creation) {
  return connection_.Locked([&]() -> absl::StatusOr<v1::Registration> {
    soci::session& sql = connection_.sql;
    const v1::Registration& registration = stored.registration;
    soci::transaction all(sql);
    auto before = connection_.MadeBefore("registrations", creation);
    if (!before.ok()) return before.status();
    if (!before->empty()) {
      auto made = Read(sql, *before);
      if (!made.ok()) return made.status();
      return std::move(made->registration);
    }
    const std::string id = IdPart(registration.name()), record = ToJson(registration);
    const std::string quality =
        v1::RegistrationVerdict::Quality_Name(registration.verdict().quality());
    const long long create_us = Micros(registration.create_time());
    sql << "INSERT INTO registrations (id, display_name, fixed, moving, quality, blob_sha256, "
           "create_us, record) VALUES (:i, :d, :f, :m, :q, :b, :t, :r)",
        soci::use(id, "i"), soci::use(registration.display_name(), "d"),
        soci::use(registration.fixed(), "f"), soci::use(registration.moving(), "m"),
        soci::use(quality, "q"), soci::use(stored.blob_sha256, "b"), soci::use(create_us, "t"),
        soci::use(record, "r");
    connection_.Remember("registrations", creation, id);
    all.commit();
    return registration;
  });
}

absl::StatusOr<StoredRegistration> RegistrationStore::Get(const std::string& name) {
  return connection_.Locked([&] { return Read(connection_.sql, IdPart(name)); });
}

absl::StatusOr<v1::ListRegistrationsResponse> RegistrationStore::List(
    const v1::ListRegistrationsRequest& request) {
  auto condition = ParseRegistrationFilter(request.filter());
  if (!condition.ok()) return condition.status();
  auto plan = PlanList("registrations", {"record"},
                       {request.page_size(), request.page_token(), request.filter(), ""},
                       *std::move(condition), SqlOrder());
  if (!plan.ok()) return plan.status();
  return connection_.Locked([&]() -> absl::StatusOr<v1::ListRegistrationsResponse> {
    std::vector<v1::Registration> page;
    auto token = FetchPage(
        connection_, *plan,
        [](const std::vector<std::string>& row) { return FromJson<v1::Registration>(row[0]); },
        page);
    if (!token.ok()) return token.status();
    v1::ListRegistrationsResponse response;
    for (v1::Registration& registration : page)
      *response.add_registrations() = std::move(registration);
    response.set_next_page_token(*token);
    return response;
  });
}

absl::StatusOr<std::string> RegistrationStore::Delete(const std::string& name) {
  return connection_.Locked([&]() -> absl::StatusOr<std::string> {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    auto stored = Read(connection_.sql, id);
    if (!stored.ok()) return stored.status();
    connection_.sql << "DELETE FROM creations WHERE resource_id = :i", soci::use(id, "i");
    connection_.sql << "DELETE FROM registrations WHERE id = :i", soci::use(id, "i");
    const std::string unneeded = connection_.Unneeded(stored->blob_sha256);
    all.commit();
    return unneeded;
  });
}

}  // namespace gvsl
