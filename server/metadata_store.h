// MetadataStore: the volumes and models that the server knows.
#ifndef GVSL_SERVER_METADATA_STORE_H_
#define GVSL_SERVER_METADATA_STORE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/models.pb.h"
#include "gvsl/v1/volumes.pb.h"
#include "server/database.h"

namespace gvsl {

struct StoredVolume {
  v1::Volume volume;
  std::string blob_sha256;  // of the voxels alone
};

struct StoredModel {
  v1::Model model;
  std::string blob_sha256;  // of the safetensors file
};

struct VolumePage {
  std::vector<v1::Volume> volumes;
  std::string next_page_token;
};

struct ModelPage {
  std::vector<v1::Model> models;
  std::string next_page_token;
};

struct StoredTotals {
  int64_t volumes = 0;
  int64_t models = 0;
};

// Safe for concurrent use. A change that has returned OK is on the disk. Every method may return
// INTERNAL with the database's own words.
class MetadataStore {
 public:
  // `database` outlives the store.
  explicit MetadataStore(Database& database) : connection_(database.connection()) {}

  // The name made by an earlier creation of this request, or nothing. ALREADY_EXISTS
  // (REQUEST_ID_REUSED) if it asked for something else.
  absl::StatusOr<std::optional<std::string>> FindCreation(const std::string& collection,
                                                          const Creation& creation);

  absl::Status AddVolume(const StoredVolume& volume, const Creation& creation);
  absl::StatusOr<StoredVolume> GetVolume(const std::string& name);
  absl::StatusOr<VolumePage> ListVolumes(const v1::ListVolumesRequest& request);
  // Changes display name, modality or tags in one step that no other change can come between;
  // returns the new record. NOT_FOUND.
  absl::StatusOr<v1::Volume> UpdateVolume(const std::string& name,
                                          const std::function<void(v1::Volume&)>& change);
  // Returns the blob that no volume and no model needs any more, or "". FAILED_PRECONDITION
  // (VOLUME_IN_USE) while a job that has not ended trains on it.
  absl::StatusOr<std::string> DeleteVolume(const std::string& name);

  // The first model becomes the default one.
  absl::StatusOr<v1::Model> AddModel(const StoredModel& model, const Creation& creation);
  // `models/default` is understood. NOT_FOUND; FAILED_PRECONDITION (NO_DEFAULT_MODEL).
  absl::StatusOr<StoredModel> GetModel(const std::string& name);
  absl::StatusOr<ModelPage> ListModels(const v1::ListModelsRequest& request);
  absl::Status SetDefaultModel(const std::string& name);
  // As DeleteVolume (MODEL_IN_USE); FAILED_PRECONDITION (MODEL_IS_DEFAULT) unless it is the only
  // model.
  absl::StatusOr<std::string> DeleteModel(const std::string& name);

  absl::StatusOr<StoredTotals> Totals();
  // Every blob that a record names.
  absl::StatusOr<std::set<std::string>> Blobs();

 private:
  Database::Connection& connection_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_METADATA_STORE_H_
