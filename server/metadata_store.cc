#include "server/metadata_store.h"

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/database_connection.h"
#include "server/volume_query.h"

namespace gvsl {
namespace {

void AddTags(soci::session& sql, const std::string& id, const v1::Volume& volume) {
  const std::set<std::string> tags(volume.tags().begin(), volume.tags().end());
  for (const std::string& tag : tags) {
    sql << "INSERT INTO volume_tags (volume_id, tag) VALUES (:i, :t)", soci::use(id, "i"),
        soci::use(tag, "t");
  }
}

}  // namespace

absl::StatusOr<std::optional<std::string>> MetadataStore::FindCreation(
    const std::string& collection, const Creation& creation) {
  return connection_.Locked([&]() -> absl::StatusOr<std::optional<std::string>> {
    auto id = connection_.MadeBefore(collection, creation);
    if (!id.ok()) return id.status();
    if (id->empty()) return std::optional<std::string>();
    return std::optional<std::string>(absl::StrCat(collection, "/", *id));
  });
}

absl::Status MetadataStore::AddVolume(const StoredVolume& stored, const Creation& creation) {
  return connection_.Locked([&]() -> absl::Status {
    const v1::Volume& volume = stored.volume;
    const std::string id = IdPart(volume.name()), record = ToJson(volume);
    const std::string kind = v1::Volume::Kind_Name(volume.kind());
    const long long create_us = Micros(volume.create_time());
    soci::transaction all(connection_.sql);
    connection_.sql << "INSERT INTO volumes (id, display_name, kind, modality, content_sha256, "
                       "blob_sha256, create_us, "
                       "record) VALUES (:i, :d, :k, :m, :c, :b, :t, :r)",
        soci::use(id, "i"), soci::use(volume.display_name(), "d"), soci::use(kind, "k"),
        soci::use(volume.modality(), "m"), soci::use(volume.content_sha256(), "c"),
        soci::use(stored.blob_sha256, "b"), soci::use(create_us, "t"), soci::use(record, "r");
    AddTags(connection_.sql, id, volume);
    connection_.Remember("volumes", creation, id);
    all.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<StoredVolume> MetadataStore::GetVolume(const std::string& name) {
  return connection_.Locked([&]() -> absl::StatusOr<StoredVolume> {
    const std::string id = IdPart(name);
    StoredVolume stored;
    std::string record;
    connection_.sql << "SELECT record, blob_sha256 FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(record), soci::into(stored.blob_sha256);
    if (!connection_.sql.got_data()) return NotFound("volumes", id);
    auto volume = FromJson<v1::Volume>(record);
    if (!volume.ok()) return volume.status();
    stored.volume = *std::move(volume);
    return stored;
  });
}

absl::StatusOr<VolumePage> MetadataStore::ListVolumes(const v1::ListVolumesRequest& request) {
  auto condition = ParseVolumeFilter(request.filter());
  if (!condition.ok()) return condition.status();
  auto order = ParseVolumeOrder(request.order_by());
  if (!order.ok()) return order.status();
  auto plan =
      PlanList("volumes", {"record"},
               {request.page_size(), request.page_token(), request.filter(), request.order_by()},
               *std::move(condition), *order);
  if (!plan.ok()) return plan.status();
  return connection_.Locked([&]() -> absl::StatusOr<VolumePage> {
    VolumePage page;
    auto token = FetchPage(
        connection_, *plan,
        [](const std::vector<std::string>& row) { return FromJson<v1::Volume>(row[0]); },
        page.volumes);
    if (!token.ok()) return token.status();
    page.next_page_token = *std::move(token);
    return page;
  });
}

absl::StatusOr<v1::Volume> MetadataStore::UpdateVolume(
    const std::string& name, const std::function<void(v1::Volume&)>& change) {
  return connection_.Locked([&]() -> absl::StatusOr<v1::Volume> {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    std::string record;
    connection_.sql << "SELECT record FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(record);
    if (!connection_.sql.got_data()) return NotFound("volumes", id);
    auto volume = FromJson<v1::Volume>(record);
    if (!volume.ok()) return volume;
    change(*volume);
    record = ToJson(*volume);
    connection_.sql
        << "UPDATE volumes SET display_name = :d, modality = :m, record = :r WHERE id = :i",
        soci::use(volume->display_name(), "d"), soci::use(volume->modality(), "m"),
        soci::use(record, "r"), soci::use(id, "i");
    connection_.sql << "DELETE FROM volume_tags WHERE volume_id = :i", soci::use(id, "i");
    AddTags(connection_.sql, id, *volume);
    all.commit();
    return volume;
  });
}

absl::StatusOr<std::string> MetadataStore::DeleteVolume(const std::string& name) {
  return connection_.Locked([&]() -> absl::StatusOr<std::string> {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    std::string blob;
    connection_.sql << "SELECT blob_sha256 FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(blob);
    if (!connection_.sql.got_data()) return NotFound("volumes", id);
    if (const std::string job = connection_.JobThatNeeds("volumes", id); !job.empty()) {
      return WithReason(InUse(name, job), "VOLUME_IN_USE");
    }
    connection_.sql << "DELETE FROM creations WHERE resource_id = :i", soci::use(id, "i");
    connection_.sql << "DELETE FROM volumes WHERE id = :i", soci::use(id, "i");
    const std::string unneeded = connection_.Unneeded(blob);
    all.commit();
    return unneeded;
  });
}

absl::StatusOr<StoredTotals> MetadataStore::Totals() {
  return connection_.Locked([&]() -> absl::StatusOr<StoredTotals> {
    long long volumes = 0, models = 0;
    connection_.sql << "SELECT COUNT(*) FROM volumes", soci::into(volumes);
    connection_.sql << "SELECT COUNT(*) FROM models", soci::into(models);
    return StoredTotals{volumes, models};
  });
}

absl::StatusOr<std::set<std::string>> MetadataStore::Blobs() {
  return connection_.Locked([&]() -> absl::StatusOr<std::set<std::string>> {
    std::set<std::string> blobs;
    for (const char* table : kBlobTables) {
      const soci::rowset<std::string> rows =
          (connection_.sql.prepare << absl::StrCat("SELECT DISTINCT blob_sha256 FROM ", table));
      blobs.insert(rows.begin(), rows.end());
    }
    return blobs;
  });
}

}  // namespace gvsl
