#include <cmath>
#include <fstream>
#include <map>

#include "imaging/image_file.h"
#include "imaging/transform_file.h"
#include "server/service_test_fixture.h"

namespace gvsl {
namespace {

using File = v1::DownloadRegistrationFileRequest;

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

v1::Volume StoreAs(Service& service, const Grid& grid, const std::string& voxels,
                   v1::Volume::VoxelType type, v1::Volume::Kind kind, const std::string& id) {
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
std::string StoreImage(Service& service, const Blobs& blobs, const std::string& id) {
  return StoreAs(service, blobs.grid, blobs.image, v1::Volume::INT16, v1::Volume::IMAGE, id).name();
}

struct Answer {
  grpc::Status status;
  std::vector<v1::RegisterVolumesResponse::Progress> progress;
  v1::Registration registration;
};
Answer Register(Service& service, const v1::RegisterVolumesRequest& request) {
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
v1::RegisterVolumesRequest Rigid(const std::string& fixed, const std::string& moving) {
  v1::RegisterVolumesRequest request;
  request.set_fixed(fixed);
  request.set_moving(moving);
  request.mutable_options()->set_use_network(false);
  request.mutable_options()->set_linear(v1::RegistrationOptions::RIGID);
  request.mutable_options()->set_deformable(false);
  return request;
}

grpc::Status Match(Service& service, const std::string& registration, const Vec3& point,
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
Downloaded Download(Service& service, const std::string& registration, File::File file) {
  File request;
  request.set_name(registration);
  request.set_file(file);
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
class RegistrationServiceTest : public testing::Test {
 protected:
  static constexpr Vec3 kShift = {3, -2, 4};
  // The optimiser's steps end within a tenth of a voxel (1 mm) of the optimum of a smooth image.
  static constexpr double kTolerance_mm = 0.3;

  RegistrationServiceTest() { Restart(); }
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

TEST_F(RegistrationServiceTest, AKnownShiftIsFoundAndTheResultIsKeptThroughARestart) {
  const Answer answer = Register(*service_, Rigid(fixed_, moving_));
  ASSERT_OK(answer.status);
  EXPECT_FALSE(answer.progress.empty());
  for (const auto& progress : answer.progress) {
    EXPECT_NE(progress.stage(), "");
    EXPECT_LE(progress.step(), progress.steps());
  }
  const v1::Registration& made = answer.registration;
  EXPECT_EQ(made.fixed(), fixed_);
  EXPECT_EQ(made.moving(), moving_);
  EXPECT_EQ(made.model().model(), model_);
  EXPECT_EQ(made.verdict().quality(), v1::RegistrationVerdict::GOOD) << made.verdict().reason();
  EXPECT_GT(made.verdict().ncc_after(), made.verdict().ncc_before());
  EXPECT_EQ(made.options().refine_steps(), 50);  // every default is filled in
  ExpectShift(made.name());
  Restart();
  v1::Registration kept;
  ASSERT_OK(Get(made.name(), &kept));
  EXPECT_EQ(kept.SerializeAsString(), made.SerializeAsString());
  ExpectShift(made.name());
}

TEST_F(RegistrationServiceTest, ADisplacementFieldIsKeptThroughARestart) {
  auto request = Rigid(fixed_, moving_);
  request.mutable_options()->set_deformable(true);
  request.mutable_options()->set_refine_steps(10);
  const Answer answer = Register(*service_, request);
  ASSERT_OK(answer.status);
  ASSERT_TRUE(answer.registration.has_fixed_to_moving_lattice());
  v1::MatchPointsResponse before, after;
  ASSERT_OK(
      Match(*service_, answer.registration.name(), {11, 12, 15}, v1::FIXED_TO_MOVING, &before));
  Restart();
  ASSERT_OK(
      Match(*service_, answer.registration.name(), {11, 12, 15}, v1::FIXED_TO_MOVING, &after));
  EXPECT_EQ(before.SerializeAsString(), after.SerializeAsString());
}

TEST_F(RegistrationServiceTest, LabelsOfTheMovingVolumeAreCarriedOntoTheFixedGrid) {
  const v1::Registration made = Registered();
  const Blobs seen(kShift);
  v1::ApplyRegistrationRequest request;
  request.set_registration(made.name());
  request.set_volume(
      StoreAs(*service_, seen.grid, seen.labels, v1::Volume::UINT8, v1::Volume::LABELS, "labels")
          .name());
  request.set_display_name("carried");
  v1::Volume carried;
  ASSERT_OK(Apply(request, &carried));
  EXPECT_EQ(carried.kind(), v1::Volume::LABELS);
  EXPECT_EQ(carried.display_name(), "carried");
  EXPECT_EQ(carried.grid().SerializeAsString(), ToProto(Blobs().grid).SerializeAsString());
  const std::string voxels = Voxels(carried.name());
  const std::string truth = Blobs().labels;
  ASSERT_EQ(voxels.size(), truth.size());
  int both = 0, either = 0;
  for (size_t i = 0; i < voxels.size(); ++i) {
    if (truth[i] != 0) ++either;
    if (voxels[i] != 0) ++either;
    if (voxels[i] != 0 && voxels[i] == truth[i]) both += 2;
  }
  // A third of a voxel beside a ball of 4 voxels changes a tenth of its shell.
  EXPECT_GT(static_cast<double>(both) / either, 0.9);
}

TEST_F(RegistrationServiceTest, WithAnInverseTheWayBackIsKnownToo) {
  const v1::Registration made = Registered(true);
  v1::MatchPointsResponse answer;
  ASSERT_OK(Match(*service_, made.name(), {16 + 3, 17 - 2, 18 + 4}, v1::MOVING_TO_FIXED, &answer));
  EXPECT_NEAR(answer.matches(0).point().x_mm(), 16, kTolerance_mm);
  EXPECT_TRUE(answer.matches(0).has_cycle_distance_mm());
  EXPECT_LT(answer.matches(0).cycle_distance_mm(), 0.05);  // the inversion's own residual
  ASSERT_OK(Match(*service_, made.name(), {30, 1, 30}, v1::FIXED_TO_MOVING, &answer));
  EXPECT_FALSE(answer.matches(0).out_of_view());
  ASSERT_OK(Match(*service_, made.name(), {300, 1, 30}, v1::FIXED_TO_MOVING, &answer));
  EXPECT_TRUE(answer.matches(0).out_of_view());
}

TEST_F(RegistrationServiceTest, ItsFilesAreThoseThatOthersRead) {
  const v1::Registration made = Registered();
  const Downloaded affine = Download(*service_, made.name(), File::FIXED_TO_MOVING_AFFINE);
  ASSERT_OK(affine.status);
  EXPECT_EQ(affine.file_name, "fixed_to_moving_affine.tfm");
  EXPECT_EQ(affine.bytes.rfind("#Insight Transform File V1.0", 0), 0U);
  const Downloaded field = Download(*service_, made.name(), File::FIXED_TO_MOVING_COMPOSED_FIELD);
  ASSERT_OK(field.status);
  const std::string path = folder_.path() + "/" + field.file_name;
  std::ofstream(path, std::ios::binary) << field.bytes;
  auto read = ReadDisplacementField(path);
  ASSERT_TRUE(read.ok()) << read.status();
  SpatialMap map;
  map.displacement = *std::move(read);
  const Vec3 there = map.Apply({16, 17, 18});
  for (int axis = 0; axis < 3; ++axis)
    EXPECT_NEAR(there[axis], Vec3({16, 17, 18})[axis] + kShift[axis], kTolerance_mm);
  const Downloaded warped = Download(*service_, made.name(), File::WARPED);
  ASSERT_OK(warped.status);
  const std::string image = folder_.path() + "/" + warped.file_name;
  std::ofstream(image, std::ios::binary) << warped.bytes;
  auto volume = ReadVolume(image);
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->grid().size, Blobs().grid.size);
  const auto* truth = reinterpret_cast<const int16_t*>(Blobs().image.data());
  const int64_t centre = (15 * 32 + 12) * 32 + 11;
  EXPECT_NEAR(volume->voxels<int16_t>()[centre], truth[centre], 30);  // of 600: a flat top
  // A rigid map alone has no displacements of its own.
  EXPECT_EQ(ReasonOf(Download(*service_, made.name(), File::FIXED_TO_MOVING_FIELD).status),
            "NO_SUCH_FILE");
  DeleteVolume(moving_);
  EXPECT_EQ(ReasonOf(Download(*service_, made.name(), File::WARPED).status), "NO_SUCH_FILE");
}

TEST_F(RegistrationServiceTest, TheSameRequestMakesOneRegistration) {
  auto request = Rigid(fixed_, moving_);
  request.set_request_id("once");
  const Answer first = Register(*service_, request), second = Register(*service_, request);
  ASSERT_OK(first.status);
  ASSERT_OK(second.status);
  EXPECT_EQ(first.registration.name(), second.registration.name());
  EXPECT_TRUE(second.progress.empty());
  request.set_display_name("another");
  EXPECT_EQ(ReasonOf(Register(*service_, request).status), "REQUEST_ID_REUSED");
}

TEST_F(RegistrationServiceTest, RegistrationsAreListedFilteredAndDeleted) {
  const std::string first = Registered().name(), second = Registered().name();
  const auto list = [&](const std::string& filter) {
    v1::ListRegistrationsRequest request;
    request.set_filter(filter);
    ClientContext context;
    v1::ListRegistrationsResponse answer;
    EXPECT_OK(service_->similarity->ListRegistrations(&context, request, &answer));
    return answer;
  };
  ASSERT_EQ(list("").registrations_size(), 2);
  EXPECT_EQ(list("").registrations(0).name(), second);  // newest first
  EXPECT_EQ(list("quality = FAILED").registrations_size(), 0);
  EXPECT_EQ(list("fixed = \"" + fixed_ + "\" AND quality = GOOD").registrations_size(), 2);
  v1::DeleteRegistrationRequest request;
  request.set_name(first);
  google::protobuf::Empty empty;
  ClientContext context, again;
  ASSERT_OK(service_->similarity->DeleteRegistration(&context, request, &empty));
  EXPECT_EQ(ReasonOf(service_->similarity->DeleteRegistration(&again, request, &empty)),
            "REGISTRATION_NOT_FOUND");
  EXPECT_EQ(list("").registrations_size(), 1);
  ExpectShift(second);  // its displacements stay, also where they are the same
}

TEST_F(RegistrationServiceTest, APairThatDoesNotFitIsCalledFailed) {
  const std::string noise = StoreAs(*service_, Cube(32, 1, 5).grid, Cube(32, 1, 5).voxels,
                                    v1::Volume::INT16, v1::Volume::IMAGE, "noise")
                                .name();
  const Answer answer = Register(*service_, Rigid(fixed_, noise));
  ASSERT_OK(answer.status);
  EXPECT_EQ(answer.registration.verdict().quality(), v1::RegistrationVerdict::FAILED);
  EXPECT_NE(answer.registration.verdict().reason(), "");
}

TEST_F(RegistrationServiceTest, WhatIsWrongIsToldByNameAndField) {
  const auto refused = [&](const std::function<void(v1::RegisterVolumesRequest&)>& change) {
    auto request = Rigid(fixed_, moving_);
    change(request);
    return Register(*service_, request).status;
  };
  using Request = v1::RegisterVolumesRequest;
  EXPECT_EQ(ReasonOf(refused([](Request& r) { r.set_fixed("volumes/none"); })), "VOLUME_NOT_FOUND");
  EXPECT_EQ(FieldOf(refused([](Request& r) { r.set_moving("nonsense"); })), "moving");
  EXPECT_EQ(ReasonOf(refused([](Request& r) { r.set_model("models/none"); })), "MODEL_NOT_FOUND");
  EXPECT_EQ(FieldOf(refused([](Request& r) { r.mutable_options()->set_refine_steps(5000); })),
            "options.refine_steps");
  EXPECT_EQ(FieldOf(refused([this](Request& r) { r.set_fixed_mask(fixed_); })), "fixed_mask");
  EXPECT_EQ(refused([](Request& r) {
              r.mutable_options()->set_max_voxels(int64_t{1} << 40);
            }).error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
  const std::string flat = StoreAs(*service_, Blobs().grid, std::string(Blobs().image.size(), '\0'),
                                   v1::Volume::INT16, v1::Volume::IMAGE, "flat")
                               .name();
  const grpc::Status constant = refused([&](Request& r) { r.set_moving(flat); });
  EXPECT_EQ(constant.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(constant), "moving");

  const std::string made = Registered().name();
  v1::MatchPointsResponse matches;
  EXPECT_EQ(ReasonOf(Match(*service_, made, {1, 2, 3}, v1::MOVING_TO_FIXED, &matches)),
            "NO_INVERSE");
  EXPECT_EQ(FieldOf(Match(*service_, made, {NAN, 2, 3}, v1::FIXED_TO_MOVING, &matches)),
            "points[0]");
  EXPECT_EQ(
      ReasonOf(Match(*service_, "registrations/none", {1, 2, 3}, v1::FIXED_TO_MOVING, &matches)),
      "REGISTRATION_NOT_FOUND");
  ClientContext context;
  EXPECT_EQ(
      FieldOf(service_->similarity->MatchPoints(&context, v1::MatchPointsRequest(), &matches)),
      "points");
}

TEST_F(RegistrationServiceTest, ACancelledCallFreesTheDeviceAndKeepsNothing) {
  auto request = Rigid(fixed_, moving_);
  request.mutable_options()->set_refine_steps(1000);
  request.mutable_options()->set_deformable(true);
  request.mutable_options()->set_consistency(true);  // minutes
  ClientContext context;
  auto reader = service_->similarity->RegisterVolumes(&context, request);
  v1::RegisterVolumesResponse message;
  ASSERT_TRUE(reader->Read(&message));  // it has begun
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  EXPECT_OK(SmallWork(*service_->features, fixed_));
  ClientContext listing;
  v1::ListRegistrationsResponse kept;
  ASSERT_OK(service_->similarity->ListRegistrations(&listing, {}, &kept));
  EXPECT_EQ(kept.registrations_size(), 0);
}

TEST_F(RegistrationServiceTest, ASearchRanksByWhatIsLeftOnceAligned) {
  const std::string noise = StoreAs(*service_, Cube(32, 1, 5).grid, Cube(32, 1, 5).voxels,
                                    v1::Volume::INT16, v1::Volume::IMAGE, "noise")
                                .name();
  v1::BackfillEmbeddingsRequest backfill;
  ClientContext filling;
  auto reader = service_->similarity->BackfillEmbeddings(&filling, backfill);
  v1::BackfillEmbeddingsResponse progress;
  while (reader->Read(&progress)) {
  }
  ASSERT_OK(reader->Finish());
  v1::SearchVolumesRequest request;
  request.set_volume(fixed_);
  request.set_top_k(2);
  request.set_rerank(2);
  request.mutable_rerank_options()->set_use_network(false);
  ClientContext context;
  v1::SearchVolumesResponse answer;
  ASSERT_OK(service_->similarity->SearchVolumes(&context, request, &answer));
  ASSERT_EQ(answer.hits_size(), 2);
  EXPECT_EQ(answer.hits(0).volume(), moving_);
  EXPECT_EQ(answer.hits(0).aligned().verdict().quality(), v1::RegistrationVerdict::GOOD);
  EXPECT_GT(answer.hits(0).aligned().score(), answer.hits(1).aligned().score());
  EXPECT_EQ(answer.hits(1).volume(), noise);
  EXPECT_EQ(answer.hits(1).aligned().verdict().quality(), v1::RegistrationVerdict::FAILED);
  request.set_rerank(51);
  ClientContext other;
  EXPECT_EQ(FieldOf(service_->similarity->SearchVolumes(&other, request, &answer)), "rerank");
}

}  // namespace
}  // namespace gvsl
