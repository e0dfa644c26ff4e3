// What the tests of registrations share.
#ifndef GVSL_SERVER_REGISTRATION_TEST_FIXTURE_H_
#define GVSL_SERVER_REGISTRATION_TEST_FIXTURE_H_

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "server/service_test_fixture.h"

namespace gvsl {

using RegistrationFileRequest = v1::DownloadRegistrationFileRequest;

// An anatomy of three soft blobs, with some texture, on 32^3 voxels of 1 mm. `shift_mm`: where the
// scanner saw it; the voxels are the same, so the map between two of them is known exactly.
struct Blobs {
  explicit Blobs(const Vec3& shift_mm = {0, 0, 0}) {
    grid.size = {32, 32, 32};
    grid.origin_mm = shift_mm;
    const Vec3 centres[] = {{11, 12, 15}, {21, 18, 12}, {15, 22, 20}};
    for (int64_t z = 0; z < 32; ++z) {
      for (int64_t y = 0; y < 32; ++y) {
        for (int64_t x = 0; x < 32; ++x) {
          // A weak texture, so that every neighbourhood has something to align.
          double value = 60 * (std::sin(0.7 * x) + std::cos(0.5 * y) + std::sin(0.6 * z));
          uint8_t label = 0;
          for (int blob = 0; blob < 3; ++blob) {
            const Vec3& c = centres[blob];
            const double squared =
                std::pow(x - c[0], 2) + std::pow(y - c[1], 2) + std::pow(z - c[2], 2);
            value += (600 + 150 * blob) * std::exp(-squared / (2 * (12 + 4 * blob)));
            if (squared < 16) label = static_cast<uint8_t>(blob + 1);
          }
          const auto voxel = static_cast<int16_t>(value);
          image.append(reinterpret_cast<const char*>(&voxel), sizeof(voxel));
          labels.push_back(static_cast<char>(label));
        }
      }
    }
  }
  Grid grid;
  std::string image, labels;
};

inline v1::Volume StoreAs(Service& service, const Grid& grid, const std::string& voxels,
                          v1::Volume::VoxelType type, v1::Volume::Kind kind,
                          const std::string& id) {
  v1::CreateVolumeRequest header;
  header.mutable_header()->set_request_id(id);
  auto* volume = header.mutable_header()->mutable_volume();
  volume->set_display_name(id);
  volume->set_kind(kind);
  volume->set_voxel_type(type);
  *volume->mutable_grid() = ToProto(grid);
  v1::Volume made;
  EXPECT_OK(Upload(*service.volumes, header, voxels, &made));
  return made;
}
inline std::string StoreImage(Service& service, const Blobs& blobs, const std::string& id) {
  return StoreAs(service, blobs.grid, blobs.image, v1::Volume::INT16, v1::Volume::IMAGE, id).name();
}

struct Answer {
  grpc::Status status;
  std::vector<v1::RegisterVolumesResponse::Progress> progress;
  v1::Registration registration;
};
inline Answer Register(Service& service, const v1::RegisterVolumesRequest& request) {
  ClientContext context;
  auto reader = service.similarity->RegisterVolumes(&context, request);
  Answer answer;
  v1::RegisterVolumesResponse message;
  while (reader->Read(&message)) {
    if (message.has_progress()) answer.progress.push_back(message.progress());
    if (message.has_registration()) answer.registration = message.registration();
  }
  answer.status = reader->Finish();
  return answer;
}

// Rigid alone, without the network: seconds, and what the known shift needs.
inline v1::RegisterVolumesRequest Rigid(const std::string& fixed, const std::string& moving) {
  v1::RegisterVolumesRequest request;
  request.set_fixed(fixed);
  request.set_moving(moving);
  request.mutable_options()->set_use_network(false);
  request.mutable_options()->set_linear(v1::RegistrationOptions::RIGID);
  request.mutable_options()->set_deformable(false);
  return request;
}

inline grpc::Status Match(Service& service, const std::string& registration, const Vec3& point,
                          v1::Direction direction, v1::MatchPointsResponse* answer) {
  v1::MatchPointsRequest request;
  request.set_registration(registration);
  request.set_direction(direction);
  auto* added = request.add_points();
  added->set_x_mm(point[0]);
  added->set_y_mm(point[1]);
  added->set_z_mm(point[2]);
  ClientContext context;
  return service.similarity->MatchPoints(&context, request, answer);
}

struct Downloaded {
  grpc::Status status;
  std::string file_name, bytes;
};
inline Downloaded Download(Service& service, const std::string& registration,
                           RegistrationFileRequest::File file,
                           v1::Direction direction = v1::FIXED_TO_MOVING) {
  RegistrationFileRequest request;
  request.set_name(registration);
  request.set_file(file);
  request.set_direction(direction);
  ClientContext context;
  auto reader = service.similarity->DownloadRegistrationFile(&context, request);
  Downloaded downloaded;
  int64_t total = 0;
  v1::DownloadRegistrationFileResponse message;
  while (reader->Read(&message)) {
    if (message.has_header()) {
      downloaded.file_name = message.header().file_name();
      total = message.header().total_bytes();
    }
    downloaded.bytes += message.chunk().data();
  }
  downloaded.status = reader->Finish();
  if (downloaded.status.ok()) {
    EXPECT_EQ(static_cast<int64_t>(downloaded.bytes.size()), total);
  }
  return downloaded;
}

// A server with a tiny model, and the anatomy seen twice, 3, -2 and 4 mm apart.
class RegistrationTest : public testing::Test {
 protected:
  static constexpr Vec3 kShift = {3, -2, 4};
  // The optimiser's steps end within a tenth of a voxel (1 mm) of the optimum of a smooth image.
  static constexpr double kTolerance_mm = 0.3;

  RegistrationTest() { Restart(); }
  void Restart() {
    service_.reset();
    service_ = std::make_unique<Service>(folder_.path());
    if (model_.empty()) {
      model_ = service_->CreateTinyModel();
      fixed_ = StoreImage(*service_, Blobs(), "fixed");
      moving_ = StoreImage(*service_, Blobs(kShift), "moving");
    }
  }
  v1::Registration Registered(bool inverse = false) {
    auto request = Rigid(fixed_, moving_);
    request.mutable_options()->set_inverse(inverse);
    Answer answer = Register(*service_, request);
    EXPECT_OK(answer.status);
    return answer.registration;
  }
  void ExpectShift(const std::string& registration) {
    v1::MatchPointsResponse answer;
    ASSERT_OK(Match(*service_, registration, {16, 17, 18}, v1::FIXED_TO_MOVING, &answer));
    EXPECT_NEAR(answer.matches(0).point().x_mm(), 16 + kShift[0], kTolerance_mm);
    EXPECT_NEAR(answer.matches(0).point().y_mm(), 17 + kShift[1], kTolerance_mm);
    EXPECT_NEAR(answer.matches(0).point().z_mm(), 18 + kShift[2], kTolerance_mm);
    EXPECT_FALSE(answer.matches(0).out_of_view());
  }
  grpc::Status Get(const std::string& name, v1::Registration* registration) {
    v1::GetRegistrationRequest request;
    request.set_name(name);
    ClientContext context;
    return service_->similarity->GetRegistration(&context, request, registration);
  }
  grpc::Status Apply(const v1::ApplyRegistrationRequest& request, v1::Volume* made) {
    ClientContext context;
    return service_->similarity->ApplyRegistration(&context, request, made);
  }
  // Embeds what is stored, as a search needs it.
  void Embed() {
    ClientContext context;
    auto reader = service_->similarity->BackfillEmbeddings(&context, {});
    v1::BackfillEmbeddingsResponse progress;
    while (reader->Read(&progress)) {
    }
    ASSERT_OK(reader->Finish());
  }
  grpc::Status Search(const v1::SearchVolumesRequest& request, v1::SearchVolumesResponse* answer) {
    ClientContext context;
    return service_->similarity->SearchVolumes(&context, request, answer);
  }
  grpc::Status Transfer(const v1::TransferLabelsRequest& request, v1::Volume* made) {
    ClientContext context;
    return service_->similarity->TransferLabels(&context, request, made);
  }
  std::string StoreLabels(const Grid& grid, const std::string& voxels, const std::string& id) {
    return StoreAs(*service_, grid, voxels, v1::Volume::UINT8, v1::Volume::LABELS, id).name();
  }
  void DeleteVolume(const std::string& name) {
    v1::DeleteVolumeRequest request;
    request.set_name(name);
    ClientContext context;
    google::protobuf::Empty empty;
    ASSERT_OK(service_->volumes->DeleteVolume(&context, request, &empty));
  }
  std::string Voxels(const std::string& name) {
    v1::DownloadVolumeRequest request;
    request.set_name(name);
    ClientContext context;
    auto reader = service_->volumes->DownloadVolume(&context, request);
    std::string bytes;
    v1::DownloadVolumeResponse message;
    while (reader->Read(&message)) bytes += message.chunk().data();
    EXPECT_OK(reader->Finish());
    return bytes;
  }

  const Folder folder_;
  std::unique_ptr<Service> service_;
  std::string model_, fixed_, moving_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_REGISTRATION_TEST_FIXTURE_H_
