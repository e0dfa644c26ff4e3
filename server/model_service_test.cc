#include <fstream>
#include <future>
#include <set>

#include "model/model_file.h"
#include "server/service_test_fixture.h"

namespace gvsl {
namespace {

class ModelServiceTest : public ServiceTest {};

class ModelFile {
 public:
  explicit ModelFile(const std::string& path) {
    ModelCard card;
    card.size = "tiny";
    card.widths = *WidthsOf("tiny");
    EXPECT_TRUE(CreateModelFile(card, 99, path).ok());
    std::ifstream in(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  std::string bytes;
};

grpc::Status Import(v1::ModelService::Stub& stub, const std::string& bytes,
                    const std::string& request_id, v1::Model* model, bool damage = false) {
  ClientContext context;
  auto writer = stub.ImportModel(&context, model);
  v1::ImportModelRequest request;
  request.mutable_header()->set_display_name("imported");
  request.mutable_header()->set_request_id(request_id);
  request.mutable_header()->set_total_bytes(static_cast<int64_t>(bytes.size()));
  bool good = writer->Write(request);
  for (size_t at = 0; good && at < bytes.size(); at += kMaxChunkBytes) {
    request.mutable_chunk()->set_data(bytes.substr(at, kMaxChunkBytes));
    request.mutable_chunk()->set_crc32(ChecksumOf(request.chunk().data()) ^ (damage ? 1 : 0));
    good = writer->Write(request);
  }
  writer->WritesDone();
  return writer->Finish();
}

TEST_F(ModelServiceTest, AModelIsImportedExportedAndDeleted) {
  const std::string bytes = ModelFile(folder_->path() + "/tiny").bytes;
  v1::Model model, again;
  ASSERT_OK(Import(models(), bytes, Id(), &model));
  EXPECT_EQ(model.name().rfind("models/", 0), 0u);
  EXPECT_EQ(model.card().size(), "tiny");
  EXPECT_EQ(model.global_channels(), 128);
  EXPECT_EQ(model.dense_channels(), 8);
  EXPECT_EQ(model.identity().fingerprint().size(), 64u);
  ASSERT_OK(Import(models(), bytes, Id(), &again));  // the same request
  EXPECT_EQ(again.name(), model.name());

  v1::ExportModelRequest request;
  request.set_name(model.name());
  for (const auto format : {v1::ExportModelRequest::SAFETENSORS, v1::ExportModelRequest::PTH}) {
    request.set_format(format);
    ClientContext context;
    auto reader = models().ExportModel(&context, request);
    v1::ExportModelResponse message;
    std::string exported;
    while (reader->Read(&message)) {
      EXPECT_LE(message.ByteSizeLong(), kMebibyte);
      EXPECT_EQ(ChecksumOf(message.chunk().data()), message.chunk().crc32());
      exported += message.chunk().data();
    }
    ASSERT_OK(reader->Finish());
    v1::Model back;
    ASSERT_OK(Import(models(), exported, "", &back));
    EXPECT_EQ(back.identity().weights_sha256(), model.identity().weights_sha256());
    v1::DeleteModelRequest drop;
    drop.set_name(back.name());
    ClientContext dropping;
    google::protobuf::Empty empty;
    EXPECT_OK(models().DeleteModel(&dropping, drop, &empty));
  }
  v1::DeleteModelRequest drop;
  drop.set_name(model.name());
  ClientContext one, two;
  google::protobuf::Empty empty;
  EXPECT_OK(models().DeleteModel(&one, drop, &empty));
  EXPECT_EQ(ReasonOf(models().DeleteModel(&two, drop, &empty)), "MODEL_NOT_FOUND");
}

TEST_F(ModelServiceTest, ModelFilesThatAreNoneAreRefusedWithTheReason) {
  v1::Model model;
  const grpc::Status noise = Import(models(), std::string(5000, 'x'), "", &model);
  EXPECT_EQ(noise.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(noise), "UNREADABLE_MODEL_FILE");
  EXPECT_EQ(noise.error_message().find(folder_->path()), std::string::npos)
      << "a path of the server is none of the client's: " << noise.error_message();
  EXPECT_EQ(FieldOf(Import(models(), "", "", &model)), "header.total_bytes");
  const grpc::Status damaged = Import(models(), std::string(5000, 'x'), "", &model, true);
  EXPECT_EQ(damaged.error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(ReasonOf(damaged), "CHECKSUM_MISMATCH");
  EXPECT_TRUE(fs::is_empty(folder_->path() + "/data/scratch"));
}

TEST_F(ModelServiceTest, AnUntrainedModelFollowsItsSeedAndItsRequest) {
  v1::CreateModelRequest request;
  request.set_size("tiny");
  request.set_seed(5);
  request.set_request_id(Id());
  ClientContext one, two, three, four;
  v1::Model first, second;
  ASSERT_OK(models().CreateModel(&one, request, &first));
  ASSERT_OK(models().CreateModel(&two, request, &second));
  EXPECT_EQ(first.name(), second.name());
  request.set_seed(6);
  const grpc::Status reused = models().CreateModel(&three, request, &second);
  EXPECT_EQ(reused.error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(ReasonOf(reused), "REQUEST_ID_REUSED");
  request.set_size("enormous");
  EXPECT_EQ(FieldOf(models().CreateModel(&four, request, &second)), "size");
}

TEST_F(ModelServiceTest, OneRequestSentManyTimesAtOnceMakesOneModel) {
  v1::CreateModelRequest request;
  request.set_size("tiny");
  request.set_request_id(Id());
  std::vector<std::future<std::string>> names;
  for (int i = 0; i < 4; ++i) {
    names.push_back(std::async(std::launch::async, [&request] {
      ClientContext context;
      v1::Model model;
      EXPECT_OK(models().CreateModel(&context, request, &model));
      return model.name();
    }));
  }
  const std::string name = names[0].get();
  for (size_t i = 1; i < names.size(); ++i) EXPECT_EQ(names[i].get(), name);
}

TEST_F(ModelServiceTest, EveryRequestUnderstandsTheDefaultModel) {
  const std::string other = service_->CreateTinyModel(8);
  v1::GetModelRequest get;
  get.set_name("models/default");
  v1::SetDefaultModelRequest set;
  v1::DeleteModelRequest drop;
  v1::Model model;
  google::protobuf::Empty empty;
  ClientContext one, two, three, four, five;
  ASSERT_OK(models().GetModel(&one, get, &model));
  EXPECT_EQ(model.name(), model_);
  set.set_name(other);
  ASSERT_OK(models().SetDefaultModel(&two, set, &model));
  EXPECT_EQ(model.name(), other);
  EXPECT_TRUE(model.is_default());
  set.set_name("models/default");
  ASSERT_OK(models().SetDefaultModel(&three, set, &model));
  EXPECT_EQ(model.name(), other);
  drop.set_name("models/default");
  const grpc::Status in_use = models().DeleteModel(&four, drop, &empty);
  EXPECT_EQ(in_use.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(in_use), "MODEL_IS_DEFAULT");
  set.set_name(model_);
  ASSERT_OK(models().SetDefaultModel(&five, set, &model));
}

TEST_F(ModelServiceTest, ModelsAreListedInPages) {
  v1::ListModelsRequest request;
  request.set_page_size(1);
  std::set<std::string> seen;
  int defaults = 0;
  do {
    ClientContext context;
    v1::ListModelsResponse page;
    ASSERT_OK(models().ListModels(&context, request, &page));
    ASSERT_EQ(page.models_size(), 1);
    EXPECT_TRUE(seen.insert(page.models(0).name()).second);
    defaults += page.models(0).is_default();
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(defaults, 1);
  EXPECT_EQ(static_cast<int64_t>(seen.size()), service_->Status().model_count());
}

}  // namespace
}  // namespace gvsl
