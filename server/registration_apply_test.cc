// SimilarityService's calls that apply stored registrations, in a real server.
#include <functional>

#include "imaging/image_file.h"
#include "imaging/transform_file.h"
#include "server/registration_test_fixture.h"

namespace gvsl {
namespace {

class RegistrationApplyTest : public RegistrationTest {};

TEST_F(RegistrationApplyTest, LabelsOfTheMovingVolumeAreCarriedOntoTheFixedGrid) {
  const v1::Registration made = Registered();
  const Blobs seen(kShift);
  v1::TransferLabelsRequest request;
  request.set_registration(made.name());
  request.set_labels(StoreLabels(seen.grid, seen.labels, "labels"));
  request.set_display_name("carried");
  v1::Volume carried;
  ASSERT_OK(Transfer(request, &carried));
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

TEST_F(RegistrationApplyTest, LabelsOfAnotherGridAreRefusedAndAnImageToo) {
  const std::string made = Registered().name();
  const auto refused = [&](const std::string& labels) {
    v1::TransferLabelsRequest request;
    request.set_registration(made);
    request.set_labels(labels);
    v1::Volume carried;
    return Transfer(request, &carried);
  };
  const Blobs seen(kShift);
  Grid other = seen.grid;
  other.origin_mm[2] += 0.5;
  const grpc::Status elsewhere = refused(StoreLabels(other, seen.labels, "other"));
  EXPECT_EQ(FieldOf(elsewhere), "labels");
  EXPECT_NE(elsewhere.error_message().find("the grid of " + moving_), std::string::npos)
      << elsewhere.error_message();
  EXPECT_EQ(FieldOf(refused(moving_)), "labels");
  EXPECT_EQ(ReasonOf(refused("volumes/none")), "VOLUME_NOT_FOUND");
}

TEST_F(RegistrationApplyTest, AVolumeOnAnyGridOfTheSpaceIsCarriedOnceForARequest) {
  v1::ApplyRegistrationRequest request;
  request.set_registration(Registered().name());
  Grid other = Blobs(kShift).grid;
  other.spacing_mm = {1.5, 1.5, 1.5};
  request.set_volume(StoreLabels(other, Blobs().labels, "coarser"));
  request.set_request_id("once");
  request.set_label_rule(v1::ApplyRegistrationRequest::MAJORITY);
  v1::Volume first, second;
  ASSERT_OK(Apply(request, &first));
  ASSERT_OK(Apply(request, &second));
  EXPECT_EQ(first.name(), second.name());
  EXPECT_EQ(first.grid().SerializeAsString(), ToProto(Blobs().grid).SerializeAsString());
  EXPECT_EQ(static_cast<int64_t>(Voxels(first.name()).size()), first.voxel_bytes());
  request.set_display_name("another");
  EXPECT_EQ(ReasonOf(Apply(request, &second)), "REQUEST_ID_REUSED");
}

TEST_F(RegistrationApplyTest, WithAnInverseTheWayBackIsKnownToo) {
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

TEST_F(RegistrationApplyTest, AMatchTellsHowAlikeBothPlacesAre) {
  const std::string made = Registered().name();
  v1::MatchPointsResponse answer;
  ASSERT_OK(Match(*service_, made, {16, 17, 18}, v1::FIXED_TO_MOVING, &answer));
  EXPECT_GT(answer.matches(0).score(), 0.95);  // a third of a voxel off at most
  EXPECT_FALSE(answer.matches(0).has_cycle_distance_mm()) << "there is no way back";
  DeleteVolume(moving_);
  ASSERT_OK(Match(*service_, made, {16, 17, 18}, v1::FIXED_TO_MOVING, &answer));
  EXPECT_FALSE(answer.matches(0).has_score()) << "nothing is left to compare with";
}

TEST_F(RegistrationApplyTest, PointsAreMatchedByFeaturesWithoutARegistration) {
  v1::MatchPointsRequest request;
  request.set_fixed(fixed_);
  request.set_moving(moving_);
  const Vec3 asked[] = {{11, 12, 15}, {20, 17, 13}, {15.5, 21, 20}, {100, 0, 0}};
  for (const Vec3& point : asked) {
    auto* added = request.add_points();
    added->set_x_mm(point[0]);
    added->set_y_mm(point[1]);
    added->set_z_mm(point[2]);
  }
  for (const v1::Direction direction : {v1::FIXED_TO_MOVING, v1::MOVING_TO_FIXED}) {
    request.set_direction(direction);
    const double sign = direction == v1::FIXED_TO_MOVING ? 1 : -1;
    ClientContext context;
    v1::MatchPointsResponse answer;
    ASSERT_OK(service_->similarity->MatchPoints(&context, request, &answer));
    EXPECT_EQ(answer.model().model(), model_);
    ASSERT_EQ(answer.matches_size(), 4);
    for (int i = 0; i < 3; ++i) {
      const auto& match = answer.matches(i);
      // The same voxels a shift apart: to half a voxel, which is as near as a lattice has it.
      EXPECT_NEAR(match.point().x_mm(), asked[i][0] + sign * kShift[0], 0.51) << i;
      EXPECT_NEAR(match.point().y_mm(), asked[i][1] + sign * kShift[1], 0.51) << i;
      EXPECT_NEAR(match.point().z_mm(), asked[i][2] + sign * kShift[2], 0.51) << i;
      EXPECT_GT(match.score(), 0.98) << i;
      EXPECT_LT(match.cycle_distance_mm(), 1) << i;
      EXPECT_FALSE(match.out_of_view());
    }
    EXPECT_TRUE(answer.matches(3).out_of_view()) << "outside its own volume";
    EXPECT_FALSE(answer.matches(3).has_point());
  }
}

TEST_F(RegistrationApplyTest, PointsAtTheBorderAreMatchedByFeaturesToo) {
  v1::MatchPointsRequest request;
  request.set_fixed(fixed_);
  request.set_moving(moving_);
  for (int corner = 0; corner < 8; ++corner) {  // nearly half a voxel beyond the outermost centres
    auto* point = request.add_points();
    point->set_x_mm(corner & 1 ? 31.49 : -0.49);
    point->set_y_mm(corner & 2 ? 31.49 : -0.49);
    point->set_z_mm(corner & 4 ? 31.49 : -0.49);
  }
  ClientContext context;
  v1::MatchPointsResponse answer;
  ASSERT_OK(service_->similarity->MatchPoints(&context, request, &answer));
  ASSERT_EQ(answer.matches_size(), 8);
  for (const auto& match : answer.matches()) EXPECT_TRUE(match.has_point());
}

TEST_F(RegistrationApplyTest, ItsFilesAreThoseThatOthersRead) {
  const v1::Registration made = Registered();
  const Downloaded affine = Download(*service_, made.name(), RegistrationFileRequest::AFFINE);
  ASSERT_OK(affine.status);
  EXPECT_EQ(affine.file_name, "fixed_to_moving_affine.tfm");
  EXPECT_EQ(affine.bytes.rfind("#Insight Transform File V1.0", 0), 0U);
  const Downloaded field =
      Download(*service_, made.name(), RegistrationFileRequest::COMPOSED_FIELD);
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
  const Downloaded warped = Download(*service_, made.name(), RegistrationFileRequest::WARPED);
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
  EXPECT_EQ(ReasonOf(Download(*service_, made.name(), RegistrationFileRequest::FIELD).status),
            "NO_SUCH_FILE");
  DeleteVolume(moving_);
  EXPECT_EQ(ReasonOf(Download(*service_, made.name(), RegistrationFileRequest::WARPED).status),
            "NO_SUCH_FILE");
}

TEST_F(RegistrationApplyTest, TheFilesOfTheOtherDirectionSayItInTheirNames) {
  const std::string one_way = Registered().name(), both_ways = Registered(true).name();
  EXPECT_EQ(
      ReasonOf(Download(*service_, one_way, RegistrationFileRequest::AFFINE, v1::MOVING_TO_FIXED)
                   .status),
      "NO_INVERSE");
  const std::pair<RegistrationFileRequest::File, const char*> files[] = {
      {RegistrationFileRequest::WARPED, "moving_to_fixed_warped.nii.gz"},
      {RegistrationFileRequest::AFFINE, "moving_to_fixed_affine.tfm"},
      {RegistrationFileRequest::COMPOSED_FIELD, "moving_to_fixed_composed_field.nii.gz"},
      {RegistrationFileRequest::LEARN2REG_FIELD, "moving_to_fixed_learn2reg.nii.gz"}};
  for (const auto& [file, name] : files) {
    const Downloaded got = Download(*service_, both_ways, file, v1::MOVING_TO_FIXED);
    EXPECT_OK(got.status);
    EXPECT_EQ(got.file_name, name);
    EXPECT_FALSE(got.bytes.empty());
  }
  EXPECT_EQ(FieldOf(Download(*service_, one_way, RegistrationFileRequest::FILE_UNSPECIFIED).status),
            "file");
}

TEST_F(RegistrationApplyTest, WhatIsWrongIsToldByNameAndField) {
  const std::string made = Registered().name();
  v1::MatchPointsResponse matches;
  EXPECT_EQ(ReasonOf(Match(*service_, made, {1, 2, 3}, v1::MOVING_TO_FIXED, &matches)),
            "NO_INVERSE");
  EXPECT_EQ(FieldOf(Match(*service_, made, {NAN, 2, 3}, v1::FIXED_TO_MOVING, &matches)),
            "points[0]");
  EXPECT_EQ(
      ReasonOf(Match(*service_, "registrations/none", {1, 2, 3}, v1::FIXED_TO_MOVING, &matches)),
      "REGISTRATION_NOT_FOUND");
  const auto field = [&](const std::function<void(v1::MatchPointsRequest&)>& change) {
    v1::MatchPointsRequest request;
    request.set_fixed(fixed_);
    request.set_moving(moving_);
    request.add_points();
    change(request);
    ClientContext context;
    return FieldOf(service_->similarity->MatchPoints(&context, request, &matches));
  };
  using Request = v1::MatchPointsRequest;
  EXPECT_EQ(field([](Request& r) { r.clear_points(); }), "points");
  EXPECT_EQ(field([](Request& r) {
              for (int i = 0; i < kMostFeatureMatches; ++i) r.add_points();
            }),
            "points");
  EXPECT_EQ(field([](Request& r) { r.set_fixed("nonsense"); }), "fixed");
  EXPECT_EQ(field([&](Request& r) { r.set_registration(made); }), "fixed") << "one or the other";
}

}  // namespace
}  // namespace gvsl
