// SimilarityService's calls that make registrations, in a real server.
#include <functional>

#include "server/registration_test_fixture.h"

namespace gvsl {
namespace {

class RegistrationServiceTest : public RegistrationTest {};

TEST_F(RegistrationServiceTest, AKnownShiftIsFoundAndTheResultIsKeptThroughARestart) {
  // From the scanner's coordinates; the centres alone would bring these two together.
  auto request = Rigid(fixed_, moving_);
  request.mutable_options()->set_initialisation(v1::RegistrationOptions::NONE);
  const Answer answer = Register(*service_, request);
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
  EXPECT_EQ(FieldOf(refused([](Request& r) { r.mutable_options()->set_smoothness_weight(-1); })),
            "options.smoothness_weight");
  EXPECT_EQ(FieldOf(refused([](Request& r) { r.mutable_options()->mutable_metric(); })),
            "options.metric");
  const std::string empty =
      StoreAs(*service_, Blobs().grid, std::string(Blobs().labels.size(), '\0'), v1::Volume::UINT8,
              v1::Volume::LABELS, "empty")
          .name();
  EXPECT_EQ(FieldOf(refused([&](Request& r) { r.set_moving_mask(empty); })), "moving_mask");
  const std::string far = StoreImage(*service_, Blobs({500, 0, 0}), "far");
  const grpc::Status apart = refused([&](Request& r) {
    r.set_moving(far);
    r.mutable_options()->set_initialisation(v1::RegistrationOptions::NONE);
  });
  EXPECT_EQ(apart.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(apart.error_message().find("share no voxel"), std::string::npos)
      << apart.error_message();
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
  Embed();
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
  EXPECT_FALSE(answer.hits(0).aligned().has_regions()) << "they were not asked for";
}

TEST_F(RegistrationServiceTest, ASearchTellsHowWellEachRegionFits) {
  // Half of the anatomy is noise in the other volume.
  Blobs half;
  const Cube noise(32, 1, 5);
  const size_t middle = half.image.size() / 2;
  std::copy(noise.voxels.begin(), noise.voxels.begin() + static_cast<std::ptrdiff_t>(middle),
            half.image.begin() + static_cast<std::ptrdiff_t>(middle));
  const std::string damaged = StoreImage(*service_, half, "half");
  Embed();
  v1::SearchVolumesRequest request;
  request.set_volume(fixed_);
  request.set_filter("display_name = \"half\"");
  request.set_rerank(1);
  request.set_regions(4);
  request.mutable_rerank_options()->set_use_network(false);
  request.mutable_rerank_options()->set_linear(v1::RegistrationOptions::RIGID);
  request.mutable_rerank_options()->set_deformable(false);
  request.mutable_rerank_options()->set_initialisation(v1::RegistrationOptions::NONE);
  v1::SearchVolumesResponse answer;
  ASSERT_OK(Search(request, &answer));
  ASSERT_EQ(answer.hits_size(), 1);
  const auto& regions = answer.hits(0).aligned().regions();
  ASSERT_EQ(regions.ncc_size(), 4 * 4 * 4);
  EXPECT_EQ(regions.grid().size(0), 4);
  const auto mean = [&](int begin, int end) {
    double sum = 0;
    for (int i = begin; i < end; ++i) sum += regions.ncc(i);
    return sum / (end - begin);
  };
  // The slabs of four regions a side: the first is the anatomy itself, the last is noise.
  EXPECT_GT(mean(0, 16), 0.8);
  EXPECT_LT(mean(48, 64), 0.3);
}

TEST_F(RegistrationServiceTest, WhatIsWrongWithARerankIsToldByItsField) {
  Embed();
  const auto field = [&](const std::function<void(v1::SearchVolumesRequest&)>& change) {
    v1::SearchVolumesRequest request;
    request.set_volume(fixed_);
    request.set_rerank(1);
    change(request);
    v1::SearchVolumesResponse answer;
    return FieldOf(Search(request, &answer));
  };
  using Request = v1::SearchVolumesRequest;
  EXPECT_EQ(field([](Request& r) { r.set_rerank(51); }), "rerank");
  EXPECT_EQ(field([](Request& r) { r.set_regions(9); }), "regions");
  EXPECT_EQ(field([](Request& r) { r.mutable_rerank_options()->set_refine_steps(5000); }),
            "rerank_options.refine_steps");
}

}  // namespace
}  // namespace gvsl
