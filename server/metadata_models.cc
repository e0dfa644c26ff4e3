// The half of MetadataStore that keeps models.
#include <cstdlib>
#include <limits>

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/database_connection.h"
#include "server/metadata_store.h"

namespace gvsl {

absl::StatusOr<v1::Model> MetadataStore::AddModel(const StoredModel& stored,
                                                  const Creation& creation) {
  return connection_.Locked([&]() -> absl::StatusOr<v1::Model> {
    v1::Model model = stored.model;
    const std::string id = IdPart(model.name());
    const long long create_us = Micros(model.create_time());
    soci::transaction all(connection_.sql);
    int defaults = 0;
    connection_.sql << "SELECT COUNT(*) FROM models WHERE is_default = 1", soci::into(defaults);
    const int is_default = defaults == 0 ? 1 : 0;
    model.set_is_default(false);  // kept in its column alone
    const std::string record = ToJson(model);
    connection_.sql
        << "INSERT INTO models (id, blob_sha256, create_us, is_default, record) VALUES (:i, "
           ":b, :t, :d, :r)",
        soci::use(id, "i"), soci::use(stored.blob_sha256, "b"), soci::use(create_us, "t"),
        soci::use(is_default, "d"), soci::use(record, "r");
    connection_.Remember("models", creation, id);
    all.commit();
    model.set_is_default(is_default == 1);
    return model;
  });
}

absl::StatusOr<StoredModel> MetadataStore::GetModel(const std::string& name) {
  return connection_.Locked([&]() -> absl::StatusOr<StoredModel> {
    const std::string id = IdPart(name);
    StoredModel stored;
    std::string record;
    int is_default = 0;
    if (id == "default") {
      connection_.sql << "SELECT record, blob_sha256, is_default FROM models WHERE is_default = 1",
          soci::into(record), soci::into(stored.blob_sha256), soci::into(is_default);
      if (!connection_.sql.got_data()) {
        return WithReason(
            absl::FailedPreconditionError(
                "there is no default model; import one (gvsl models import FILE), or make "
                "an untrained one (gvsl models create --size tiny --seed 1)"),
            "NO_DEFAULT_MODEL");
      }
    } else {
      connection_.sql << "SELECT record, blob_sha256, is_default FROM models WHERE id = :i",
          soci::use(id, "i"), soci::into(record), soci::into(stored.blob_sha256),
          soci::into(is_default);
      if (!connection_.sql.got_data()) return NotFound("models", id);
    }
    auto model = FromJson<v1::Model>(record);
    if (!model.ok()) return model.status();
    stored.model = *std::move(model);
    stored.model.set_is_default(is_default == 1);
    return stored;
  });
}

absl::StatusOr<ModelPage> MetadataStore::ListModels(const v1::ListModelsRequest& request) {
  auto size = PageSize(request.page_size());
  if (!size.ok()) return size.status();
  long long last_us = std::numeric_limits<long long>::max();
  std::string last_id;
  if (!request.page_token().empty()) {
    auto last = ReadPageToken("models", request.page_token());
    if (!last.ok()) return last.status();
    last_us = std::atoll(last->key.c_str());
    last_id = last->id;
  }
  return connection_.Locked([&]() -> absl::StatusOr<ModelPage> {
    std::string record;
    int is_default = 0;
    const int limit = *size + 1;
    soci::statement statement =
        (connection_.sql.prepare << "SELECT record, is_default FROM models WHERE create_us < :t OR "
                                    "(create_us = :u AND id < "
                                    ":i) ORDER BY create_us DESC, id DESC LIMIT :l",
         soci::use(last_us, "t"), soci::use(last_us, "u"), soci::use(last_id, "i"),
         soci::use(limit, "l"), soci::into(record), soci::into(is_default));
    statement.execute();
    ModelPage page;
    size_t bytes = 0;
    while (statement.fetch()) {
      auto model = FromJson<v1::Model>(record);
      if (!model.ok()) return model.status();
      bytes += model->ByteSizeLong() + kItemOverheadBytes;
      if (static_cast<int>(page.models.size()) == *size || IsFull(page.models, bytes)) {
        const v1::Model& last = page.models.back();
        page.next_page_token = MakePageToken(
            "models", {std::to_string(Micros(last.create_time())), IdPart(last.name())});
        break;
      }
      model->set_is_default(is_default == 1);
      page.models.push_back(*std::move(model));
    }
    return page;
  });
}

absl::Status MetadataStore::SetDefaultModel(const std::string& name) {
  return connection_.Locked([&]() -> absl::Status {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    int found = 0;
    connection_.sql << "SELECT COUNT(*) FROM models WHERE id = :i", soci::use(id, "i"),
        soci::into(found);
    if (found == 0) return NotFound("models", id);
    connection_.sql << "UPDATE models SET is_default = CASE WHEN id = :i THEN 1 ELSE 0 END",
        soci::use(id, "i");
    all.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> MetadataStore::DeleteModel(const std::string& name) {
  return connection_.Locked([&]() -> absl::StatusOr<std::string> {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    std::string blob;
    int is_default = 0, models = 0;
    connection_.sql << "SELECT blob_sha256, is_default FROM models WHERE id = :i",
        soci::use(id, "i"), soci::into(blob), soci::into(is_default);
    if (!connection_.sql.got_data()) return NotFound("models", id);
    connection_.sql << "SELECT COUNT(*) FROM models", soci::into(models);
    if (is_default == 1 && models > 1) {
      return WithReason(
          absl::FailedPreconditionError(
              "it is the default model; make another one the default first (gvsl models "
              "set-default MODEL)"),
          "MODEL_IS_DEFAULT");
    }
    if (const std::string job = connection_.JobThatNeeds("models", id); !job.empty()) {
      return WithReason(InUse(name, job), "MODEL_IN_USE");
    }
    connection_.sql << "DELETE FROM creations WHERE resource_id = :i", soci::use(id, "i");
    connection_.sql << "DELETE FROM models WHERE id = :i", soci::use(id, "i");
    const std::string unneeded = connection_.Unneeded(blob);
    all.commit();
    return unneeded;
  });
}

}  // namespace gvsl
