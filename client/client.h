// The client library of the GVSL service: volumes in, features and trained networks out. Links
// neither LibTorch nor DCMTK.
//
//   gvsl::Client client({"127.0.0.1:8500"});
//   auto volume = client.Upload(*gvsl::ReadVolume("ct.nii.gz"), {}, nullptr);
//   gvsl::v1::ExtractGlobalRequest request;
//   request.add_volumes(volume->name());
//   auto answer = client.ExtractGlobal(request);
//
// Statuses carry the server's words; ReasonOf (imaging/status_reason.h) gives its machine-readable
// reason.
#ifndef GVSL_CLIENT_CLIENT_H_
#define GVSL_CLIENT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/features.pb.h"
#include "gvsl/v1/jobs.pb.h"
#include "gvsl/v1/models.pb.h"
#include "gvsl/v1/server.pb.h"
#include "gvsl/v1/similarity.pb.h"
#include "gvsl/v1/volumes.pb.h"
#include "imaging/volume.h"

namespace gvsl {

struct ClientOptions {
  std::string server = "127.0.0.1:8500";  // HOST:PORT
  double timeout_s = 0;                   // of every call; 0: none
};

// Told how far a transfer is, in bytes. May be empty.
using ProgressFunction = std::function<void(int64_t done, int64_t total)>;

// Told what a job tells, in order and each event once. False ends the watch.
using WatchFunction = std::function<bool(const v1::WatchJobResponse& part)>;

// Told the bytes of a job's log, in order and each once. False ends the stream.
using LogFunction = std::function<bool(const v1::StreamJobLogsResponse& part)>;

// Told how far a registration is. May be empty.
using RegistrationFunction =
    std::function<void(const v1::RegisterVolumesResponse::Progress& progress)>;

// Told how far a backfill is, and each volume that was passed over. May be empty.
using BackfillFunction = std::function<void(const v1::BackfillEmbeddingsResponse& progress)>;

// Receives dense features slice by slice, in order. A status that is not OK ends the call.
class DenseReceiver {
 public:
  virtual ~DenseReceiver() = default;
  virtual absl::Status Begin(const v1::ExtractDenseResponse::Header& header) = 0;
  // One slice [channel][row][column] of header.type().
  virtual absl::Status Slice(int64_t z, const char* data) = 0;
};

// Safe for concurrent use. Calls that a busy or restarting server refuses are tried again
// (client/retry.h); a server that was never reached is reported at once.
class Client {
 public:
  explicit Client(const ClientOptions& options);
  ~Client();

  // Ends every call under way, and every later one, with CANCELLED.
  void CancelAll();
  bool cancelled() const;

  // OK if grpc.health.v1 says SERVING.
  absl::Status CheckHealth();
  absl::StatusOr<v1::ServerStatus> GetServerStatus();

  // Uploads voxels. Of `about`, display name, kind (the volume's own wins), modality and tags are
  // used. The same content with the same words is made once however often it is uploaded. A cut
  // upload is resumed.
  absl::StatusOr<v1::Volume> Upload(const Volume& volume, const v1::Volume& about,
                                    const ProgressFunction& progress);
  // Downloads voxels, resuming where the stream was cut.
  absl::StatusOr<Volume> Download(const std::string& name, const ProgressFunction& progress);
  absl::StatusOr<v1::Volume> GetVolume(const std::string& name);
  // All pages, at most `limit` volumes (0: no limit).
  absl::StatusOr<std::vector<v1::Volume>> ListVolumes(v1::ListVolumesRequest request,
                                                      int64_t limit);
  absl::StatusOr<v1::Volume> UpdateVolume(const v1::UpdateVolumeRequest& request);
  // A PNG file.
  absl::StatusOr<std::string> PreviewVolume(const v1::PreviewVolumeRequest& request);
  absl::Status DeleteVolume(const std::string& name);

  // Sends a model file; its name, size and words come from `header`, whose total_bytes is filled in
  // here.
  absl::StatusOr<v1::Model> ImportModel(const std::string& path,
                                        v1::ImportModelRequest::Header header,
                                        const ProgressFunction& progress);
  absl::StatusOr<v1::Model> CreateModel(v1::CreateModelRequest request);
  absl::StatusOr<v1::Model> GetModel(const std::string& name);
  absl::StatusOr<std::vector<v1::Model>> ListModels();
  // Writes the file aside and renames it to `path`.
  absl::StatusOr<v1::Model> ExportModel(const v1::ExportModelRequest& request,
                                        const std::string& path, const ProgressFunction& progress);
  absl::StatusOr<v1::Model> SetDefaultModel(const std::string& name);
  absl::Status DeleteModel(const std::string& name);

  absl::StatusOr<v1::ExtractGlobalResponse> ExtractGlobal(const v1::ExtractGlobalRequest& request);
  absl::StatusOr<v1::ExtractDenseResponse::Header> ExtractDense(
      const v1::ExtractDenseRequest& request, DenseReceiver& receiver,
      const ProgressFunction& progress);
  absl::StatusOr<v1::SampleFeaturesResponse> SampleFeatures(
      const v1::SampleFeaturesRequest& request);
  absl::StatusOr<v1::PoolFeaturesResponse> PoolFeatures(const v1::PoolFeaturesRequest& request);

  absl::StatusOr<v1::SearchVolumesResponse> SearchVolumes(const v1::SearchVolumesRequest& request);
  // Returns the last word of the stream. A stream that is cut is asked for again, and goes on with
  // what is still missing.
  absl::StatusOr<v1::BackfillEmbeddingsResponse> BackfillEmbeddings(
      const v1::BackfillEmbeddingsRequest& request, const BackfillFunction& progress);

  // Registers two volumes. Without a `request_id` one is made, so that a cut connection never makes
  // two registrations.
  absl::StatusOr<v1::Registration> RegisterVolumes(v1::RegisterVolumesRequest request,
                                                   const RegistrationFunction& progress);
  absl::StatusOr<v1::Registration> GetRegistration(const std::string& name);
  // All pages, at most `limit` registrations (0: no limit).
  absl::StatusOr<std::vector<v1::Registration>> ListRegistrations(
      v1::ListRegistrationsRequest request, int64_t limit);
  absl::Status DeleteRegistration(const std::string& name);
  // Without a `request_id` one is made, so that a cut connection never makes two volumes; so does
  // TransferLabels.
  absl::StatusOr<v1::Volume> ApplyRegistration(v1::ApplyRegistrationRequest request);
  absl::StatusOr<v1::Volume> TransferLabels(v1::TransferLabelsRequest request);
  // Any number of points: asked for in as many calls as they take.
  absl::StatusOr<v1::MatchPointsResponse> MatchPoints(const v1::MatchPointsRequest& request,
                                                      const ProgressFunction& progress);
  // Writes the file aside and renames it to `path`.
  absl::Status DownloadRegistrationFile(const v1::DownloadRegistrationFileRequest& request,
                                        const std::string& path, const ProgressFunction& progress);

  // Queues a pre-training job. Without a `request_id` one is made, so that a cut connection never
  // makes two jobs; with `validate_only` the job is checked and estimated alone.
  absl::StatusOr<v1::Job> CreateJob(v1::CreateJobRequest request);
  absl::StatusOr<v1::Job> GetJob(const std::string& name);
  // All pages, at most `limit` jobs (0: no limit).
  absl::StatusOr<std::vector<v1::Job>> ListJobs(v1::ListJobsRequest request, int64_t limit);
  absl::StatusOr<v1::Job> CancelJob(const std::string& name);
  absl::StatusOr<v1::Job> ResumeJob(const std::string& name);
  absl::Status DeleteJob(const std::string& name);
  // Follows a job until it has ended (OK, also for one that failed: its record says so) or
  // `receive` returns false (OK). A watch that is cut goes on after the last event it saw; the
  // job's record then comes again.
  absl::Status WatchJob(const std::string& name, int64_t after_sequence,
                        const WatchFunction& receive);
  // The events that a job has told until now, oldest first; does not wait for more.
  absl::StatusOr<std::vector<v1::JobEvent>> ListJobEvents(const std::string& name);
  // Reads a job's log from request.offset on; a stream that is cut goes on at the byte it had.
  absl::Status StreamJobLogs(v1::StreamJobLogsRequest request, const LogFunction& receive);
  absl::StatusOr<std::vector<v1::JobArtifact>> ListJobArtifacts(const std::string& name);
  // Writes the file aside and renames it to `path`.
  absl::StatusOr<v1::JobArtifact> DownloadJobArtifact(const v1::DownloadJobArtifactRequest& request,
                                                      const std::string& path,
                                                      const ProgressFunction& progress);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_CLIENT_CLIENT_H_
