// What the services share: the stores, the engine and the threads of one server.
#ifndef GVSL_SERVER_SERVER_STATE_H_
#define GVSL_SERVER_SERVER_STATE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/timestamp.pb.h"
#include "gvsl/v1/server_config.pb.h"
#include "server/blob_store.h"
#include "server/call_runner.h"
#include "server/embedding_catalog.h"
#include "server/inference_engine.h"
#include "server/job_store.h"
#include "server/metadata_store.h"
#include "server/registration_store.h"
#include "server/upload_store.h"

namespace gvsl {

struct ServerState {
  // Opens everything under config.data_dir and takes its lock: one server a folder. Statuses say
  // what a person must change.
  static absl::StatusOr<std::unique_ptr<ServerState>> Open(const v1::ServerConfig& config);
  explicit ServerState(const v1::ServerConfig& c) : config(c), calls(256 + c.queue_capacity()) {}
  ~ServerState();

  // A new file's path in the scratch folder, on the file system of the blobs.
  std::string ScratchPath() const;
  // Makes a stored volume's voxels readable.
  absl::StatusOr<Volume> MapVolume(const StoredVolume& stored) const;
  // What a client is told when the blob of `volumes/{id}` or `models/{id}` cannot be read:
  // NOT_FOUND when it was deleted meanwhile, DATA_LOSS (STORED_DATA_LOST) when the disk has lost
  // it. `detail` names files and goes to the log alone.
  absl::Status Unreadable(const std::string& name, const absl::Status& detail) const;
  // Gives a finished file its blob's name and then writes its record; a blob whose record fails is
  // removed unless another record names it.
  absl::Status StoreBlob(const std::string& path, const std::string& sha256,
                         const std::function<absl::Status()>& write_record);
  // Deletes a record, and then the blob that it returns as needed by no other ("" for none).
  absl::Status RemoveBlob(const std::function<absl::StatusOr<std::string>()>& delete_record);
  int64_t memory_bytes() const { return config.memory_limit_mib() << 20; }

  const v1::ServerConfig config;
  std::string device;  // what `auto` meant
  int threads = 0;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  int lock_file = -1;
  std::unique_ptr<Database> database;
  std::unique_ptr<MetadataStore> metadata;
  std::unique_ptr<JobStore> jobs;
  std::unique_ptr<RegistrationStore> registrations;
  std::unique_ptr<BlobStore> blobs;
  std::unique_ptr<UploadStore> uploads;
  std::unique_ptr<InferenceEngine> engine;
  std::unique_ptr<EmbeddingCatalog> embeddings;
  std::function<void(const std::string&)> volume_added;  // told each new volume; may be empty
  // Held while a model file is created or exported: one takes its memory at a time.
  // ImportModelFile sees to that itself.
  std::mutex model_file_mutex;
  CallRunner calls;             // who waits for the network leaves threads for the others
  CallRunner status_calls{16};  // GetServerStatus: answers also while the others drain

 private:
  // Held while a blob gets its name and its record, or loses them: none is removed in between.
  std::mutex blob_mutex_;
};

google::protobuf::Timestamp Now();

}  // namespace gvsl

#endif  // GVSL_SERVER_SERVER_STATE_H_
