// VolumeService (proto/gvsl/v1/volumes.proto): translates between the wire and the stores.
#ifndef GVSL_SERVER_VOLUME_SERVICE_H_
#define GVSL_SERVER_VOLUME_SERVICE_H_

#include "gvsl/v1/volumes.grpc.pb.h"
#include "server/server_state.h"

namespace gvsl {

class VolumeServiceImpl final : public v1::VolumeService::CallbackService {
 public:
  explicit VolumeServiceImpl(ServerState& state) : state_(state) {}

  grpc::ServerReadReactor<v1::CreateVolumeRequest>* CreateVolume(
      grpc::CallbackServerContext* context, v1::Volume* response) override;
  grpc::ServerUnaryReactor* GetUpload(grpc::CallbackServerContext* context,
                                      const v1::GetUploadRequest* request,
                                      v1::Upload* response) override;
  grpc::ServerUnaryReactor* DeleteUpload(grpc::CallbackServerContext* context,
                                         const v1::DeleteUploadRequest* request,
                                         google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* GetVolume(grpc::CallbackServerContext* context,
                                      const v1::GetVolumeRequest* request,
                                      v1::Volume* response) override;
  grpc::ServerUnaryReactor* ListVolumes(grpc::CallbackServerContext* context,
                                        const v1::ListVolumesRequest* request,
                                        v1::ListVolumesResponse* response) override;
  grpc::ServerUnaryReactor* UpdateVolume(grpc::CallbackServerContext* context,
                                         const v1::UpdateVolumeRequest* request,
                                         v1::Volume* response) override;
  grpc::ServerWriteReactor<v1::DownloadVolumeResponse>* DownloadVolume(
      grpc::CallbackServerContext* context, const v1::DownloadVolumeRequest* request) override;
  grpc::ServerUnaryReactor* PreviewVolume(grpc::CallbackServerContext* context,
                                          const v1::PreviewVolumeRequest* request,
                                          v1::PreviewVolumeResponse* response) override;
  grpc::ServerUnaryReactor* DeleteVolume(grpc::CallbackServerContext* context,
                                         const v1::DeleteVolumeRequest* request,
                                         google::protobuf::Empty* response) override;

 private:
  ServerState& state_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_VOLUME_SERVICE_H_
