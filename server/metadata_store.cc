#include "server/metadata_store.h"

#include <google/protobuf/util/json_util.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <cstdlib>
#include <limits>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "imaging/status_reason.h"
#include "server/volume_query.h"

namespace gvsl {
namespace {

// One step a version; a step that was released is never changed.
const std::vector<std::vector<std::string>>& Migrations() {
  static const std::vector<std::vector<std::string>> steps = {{
      "CREATE TABLE volumes (id VARCHAR(64) PRIMARY KEY, display_name TEXT NOT NULL, kind "
      "VARCHAR(16) NOT NULL, "
      "modality VARCHAR(16) NOT NULL, content_sha256 VARCHAR(64) NOT NULL, blob_sha256 VARCHAR(64) "
      "NOT NULL, "
      "create_us BIGINT NOT NULL, record TEXT NOT NULL)",
      "CREATE INDEX volumes_by_time ON volumes (create_us, id)",
      "CREATE INDEX volumes_by_display_name ON volumes (display_name, id)",
      "CREATE INDEX volumes_by_blob ON volumes (blob_sha256)",
      "CREATE TABLE volume_tags (volume_id VARCHAR(64) NOT NULL REFERENCES volumes (id) ON DELETE "
      "CASCADE, "
      "tag TEXT NOT NULL, PRIMARY KEY (tag, volume_id))",
      "CREATE INDEX volume_tags_by_volume ON volume_tags (volume_id)",
      "CREATE TABLE models (id VARCHAR(64) PRIMARY KEY, blob_sha256 VARCHAR(64) NOT NULL, "
      "create_us BIGINT NOT NULL, "
      "is_default INTEGER NOT NULL, record TEXT NOT NULL)",
      "CREATE INDEX models_by_time ON models (create_us, id)",
      "CREATE TABLE creations (collection VARCHAR(16) NOT NULL, request_id VARCHAR(64) NOT NULL, "
      "request_sha256 VARCHAR(64) NOT NULL, resource_id VARCHAR(64) NOT NULL, PRIMARY KEY "
      "(collection, request_id))",
      "CREATE INDEX creations_by_resource ON creations (resource_id)",
  }};
  return steps;
}

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

int64_t Micros(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000000 + time.nanos() / 1000;
}

// A page ends before its message would exceed 1 MiB, whatever the page size.
constexpr size_t kMostPageBytes = (1 << 20) - 4096;
constexpr size_t kItemOverheadBytes = 16;  // tag, length, and is_default of a model

template <typename T>
bool IsFull(const std::vector<T>& items, size_t bytes_with_next) {
  return !items.empty() && bytes_with_next > kMostPageBytes;
}

std::string IdPart(const std::string& name) { return name.substr(name.find('/') + 1); }

absl::Status NotFound(const std::string& collection, const std::string& id) {
  const bool volume = collection == "volumes";
  return WithReason(
      absl::NotFoundError(absl::StrCat("there is no ", collection, "/", id.substr(0, 64), "; gvsl ",
                                       collection, " list shows what there is")),
      volume ? "VOLUME_NOT_FOUND" : "MODEL_NOT_FOUND");
}

}  // namespace

struct MetadataStore::Impl {
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

  void Migrate(int from) {
    const auto& steps = Migrations();
    for (size_t version = static_cast<size_t>(from); version < steps.size(); ++version) {
      soci::transaction step(sql);
      for (const std::string& statement : steps[version]) sql << statement;
      const int next = static_cast<int>(version + 1);
      sql << "UPDATE schema_version SET version = :v", soci::use(next, "v");
      step.commit();
    }
  }

  void Remember(const std::string& collection, const Creation& creation, const std::string& id) {
    if (creation.request_id.empty()) return;
    sql << "INSERT INTO creations (collection, request_id, request_sha256, resource_id) VALUES "
           "(:c, :r, :s, :i)",
        soci::use(collection, "c"), soci::use(creation.request_id, "r"),
        soci::use(creation.request_sha256, "s"), soci::use(id, "i");
  }

  void AddTags(const std::string& id, const v1::Volume& volume) {
    const std::set<std::string> tags(volume.tags().begin(), volume.tags().end());
    for (const std::string& tag : tags) {
      sql << "INSERT INTO volume_tags (volume_id, tag) VALUES (:i, :t)", soci::use(id, "i"),
          soci::use(tag, "t");
    }
  }

  // The blob of a record that was just deleted, if nothing else needs it.
  std::string Unneeded(const std::string& blob) {
    int volumes = 0, models = 0;
    sql << "SELECT COUNT(*) FROM volumes WHERE blob_sha256 = :b", soci::use(blob, "b"),
        soci::into(volumes);
    sql << "SELECT COUNT(*) FROM models WHERE blob_sha256 = :b", soci::use(blob, "b"),
        soci::into(models);
    return volumes + models == 0 ? blob : "";
  }
};

MetadataStore::MetadataStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetadataStore::~MetadataStore() = default;

absl::StatusOr<std::unique_ptr<MetadataStore>> MetadataStore::Open(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  try {
    impl->sql.open(soci::sqlite3, absl::StrCat("dbname=", path, " timeout=30"));
    // Readers never wait for writers, and a commit is on the disk when it returns.
    std::string journal;
    int synchronous = 0;
    constexpr int kFull = 2;
    impl->sql << "PRAGMA journal_mode = WAL", soci::into(journal);
    impl->sql << "PRAGMA synchronous = FULL";
    impl->sql << "PRAGMA synchronous", soci::into(synchronous);
    if (journal != "wal" || synchronous != kFull) {
      return absl::FailedPreconditionError(
          absl::StrCat("data_dir: the file system of ", path, " keeps no write-ahead log (journal ",
                       journal, ", synchronous ", synchronous, "); use a local one"));
    }
    impl->sql << "PRAGMA foreign_keys = ON";
    impl->sql << "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)";
    int rows = 0, version = 0;
    impl->sql << "SELECT COUNT(*) FROM schema_version", soci::into(rows);
    if (rows == 0) {
      impl->sql << "INSERT INTO schema_version (version) VALUES (0)";
    } else {
      impl->sql << "SELECT version FROM schema_version", soci::into(version);
    }
    const int known = static_cast<int>(Migrations().size());
    if (version > known) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " was written by a newer gvsld (schema ", version,
                       ", this program knows ", known, "); run that one, or restore a backup"));
    }
    impl->Migrate(version);
  } catch (const std::exception& error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot open the metadata store ", path, ": ", error.what()));
  }
  return std::unique_ptr<MetadataStore>(new MetadataStore(std::move(impl)));
}

absl::StatusOr<std::optional<std::string>> MetadataStore::FindCreation(
    const std::string& collection, const Creation& creation) {
  return impl_->Locked([&]() -> absl::StatusOr<std::optional<std::string>> {
    std::string sha256, id;
    impl_->sql << "SELECT request_sha256, resource_id FROM creations WHERE collection = :c AND "
                  "request_id = :r",
        soci::use(collection, "c"), soci::use(creation.request_id, "r"), soci::into(sha256),
        soci::into(id);
    if (!impl_->sql.got_data()) return std::optional<std::string>();
    if (sha256 != creation.request_sha256) {
      return WithReason(
          absl::AlreadyExistsError(absl::StrCat("request_id: ", creation.request_id,
                                                " made something else before; take a new one")),
          "REQUEST_ID_REUSED");
    }
    return std::optional<std::string>(absl::StrCat(collection, "/", id));
  });
}

absl::Status MetadataStore::AddVolume(const StoredVolume& stored, const Creation& creation) {
  return impl_->Locked([&]() -> absl::Status {
    const v1::Volume& volume = stored.volume;
    const std::string id = IdPart(volume.name()), record = ToJson(volume);
    const std::string kind = v1::Volume::Kind_Name(volume.kind());
    const long long create_us = Micros(volume.create_time());
    soci::transaction all(impl_->sql);
    impl_->sql << "INSERT INTO volumes (id, display_name, kind, modality, content_sha256, "
                  "blob_sha256, create_us, "
                  "record) VALUES (:i, :d, :k, :m, :c, :b, :t, :r)",
        soci::use(id, "i"), soci::use(volume.display_name(), "d"), soci::use(kind, "k"),
        soci::use(volume.modality(), "m"), soci::use(volume.content_sha256(), "c"),
        soci::use(stored.blob_sha256, "b"), soci::use(create_us, "t"), soci::use(record, "r");
    impl_->AddTags(id, volume);
    impl_->Remember("volumes", creation, id);
    all.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<StoredVolume> MetadataStore::GetVolume(const std::string& name) {
  return impl_->Locked([&]() -> absl::StatusOr<StoredVolume> {
    const std::string id = IdPart(name);
    StoredVolume stored;
    std::string record;
    impl_->sql << "SELECT record, blob_sha256 FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(record), soci::into(stored.blob_sha256);
    if (!impl_->sql.got_data()) return NotFound("volumes", id);
    auto volume = FromJson<v1::Volume>(record);
    if (!volume.ok()) return volume.status();
    stored.volume = *std::move(volume);
    return stored;
  });
}

absl::StatusOr<VolumePage> MetadataStore::ListVolumes(const v1::ListVolumesRequest& request) {
  auto size = PageSize(request.page_size());
  if (!size.ok()) return size.status();
  auto condition = ParseVolumeFilter(request.filter());
  if (!condition.ok()) return condition.status();
  auto order = ParseVolumeOrder(request.order_by());
  if (!order.ok()) return order.status();
  const std::string query = absl::StrCat("volumes\n", request.filter(), "\n", request.order_by());
  const bool by_time = order->column == "create_us";
  if (!request.page_token().empty()) {
    auto last = ReadPageToken(query, request.page_token());
    if (!last.ok()) return last.status();
    const size_t n = condition->values.size();
    const char* beyond = order->descending ? "<" : ">";
    absl::StrAppend(&condition->sql, " AND (", order->column, " ", beyond, " :p", n, " OR (",
                    order->column, " = :p", n + 1, " AND id ", beyond, " :p", n + 2, "))");
    for (int i = 0; i < 2; ++i) {
      condition->values.push_back(
          by_time ? SqlValue(static_cast<int64_t>(std::atoll(last->key.c_str())))
                  : SqlValue(last->key));
    }
    condition->values.push_back(last->id);
  }
  const char* direction = order->descending ? " DESC" : " ASC";
  const std::string text =
      absl::StrCat("SELECT record FROM volumes WHERE ", condition->sql, " ORDER BY ", order->column,
                   direction, ", id", direction, " LIMIT ", *size + 1);
  return impl_->Locked([&]() -> absl::StatusOr<VolumePage> {
    std::string record;
    soci::statement statement(impl_->sql);
    std::vector<long long> numbers;
    numbers.reserve(condition->values.size());  // bound by address
    for (size_t i = 0; i < condition->values.size(); ++i) {
      const std::string name = absl::StrCat("p", i);
      const SqlValue& value = condition->values[i];
      if (!value.is_number) {
        statement.exchange(soci::use(value.text, name));
      } else {
        numbers.push_back(value.number);
        statement.exchange(soci::use(numbers.back(), name));
      }
    }
    statement.exchange(soci::into(record));
    statement.alloc();
    statement.prepare(text);
    statement.define_and_bind();
    statement.execute();
    VolumePage page;
    size_t bytes = 0;
    while (statement.fetch()) {
      auto volume = FromJson<v1::Volume>(record);
      if (!volume.ok()) return volume.status();
      bytes += volume->ByteSizeLong() + kItemOverheadBytes;
      if (static_cast<int>(page.volumes.size()) == *size || IsFull(page.volumes, bytes)) {
        const v1::Volume& last = page.volumes.back();
        page.next_page_token = MakePageToken(
            query, {by_time ? std::to_string(Micros(last.create_time())) : last.display_name(),
                    IdPart(last.name())});
        break;
      }
      page.volumes.push_back(*std::move(volume));
    }
    return page;
  });
}

absl::StatusOr<v1::Volume> MetadataStore::UpdateVolume(
    const std::string& name, const std::function<void(v1::Volume&)>& change) {
  return impl_->Locked([&]() -> absl::StatusOr<v1::Volume> {
    const std::string id = IdPart(name);
    soci::transaction all(impl_->sql);
    std::string record;
    impl_->sql << "SELECT record FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(record);
    if (!impl_->sql.got_data()) return NotFound("volumes", id);
    auto volume = FromJson<v1::Volume>(record);
    if (!volume.ok()) return volume;
    change(*volume);
    record = ToJson(*volume);
    impl_->sql << "UPDATE volumes SET display_name = :d, modality = :m, record = :r WHERE id = :i",
        soci::use(volume->display_name(), "d"), soci::use(volume->modality(), "m"),
        soci::use(record, "r"), soci::use(id, "i");
    impl_->sql << "DELETE FROM volume_tags WHERE volume_id = :i", soci::use(id, "i");
    impl_->AddTags(id, *volume);
    all.commit();
    return volume;
  });
}

absl::StatusOr<std::string> MetadataStore::DeleteVolume(const std::string& name) {
  return impl_->Locked([&]() -> absl::StatusOr<std::string> {
    const std::string id = IdPart(name);
    soci::transaction all(impl_->sql);
    std::string blob;
    impl_->sql << "SELECT blob_sha256 FROM volumes WHERE id = :i", soci::use(id, "i"),
        soci::into(blob);
    if (!impl_->sql.got_data()) return NotFound("volumes", id);
    impl_->sql << "DELETE FROM creations WHERE resource_id = :i", soci::use(id, "i");
    impl_->sql << "DELETE FROM volumes WHERE id = :i", soci::use(id, "i");
    const std::string unneeded = impl_->Unneeded(blob);
    all.commit();
    return unneeded;
  });
}

absl::StatusOr<v1::Model> MetadataStore::AddModel(const StoredModel& stored,
                                                  const Creation& creation) {
  return impl_->Locked([&]() -> absl::StatusOr<v1::Model> {
    v1::Model model = stored.model;
    const std::string id = IdPart(model.name());
    const long long create_us = Micros(model.create_time());
    soci::transaction all(impl_->sql);
    int defaults = 0;
    impl_->sql << "SELECT COUNT(*) FROM models WHERE is_default = 1", soci::into(defaults);
    const int is_default = defaults == 0 ? 1 : 0;
    model.set_is_default(false);  // kept in its column alone
    const std::string record = ToJson(model);
    impl_->sql << "INSERT INTO models (id, blob_sha256, create_us, is_default, record) VALUES (:i, "
                  ":b, :t, :d, :r)",
        soci::use(id, "i"), soci::use(stored.blob_sha256, "b"), soci::use(create_us, "t"),
        soci::use(is_default, "d"), soci::use(record, "r");
    impl_->Remember("models", creation, id);
    all.commit();
    model.set_is_default(is_default == 1);
    return model;
  });
}

absl::StatusOr<StoredModel> MetadataStore::GetModel(const std::string& name) {
  return impl_->Locked([&]() -> absl::StatusOr<StoredModel> {
    const std::string id = IdPart(name);
    StoredModel stored;
    std::string record;
    int is_default = 0;
    if (id == "default") {
      impl_->sql << "SELECT record, blob_sha256, is_default FROM models WHERE is_default = 1",
          soci::into(record), soci::into(stored.blob_sha256), soci::into(is_default);
      if (!impl_->sql.got_data()) {
        return WithReason(
            absl::FailedPreconditionError(
                "there is no default model; import one (gvsl models import FILE), or make "
                "an untrained one (gvsl models create --size tiny --seed 1)"),
            "NO_DEFAULT_MODEL");
      }
    } else {
      impl_->sql << "SELECT record, blob_sha256, is_default FROM models WHERE id = :i",
          soci::use(id, "i"), soci::into(record), soci::into(stored.blob_sha256),
          soci::into(is_default);
      if (!impl_->sql.got_data()) return NotFound("models", id);
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
  return impl_->Locked([&]() -> absl::StatusOr<ModelPage> {
    std::string record;
    int is_default = 0;
    const int limit = *size + 1;
    soci::statement statement =
        (impl_->sql.prepare << "SELECT record, is_default FROM models WHERE create_us < :t OR "
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
  return impl_->Locked([&]() -> absl::Status {
    const std::string id = IdPart(name);
    soci::transaction all(impl_->sql);
    int found = 0;
    impl_->sql << "SELECT COUNT(*) FROM models WHERE id = :i", soci::use(id, "i"),
        soci::into(found);
    if (found == 0) return NotFound("models", id);
    impl_->sql << "UPDATE models SET is_default = CASE WHEN id = :i THEN 1 ELSE 0 END",
        soci::use(id, "i");
    all.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> MetadataStore::DeleteModel(const std::string& name) {
  return impl_->Locked([&]() -> absl::StatusOr<std::string> {
    const std::string id = IdPart(name);
    soci::transaction all(impl_->sql);
    std::string blob;
    int is_default = 0, models = 0;
    impl_->sql << "SELECT blob_sha256, is_default FROM models WHERE id = :i", soci::use(id, "i"),
        soci::into(blob), soci::into(is_default);
    if (!impl_->sql.got_data()) return NotFound("models", id);
    impl_->sql << "SELECT COUNT(*) FROM models", soci::into(models);
    if (is_default == 1 && models > 1) {
      return WithReason(
          absl::FailedPreconditionError(
              "it is the default model; make another one the default first (gvsl models "
              "set-default MODEL)"),
          "MODEL_IS_DEFAULT");
    }
    impl_->sql << "DELETE FROM creations WHERE resource_id = :i", soci::use(id, "i");
    impl_->sql << "DELETE FROM models WHERE id = :i", soci::use(id, "i");
    const std::string unneeded = impl_->Unneeded(blob);
    all.commit();
    return unneeded;
  });
}

absl::StatusOr<StoredTotals> MetadataStore::Totals() {
  return impl_->Locked([&]() -> absl::StatusOr<StoredTotals> {
    long long volumes = 0, models = 0;
    impl_->sql << "SELECT COUNT(*) FROM volumes", soci::into(volumes);
    impl_->sql << "SELECT COUNT(*) FROM models", soci::into(models);
    return StoredTotals{volumes, models};
  });
}

absl::StatusOr<std::set<std::string>> MetadataStore::Blobs() {
  return impl_->Locked([&]() -> absl::StatusOr<std::set<std::string>> {
    std::set<std::string> blobs;
    for (const char* table : {"volumes", "models"}) {
      const soci::rowset<std::string> rows =
          (impl_->sql.prepare << absl::StrCat("SELECT DISTINCT blob_sha256 FROM ", table));
      blobs.insert(rows.begin(), rows.end());
    }
    return blobs;
  });
}

}  // namespace gvsl
