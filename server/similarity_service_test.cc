#include <future>
#include <map>

#include "server/job_test_fixture.h"

namespace gvsl {
namespace {

using Hits = std::vector<std::string>;

grpc::Status Search(Service& service, const v1::SearchVolumesRequest& request,
                    v1::SearchVolumesResponse* answer) {
  ClientContext context;
  return service.similarity->SearchVolumes(&context, request, answer);
}

v1::SearchVolumesRequest Like(const std::string& volume, int top_k = 0,
                              const std::string& filter = "", const std::string& model = "") {
  v1::SearchVolumesRequest request;
  request.set_volume(volume);
  request.set_top_k(top_k);
  request.set_filter(filter);
  request.set_model(model);
  return request;
}

Hits Found(Service& service, const v1::SearchVolumesRequest& request) {
  v1::SearchVolumesResponse answer;
  EXPECT_OK(Search(service, request, &answer));
  Hits hits;
  for (const auto& hit : answer.hits()) hits.push_back(hit.volume());
  return hits;
}

struct Backfilled {
  grpc::Status status;
  std::vector<v1::BackfillEmbeddingsResponse> messages;
};
Backfilled Backfill(Service& service, const std::string& model = "",
                    const std::string& filter = "") {
  v1::BackfillEmbeddingsRequest request;
  request.set_model(model);
  request.set_filter(filter);
  ClientContext context;
  auto reader = service.similarity->BackfillEmbeddings(&context, request);
  Backfilled backfilled;
  v1::BackfillEmbeddingsResponse message;
  while (reader->Read(&message)) backfilled.messages.push_back(message);
  backfilled.status = reader->Finish();
  return backfilled;
}

std::string Add(Service& service, const Cube& cube, const std::string& id,
                const std::string& modality = "", bool labels = false) {
  auto header = cube.Header(id);
  header.mutable_header()->mutable_volume()->set_modality(modality);
  if (labels) header.mutable_header()->mutable_volume()->set_kind(v1::Volume::LABELS);
  v1::Volume made;
  EXPECT_OK(Upload(*service.volumes, header, cube.voxels, &made));
  return made.name();
}

void DeleteVolume(Service& service, const std::string& name) {
  v1::DeleteVolumeRequest request;
  request.set_name(name);
  ClientContext context;
  google::protobuf::Empty empty;
  ASSERT_OK(service.volumes->DeleteVolume(&context, request, &empty));
}

v1::ServerConfig AutoEmbed() {
  v1::ServerConfig config;
  config.set_auto_embed(true);
  return config;
}

// A server with a tiny model and cubes of noise: 1, 2 and 3 are CT, 4 and 5 are MR.
class SimilarityServiceTest : public testing::Test {
 protected:
  SimilarityServiceTest() : service_(folder_.path()) {
    model_ = service_.CreateTinyModel();
    for (uint32_t i = 1; i <= 5; ++i)
      names_[i] = Add(service_, Cube(16, 1, i), absl::StrCat("v", i), i <= 3 ? "CT" : "MR");
  }
  grpc::Status Refused(const v1::SearchVolumesRequest& request) {
    v1::SearchVolumesResponse answer;
    return Search(service_, request, &answer);
  }

  const Folder folder_;
  Service service_;
  std::string model_;
  std::map<uint32_t, std::string> names_;
};

TEST_F(SimilarityServiceTest, ABackfillEmbedsEveryImageAndTellsHowFarItIs) {
  Add(service_, Cube(16, 1, 9), "labels", "", true);
  const Backfilled first = Backfill(service_);
  ASSERT_OK(first.status);
  ASSERT_EQ(first.messages.size(), 6U);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(first.messages[i].total(), 5);
    EXPECT_EQ(first.messages[i].embedded(), static_cast<int64_t>(i));
    EXPECT_EQ(first.messages[i].model().model(), model_);
  }
  EXPECT_EQ(first.messages.back().failed(), 0);
  const Backfilled second = Backfill(service_);  // nothing is left
  ASSERT_OK(second.status);
  ASSERT_EQ(second.messages.size(), 1U);
  EXPECT_EQ(second.messages[0].total(), 0);
}

TEST_F(SimilarityServiceTest, TheSameVoxelsUnderAnotherNameComeFirstWithTheCosineOfOne) {
  ASSERT_OK(Backfill(service_).status);
  const std::string copy = Add(service_, Cube(16, 1, 4), "copy", "MR");
  v1::SearchVolumesResponse answer;
  ASSERT_OK(Search(service_, Like(copy), &answer));
  EXPECT_EQ(answer.candidate_count(), 5);
  EXPECT_TRUE(answer.exact());
  EXPECT_EQ(answer.model().model(), model_);
  ASSERT_EQ(answer.hits_size(), 5);
  EXPECT_EQ(answer.hits(0).volume(), names_[4]);
  EXPECT_EQ(answer.hits(0).display_name(), "cube");
  EXPECT_EQ(answer.hits(0).modality(), "MR");
  EXPECT_NEAR(answer.hits(0).global_similarity(), 1, 1e-6);  // a float sum of 128 products
  for (int i = 1; i < 5; ++i) {
    EXPECT_LE(answer.hits(i).global_similarity(), answer.hits(i - 1).global_similarity());
    EXPECT_NE(answer.hits(i).volume(), copy);
  }
  // The query has its embedding from now on.
  EXPECT_EQ(Backfill(service_).messages[0].total(), 0);
}

TEST_F(SimilarityServiceTest, FiltersAndTheNumberOfHitsAreKeptExactly) {
  ASSERT_OK(Backfill(service_).status);
  EXPECT_EQ(Found(service_, Like(names_[1], 2)).size(), 2U);
  const Hits others = Found(service_, Like(names_[1], 10, "modality = \"MR\""));
  EXPECT_EQ(std::set<std::string>(others.begin(), others.end()),
            (std::set<std::string>{names_[4], names_[5]}));
  EXPECT_EQ(Found(service_, Like(names_[1], 10, "modality = \"CT\"")).size(), 2U);
  EXPECT_TRUE(Found(service_, Like(names_[1], 10, "modality = \"PT\"")).empty());
}

TEST_F(SimilarityServiceTest, WhatCannotBeSearchedIsToldByNameAndField) {
  for (const int top_k : {-1, 1001}) {
    const grpc::Status status = Refused(Like(names_[1], top_k));
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(FieldOf(status), "top_k");
  }
  EXPECT_EQ(FieldOf(Refused(Like(names_[1], 1, "colour = \"red\""))), "filter");
  EXPECT_EQ(FieldOf(Refused(Like("nonsense"))), "volume");
  EXPECT_EQ(ReasonOf(Refused(Like("volumes/none"))), "VOLUME_NOT_FOUND");
  EXPECT_EQ(FieldOf(Refused(Like(names_[1], 1, "", "nonsense"))), "model");
  EXPECT_EQ(ReasonOf(Refused(Like(names_[1], 1, "", "models/none"))), "MODEL_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Backfill(service_, "models/none").status), "MODEL_NOT_FOUND");
  EXPECT_EQ(FieldOf(Backfill(service_, "", "colour = \"red\"").status), "filter");
  const grpc::Status labels = Refused(Like(Add(service_, Cube(16, 1, 9), "labels", "", true)));
  EXPECT_EQ(labels.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(labels), "volume");
}

TEST_F(SimilarityServiceTest, BeforeAnythingElseIsEmbeddedASearchSaysWhatToDo) {
  const grpc::Status status = Refused(Like(names_[1]));
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "NO_EMBEDDINGS");
  EXPECT_NE(status.error_message().find("gvsl embeddings backfill --model " + model_),
            std::string::npos);
}

TEST_F(SimilarityServiceTest, EachModelFindsWhatItHasEmbeddedAlone) {
  const std::string other = service_.CreateTinyModel(2);
  ASSERT_OK(Backfill(service_, model_, "modality = \"CT\"").status);
  ASSERT_OK(Backfill(service_, other, "modality = \"MR\"").status);
  EXPECT_EQ(Found(service_, Like(names_[1], 0, "", model_)).size(), 2U);
  EXPECT_EQ(Found(service_, Like(names_[4], 0, "", other)), Hits{names_[5]});
}

TEST_F(SimilarityServiceTest, ADeletedVolumeIsNoHitAnyMore) {
  ASSERT_OK(Backfill(service_).status);
  const std::string nearest = Found(service_, Like(names_[1], 1)).front();
  DeleteVolume(service_, nearest);
  const Hits found = Found(service_, Like(names_[1]));
  EXPECT_EQ(found.size(), 3U);
  EXPECT_EQ(std::count(found.begin(), found.end(), nearest), 0);
}

TEST_F(SimilarityServiceTest, ABackfillThatWasCancelledLeavesTheDeviceAndGoesOnLater) {
  Add(service_, Cube(64, 4), "large");  // 27 windows of 128^3
  v1::BackfillEmbeddingsRequest request;
  ClientContext context;
  auto reader = service_.similarity->BackfillEmbeddings(&context, request);
  v1::BackfillEmbeddingsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.total(), 6);
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  EXPECT_OK(SmallWork(*service_.features, names_[1]));
  ASSERT_OK(Backfill(service_, "", "modality = \"CT\"").status);
  EXPECT_EQ(Found(service_, Like(names_[1], 0, "modality = \"CT\"")).size(), 2U);
}

TEST(AutoEmbed, NewVolumesAreFoundWithoutABackfill) {
  const Folder folder;
  Service service(folder.path(), 64, 30, "", AutoEmbed());
  // The first came before there was a model.
  const std::string first = Add(service, Cube(16, 1, 1), "v1");
  const std::string model = service.CreateTinyModel();
  const std::string second = Add(service, Cube(16, 1, 2), "v2");
  const std::string third = Add(service, Cube(16, 1, 3), "v3");
  Add(service, Cube(16, 1, 9), "labels", "", true);
  EXPECT_TRUE(Eventually([&] {
    v1::SearchVolumesResponse answer;
    return Search(service, Like(first), &answer).ok() && answer.hits_size() == 2;
  }));
  // Another default model: all are embedded by it, too.
  const std::string other = service.CreateTinyModel(2);
  v1::SetDefaultModelRequest request;
  request.set_name(other);
  ClientContext context;
  v1::Model made;
  ASSERT_OK(service.models->SetDefaultModel(&context, request, &made));
  EXPECT_TRUE(Eventually([&] {
    v1::SearchVolumesResponse answer;
    return Search(service, Like(third, 0, "", other), &answer).ok() && answer.hits_size() == 2;
  }));
}

TEST(AutoEmbed, WhatWasLeftUndoneIsDoneByTheNextServer) {
  const Folder folder;
  std::string query;
  {
    Service service(folder.path());
    service.CreateTinyModel();
    for (uint32_t i = 1; i <= 4; ++i) query = Add(service, Cube(16, 1, i), absl::StrCat("v", i));
  }
  Service service(folder.path(), 64, 30, "", AutoEmbed());
  EXPECT_TRUE(Eventually([&] {
    v1::SearchVolumesResponse answer;
    return Search(service, Like(query), &answer).ok() && answer.hits_size() == 3;
  }));
}

TEST(AutoEmbed, OneThatCannotBeEmbeddedDoesNotKeepTheOthers) {
  const Folder folder;
  Service service(folder.path(), 64, 30, "", AutoEmbed());
  const std::string lost = Add(service, Cube(16, 1, 1), "lost");
  const std::string blob = Sha256Of(Cube(16, 1, 1).voxels);
  for (const auto& entry : fs::recursive_directory_iterator(folder.path() + "/blobs")) {
    if (entry.path().filename() == blob) fs::remove(entry.path());
  }
  const std::string query = Add(service, Cube(16, 1, 2), "v2");
  Add(service, Cube(16, 1, 3), "v3");
  service.CreateTinyModel();
  EXPECT_TRUE(Eventually([&] {
    v1::SearchVolumesResponse answer;
    return Search(service, Like(query), &answer).ok() && answer.hits_size() == 1;
  }));
  const Backfilled backfilled = Backfill(service);
  ASSERT_OK(backfilled.status);
  EXPECT_EQ(backfilled.messages.back().total(), 1);
  EXPECT_EQ(backfilled.messages.back().failed(), 1);
  EXPECT_EQ(backfilled.messages.back().failure().volume(), lost);
  EXPECT_NE(backfilled.messages.back().failure().reason().find("cannot be read"),
            std::string::npos);
}

TEST(GraphSearch, AServerWithAGraphFindsTheSourceAndSaysThatItIsNotExact) {
  const Folder folder;
  v1::ServerConfig config;
  config.set_exact_search_up_to(2);
  Service service(folder.path(), 64, 30, "", config);
  service.CreateTinyModel();
  std::string source;
  for (uint32_t i = 1; i <= 6; ++i) source = Add(service, Cube(16, 1, i), absl::StrCat("v", i));
  ASSERT_OK(Backfill(service).status);
  const std::string copy = Add(service, Cube(16, 1, 6), "copy");
  v1::SearchVolumesResponse answer;
  ASSERT_OK(Search(service, Like(copy, 3), &answer));
  EXPECT_FALSE(answer.exact());
  EXPECT_EQ(answer.hits(0).volume(), source);
  ASSERT_OK(Search(service, Like(copy, 3, "display_name = \"cube\""), &answer));
  EXPECT_TRUE(answer.exact());  // with a filter always
  EXPECT_EQ(answer.hits(0).volume(), source);
}

}  // namespace
}  // namespace gvsl
