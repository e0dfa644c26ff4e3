// JobService (proto/gvsl/v1/jobs.proto): translates between the wire, the store of jobs and their
// folders. What runs them is JobSupervisor.
#ifndef GVSL_SERVER_JOB_SERVICE_H_
#define GVSL_SERVER_JOB_SERVICE_H_

#include "gvsl/v1/jobs.grpc.pb.h"
#include "server/server_state.h"
#include "server/stream_pump.h"

namespace gvsl {

class JobServiceImpl final : public v1::JobService::CallbackService {
 public:
  // `pump` feeds whoever follows a job.
  JobServiceImpl(ServerState& state, StreamPump& pump) : state_(state), pump_(pump) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context,
                                      const v1::ResumeJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context,
                                      const v1::DeleteJobRequest* request,
                                      google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) override;
  grpc::ServerWriteReactor<v1::StreamJobLogsResponse>* StreamJobLogs(
      grpc::CallbackServerContext* context, const v1::StreamJobLogsRequest* request) override;
  grpc::ServerUnaryReactor* ListJobArtifacts(grpc::CallbackServerContext* context,
                                             const v1::ListJobArtifactsRequest* request,
                                             v1::ListJobArtifactsResponse* response) override;
  grpc::ServerWriteReactor<v1::DownloadJobArtifactResponse>* DownloadJobArtifact(
      grpc::CallbackServerContext* context, const v1::DownloadJobArtifactRequest* request) override;

 private:
  ServerState& state_;
  StreamPump& pump_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_JOB_SERVICE_H_
