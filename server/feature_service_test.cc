#include <cmath>
#include <functional>
#include <future>

#include "server/service_test_fixture.h"

namespace gvsl {
namespace {

class FeatureServiceTest : public ServiceTest {};

TEST_F(FeatureServiceTest, GlobalVectorsOfManyVolumesAreThoseOfEach) {
  const std::vector<std::string> names = {Store(Cube(16, 1, 1), Id("1")).name(),
                                          Store(Cube(20, 1, 2), Id("2")).name(),
                                          Store(Cube(16, 1, 3), Id("3")).name()};
  v1::ExtractGlobalRequest request;
  *request.mutable_window() = SmallWindow();
  for (const std::string& name : names) request.add_volumes(name);
  ClientContext context;
  v1::ExtractGlobalResponse many;
  ASSERT_OK(features().ExtractGlobal(&context, request, &many));
  ASSERT_EQ(many.features_size(), 3);
  EXPECT_EQ(many.model().model(), model_);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(many.features(i).volume(), names[static_cast<size_t>(i)]);
    EXPECT_EQ(many.features(i).values_size(), 128);
    request.clear_volumes();
    request.add_volumes(names[static_cast<size_t>(i)]);
    ClientContext alone;
    v1::ExtractGlobalResponse one;
    ASSERT_OK(features().ExtractGlobal(&alone, request, &one));
    // The CPU is deterministic for a number of threads: equal to the bit.
    EXPECT_EQ(one.features(0).SerializeAsString(), many.features(i).SerializeAsString());
  }
}

TEST_F(FeatureServiceTest, AnswersNameTheWindowsThatWereUsed) {
  v1::ExtractDenseRequest dense;
  dense.set_volume(Store(Cube(20), Id()).name());
  *dense.mutable_window() = SmallWindow();
  dense.mutable_window()->set_precision(v1::WindowOptions::BFLOAT16);
  const v1::WindowOptions used = ExtractDense(features(), dense).header.window();
  EXPECT_EQ(used.window(), 16);
  EXPECT_EQ(used.overlap(), 0.25);
  EXPECT_EQ(used.blending(), v1::WindowOptions::GAUSSIAN);
  EXPECT_EQ(used.precision(), v1::WindowOptions::FLOAT32) << "of a CPU";
  EXPECT_EQ(used.batch(), 1);
  EXPECT_EQ(used.levels(), 1);
  dense.mutable_window()->set_levels(3);
  const auto header = ExtractDense(features(), dense).header;
  EXPECT_EQ(header.window().levels(), 3);
  EXPECT_EQ(header.channels(), 8 + 16 + 32);

  v1::ExtractGlobalRequest global;
  global.add_volumes(dense.volume());
  ClientContext context;
  v1::ExtractGlobalResponse answer;
  ASSERT_OK(features().ExtractGlobal(&context, global, &answer));
  EXPECT_EQ(answer.window().window(), 128) << "the card's crop";
  EXPECT_EQ(answer.window().levels(), 0) << "it has none";
}

TEST_F(FeatureServiceTest, DenseFeaturesComeOnTheirGridWithAllTheirBytes) {
  const Cube cube(20);
  v1::ExtractDenseRequest request;
  request.set_volume(Store(cube, Id()).name());
  request.set_space(v1::ExtractDenseRequest::VOLUME);
  *request.mutable_window() = SmallWindow();
  const Dense whole = ExtractDense(features(), request);
  ASSERT_OK(whole.status);
  EXPECT_EQ(whole.header.grid().SerializeAsString(), ToProto(cube.grid).SerializeAsString());
  EXPECT_EQ(whole.header.channels(), 8);
  EXPECT_EQ(whole.header.type(), v1::FLOAT32);
  EXPECT_EQ(whole.header.total_bytes(), 8 * 20 * 20 * 20 * 4);
  EXPECT_EQ(whole.header.model().model(), model_);
  ASSERT_EQ(static_cast<int64_t>(whole.bytes.size()), whole.header.total_bytes());

  // A region with a stride is the same values, fewer: columns 3, 5, 7; rows 2, 4; slices 5, 7, 9.
  for (int64_t begin : {3, 2, 5}) request.mutable_roi()->add_begin(begin);
  for (int64_t end : {8, 5, 10}) request.mutable_roi()->add_end(end);
  request.set_stride(2);
  const Dense part = ExtractDense(features(), request);
  ASSERT_OK(part.status);
  const auto& size = part.header.grid().size();
  ASSERT_EQ(std::vector<int64_t>(size.begin(), size.end()), (std::vector<int64_t>{3, 2, 3}));
  EXPECT_EQ(part.header.grid().spacing_mm(0), 2);
  EXPECT_EQ(part.header.grid().origin_mm(0), -7 + 3);
  const std::vector<float> all = Floats(whole.bytes), some = Floats(part.bytes);
  ASSERT_EQ(some.size(), 8u * 3 * 2 * 3);
  for (size_t z = 0; z < 3; ++z)
    for (size_t c = 0; c < 8; ++c)
      for (size_t y = 0; y < 2; ++y)
        for (size_t x = 0; x < 3; ++x)
          // Other windows see the region: GroupNorm makes them differ a little (adr/0005); here all
          // windows of the whole are computed for the region, too, so nothing but rounding differs.
          EXPECT_NEAR(some[((z * 8 + c) * 2 + y) * 3 + x],
                      all[(((5 + 2 * z) * 8 + c) * 20 + 2 + 2 * y) * 20 + 3 + 2 * x], 1e-4);

  request.clear_roi();
  request.set_stride(0);
  request.set_type(v1::FLOAT16);
  const Dense half = ExtractDense(features(), request);
  ASSERT_OK(half.status);
  EXPECT_EQ(half.header.type(), v1::FLOAT16);
  EXPECT_EQ(half.bytes.size() * 2, whole.bytes.size());
}

TEST_F(FeatureServiceTest, SamplesAtVoxelCentresAreTheDenseFeaturesThere) {
  const Cube cube(20);
  v1::ExtractDenseRequest dense_request;
  dense_request.set_volume(Store(cube, Id()).name());
  dense_request.set_space(v1::ExtractDenseRequest::VOLUME);
  *dense_request.mutable_window() = SmallWindow();
  const std::vector<float> dense = Floats(ExtractDense(features(), dense_request).bytes);
  ASSERT_EQ(dense.size(), 8u * 20 * 20 * 20);

  v1::SampleFeaturesRequest request;
  request.set_volume(dense_request.volume());
  *request.mutable_window() = SmallWindow();
  const std::vector<Vec3> indices = {{0, 0, 0}, {10, 3, 17}, {19, 19, 19}};
  for (const Vec3& index : indices) {
    const Vec3 place = cube.grid.IndexToPhysical(index);
    auto* point = request.add_points();
    point->set_x_mm(place[0]);
    point->set_y_mm(place[1]);
    point->set_z_mm(place[2]);
  }
  request.add_points()->set_x_mm(1e6);
  ClientContext context;
  v1::SampleFeaturesResponse answer;
  ASSERT_OK(features().SampleFeatures(&context, request, &answer));
  ASSERT_EQ(answer.samples_size(), 4);
  for (size_t i = 0; i < indices.size(); ++i) {
    const auto& sample = answer.samples(static_cast<int>(i));
    ASSERT_EQ(sample.values_size(), 8);
    EXPECT_FALSE(sample.out_of_view());
    for (size_t c = 0; c < 8; ++c) {
      const auto at = static_cast<size_t>(
          ((indices[i][2] * 8 + static_cast<double>(c)) * 20 + indices[i][1]) * 20 + indices[i][0]);
      EXPECT_NEAR(sample.values(static_cast<int>(c)), dense[at], 1e-4);  // order of summation
    }
  }
  EXPECT_TRUE(answer.samples(3).out_of_view());
  EXPECT_EQ(answer.samples(3).values_size(), 0);
}

TEST_F(FeatureServiceTest, PoolingGivesStatisticsOfEachLabel) {
  const Cube cube;
  v1::CreateVolumeRequest header = cube.Header(Id("labels"));
  header.mutable_header()->mutable_volume()->set_kind(v1::Volume::LABELS);
  std::string voxels;
  for (int i = 0; i < 16 * 16 * 16; ++i) {
    const auto label = static_cast<int16_t>(i < 2048 ? 3 : i < 3072 ? 7 : 0);  // slices 0-7, 8-11
    voxels.append(reinterpret_cast<const char*>(&label), 2);
  }
  v1::Volume labels;
  ASSERT_OK(Upload(volumes(), header, voxels, &labels));
  v1::PoolFeaturesRequest request;
  request.set_volume(Store(cube, Id()).name());
  request.set_labels(labels.name());
  *request.mutable_window() = SmallWindow();
  ClientContext one, two, three;
  v1::PoolFeaturesResponse answer;
  ASSERT_OK(features().PoolFeatures(&one, request, &answer));
  ASSERT_EQ(answer.labels_size(), 2);
  EXPECT_EQ(answer.labels(0).label(), 3);
  EXPECT_EQ(answer.labels(0).voxel_count(), 2048);
  EXPECT_EQ(answer.labels(1).label(), 7);
  EXPECT_EQ(answer.labels(1).voxel_count(), 1024);
  EXPECT_EQ(answer.labels(0).mean_size(), 8);
  EXPECT_EQ(answer.labels(0).standard_deviation_size(), 8);

  std::swap(*request.mutable_volume(), *request.mutable_labels());
  EXPECT_EQ(FieldOf(features().PoolFeatures(&two, request, &answer)), "volume");
  request.set_volume(request.labels());
  EXPECT_EQ(FieldOf(features().PoolFeatures(&three, request, &answer)), "labels");
}

// As many dense channels as `base`, and next to nothing to compute.
constexpr std::array<int64_t, 5> kAsWideAsBase = {32, 8, 8, 16, 8};

TEST_F(FeatureServiceTest, AsManyPointsAsTheLimitSaysFitIntoAnAnswerOfBase) {
  v1::Model model;
  ASSERT_OK(Import(models(), ModelFile(kAsWideAsBase, folder_->path() + "/m"), "", &model));
  v1::SampleFeaturesRequest request;
  request.set_volume(Store(Cube(), Id()).name());
  request.set_model(model.name());
  *request.mutable_window() = SmallWindow();
  for (int i = 0; i < 4096; ++i) {
    auto* point = request.add_points();
    point->set_x_mm(-7 + i % 16);
    point->set_y_mm(11 + i / 16 % 16);
    point->set_z_mm(13 + i / 256);
  }
  ClientContext most, more, with_levels, with_too_many, fewer;
  v1::SampleFeaturesResponse answer;
  ASSERT_OK(features().SampleFeatures(&most, request, &answer));
  ASSERT_EQ(answer.samples_size(), 4096);
  for (const auto& sample : answer.samples()) ASSERT_EQ(sample.values_size(), 32);
  EXPECT_LE(answer.ByteSizeLong(), kMebibyte);
  request.add_points();
  EXPECT_EQ(FieldOf(features().SampleFeatures(&more, request, &answer)), "points");

  request.mutable_points()->RemoveLast();
  request.mutable_window()->set_levels(5);
  EXPECT_EQ(FieldOf(features().SampleFeatures(&with_too_many, request, &answer)), "window.levels");
  request.mutable_window()->set_levels(4);
  EXPECT_EQ(FieldOf(features().SampleFeatures(&with_levels, request, &answer)), "points");
  while (request.points_size() > VectorsInAnswer(DenseChannels(model, 4), kSampleOverheadBytes)) {
    request.mutable_points()->RemoveLast();
  }
  ASSERT_OK(features().SampleFeatures(&fewer, request, &answer));
  for (const auto& sample : answer.samples()) ASSERT_EQ(sample.values_size(), 64);
  EXPECT_LE(answer.ByteSizeLong(), kMebibyte);
}

TEST_F(FeatureServiceTest, MoreLabelsThanAnAnswerHoldsAreRefused) {
  v1::Model model;
  ASSERT_OK(Import(models(), ModelFile(kAsWideAsBase, folder_->path() + "/m"), "", &model));
  const Cube cube;
  v1::CreateVolumeRequest header = cube.Header(Id("labels"));
  header.mutable_header()->mutable_volume()->set_kind(v1::Volume::LABELS);
  const auto pool = [&](int labels, v1::PoolFeaturesResponse* answer) {
    std::string voxels;
    for (int i = 0; i < 16 * 16 * 16; ++i) {
      const auto label = static_cast<int16_t>(i < labels ? i + 1 : 0);
      voxels.append(reinterpret_cast<const char*>(&label), 2);
    }
    header.mutable_header()->set_request_id(Id(std::to_string(labels)));
    v1::Volume map;
    EXPECT_OK(Upload(volumes(), header, voxels, &map));
    v1::PoolFeaturesRequest request;
    request.set_volume(Store(cube, Id()).name());
    request.set_labels(map.name());
    request.set_model(model.name());
    *request.mutable_window() = SmallWindow();
    ClientContext context;
    return features().PoolFeatures(&context, request, answer);
  };
  constexpr int kMost = 3445;  // 1047552 bytes / (2 * 32 values of 4 bytes + 48)
  v1::PoolFeaturesResponse answer;
  ASSERT_OK(pool(kMost, &answer));
  EXPECT_EQ(answer.labels_size(), kMost);
  EXPECT_LE(answer.ByteSizeLong(), kMebibyte);
  const grpc::Status refused = pool(kMost + 1, &answer);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(refused), "labels");
}

TEST_F(FeatureServiceTest, EveryWrongFieldOfAFeatureRequestIsNamed) {
  const std::string name = Store(Cube(), Id()).name();
  const auto global = [&](const std::function<void(v1::ExtractGlobalRequest&)>& fault) {
    v1::ExtractGlobalRequest request;
    request.add_volumes(name);
    fault(request);
    ClientContext context;
    v1::ExtractGlobalResponse answer;
    return features().ExtractGlobal(&context, request, &answer);
  };
  const auto dense = [&](const std::function<void(v1::ExtractDenseRequest&)>& fault) {
    v1::ExtractDenseRequest request;
    request.set_volume(name);
    *request.mutable_window() = SmallWindow();
    fault(request);
    return ExtractDense(features(), request).status;
  };
  EXPECT_EQ(FieldOf(global([](auto& r) { r.clear_volumes(); })), "volumes");
  EXPECT_EQ(FieldOf(global([&](auto& r) {
              for (int i = 0; i < 256; ++i) r.add_volumes(name);
            })),
            "volumes");
  EXPECT_EQ(ReasonOf(global([](auto& r) { r.add_volumes("volumes/absent"); })), "VOLUME_NOT_FOUND");
  EXPECT_EQ(FieldOf(global([](auto& r) { r.set_model("volumes/x"); })), "model");
  EXPECT_EQ(ReasonOf(global([](auto& r) { r.set_model("models/absent"); })), "MODEL_NOT_FOUND");
  EXPECT_EQ(FieldOf(global([](auto& r) { r.mutable_window()->set_window(100); })), "window.window");
  EXPECT_EQ(FieldOf(global([](auto& r) { r.mutable_window()->set_overlap(0.9); })),
            "window.overlap");
  EXPECT_EQ(FieldOf(global([](auto& r) { r.mutable_window()->set_levels(1); })), "window.levels");
  EXPECT_EQ(FieldOf(dense([](auto& r) { r.mutable_window()->set_levels(5); })), "window.levels");
  EXPECT_EQ(FieldOf(dense([](auto& r) { r.mutable_window()->set_levels(-1); })), "window.levels");
  EXPECT_EQ(FieldOf(global([](auto& r) {
              r.mutable_window()->set_blending(static_cast<v1::WindowOptions::Blending>(7));
            })),
            "window.blending");
  EXPECT_EQ(FieldOf(dense([](auto& r) { r.set_stride(-1); })), "stride");
  EXPECT_EQ(FieldOf(dense([](auto& r) { r.mutable_roi()->add_begin(0); })), "roi");
  EXPECT_EQ(FieldOf(dense([](auto& r) {
              for (int i = 0; i < 3; ++i) {
                r.mutable_roi()->add_begin(0);
                r.mutable_roi()->add_end(1000);
              }
            })),
            "roi");
  EXPECT_EQ(FieldOf(dense([](auto& r) { r.set_type(static_cast<v1::FeatureType>(9)); })), "type");
  EXPECT_EQ(
      FieldOf(dense([](auto& r) { r.set_space(static_cast<v1::ExtractDenseRequest::Space>(9)); })),
      "space");
  v1::SampleFeaturesRequest sample;
  sample.set_volume(name);
  v1::SampleFeaturesResponse answer;
  ClientContext one, two;
  EXPECT_EQ(FieldOf(features().SampleFeatures(&one, sample, &answer)), "points");
  sample.add_points()->set_y_mm(std::nan(""));
  EXPECT_EQ(FieldOf(features().SampleFeatures(&two, sample, &answer)), "points[0]");
}

TEST_F(FeatureServiceTest, ACancelledDenseStreamFreesTheDevice) {
  const std::string small = Store(Cube(), Id("small")).name();
  const std::string large = Store(Cube(64, 4), Id()).name();
  ClientContext context;
  auto reader = features().ExtractDense(&context, LongWork(large));
  v1::ExtractDenseResponse message;
  ASSERT_TRUE(reader->Read(&message));  // it has begun
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  EXPECT_OK(SmallWork(features(), small));
}

TEST_F(FeatureServiceTest, ADeadlineStopsTheWorkAndNotOnlyTheWait) {
  const std::string small = Store(Cube(), Id("small")).name();
  const std::string large = Store(Cube(64, 4), Id()).name();
  // Whatever this machine's speed, some deadline passes after the work has begun.
  bool begun = false;
  for (auto deadline = std::chrono::milliseconds(1); !begun; deadline *= 2) {
    ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    auto reader = features().ExtractDense(&context, LongWork(large));
    v1::ExtractDenseResponse message;
    while (reader->Read(&message)) begun = true;
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_OK(SmallWork(features(), small));
}

TEST(Queue, OneRequestTooManyIsRefusedWithTheTimeToTryAgain) {
  const Folder folder;
  Service service(folder.path(), 1);
  service.CreateTinyModel();
  v1::Volume small, large;
  ASSERT_OK(Upload(*service.volumes, Cube().Header("small"), Cube().voxels, &small));
  ASSERT_OK(Upload(*service.volumes, Cube(64, 4).Header("large"), Cube(64, 4).voxels, &large));
  EXPECT_EQ(service.Status().queue_capacity(), 1);

  ClientContext context;
  auto running = service.features->ExtractDense(&context, LongWork(large.name()));
  v1::ExtractDenseResponse message;
  ASSERT_TRUE(running->Read(&message));
  auto waiting =
      std::async(std::launch::async, [&] { return SmallWork(*service.features, small.name()); });
  service.WaitForQueue(1);
  const grpc::Status refused = SmallWork(*service.features, small.name());
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(refused), "QUEUE_FULL");
  EXPECT_GT(DetailOf<google::rpc::RetryInfo>(refused).retry_delay().seconds(), 0);
  context.TryCancel();
  running->Finish();
  EXPECT_OK(waiting.get());  // who waited is served
}

TEST(Models, WithoutOneARequestSaysHowToGetOne) {
  const Folder folder;
  Service service(folder.path());
  v1::Volume volume;
  ASSERT_OK(Upload(*service.volumes, Cube().Header("a"), Cube().voxels, &volume));
  const grpc::Status status = SmallWork(*service.features, volume.name());
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "NO_DEFAULT_MODEL");
  EXPECT_NE(status.error_message().find("gvsl models"), std::string::npos);
}

}  // namespace
}  // namespace gvsl
