#include <sys/resource.h>

#include <csignal>
#include <future>
#include <set>

#include "server/service_test_fixture.h"

namespace gvsl {
namespace {

class ModelServiceTest : public ServiceTest {};

TEST_F(ModelServiceTest, AModelIsImportedExportedAndDeleted) {
  const std::string bytes = ModelFile({8, 16, 32, 64, 128}, folder_->path() + "/tiny");
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

TEST_F(ModelServiceTest, WeightsThatTheDiskLostAreToldAndNotMadeUp) {
  const std::string bytes = ModelFile({16, 8, 8, 8, 8}, folder_->path() + "/lost");
  v1::Model model;
  ASSERT_OK(Import(models(), bytes, "", &model));
  const std::string digest = Sha256Of(bytes);
  const std::string blob = folder_->path() + "/data/blobs/" + digest.substr(0, 2) + "/" + digest;
  ASSERT_TRUE(fs::exists(blob));
  const std::string volume = Store(Cube(), Id()).name();
  const auto expect_lost = [&](const std::string& how) {
    v1::ExportModelRequest request;
    request.set_name(model.name());
    ClientContext exporting, extracting;
    auto reader = models().ExportModel(&exporting, request);
    v1::ExportModelResponse message;
    while (reader->Read(&message)) {
    }
    v1::ExtractGlobalRequest global;
    global.add_volumes(volume);
    global.set_model(model.name());
    v1::ExtractGlobalResponse answer;
    for (const grpc::Status& status :
         {reader->Finish(), features().ExtractGlobal(&extracting, global, &answer)}) {
      EXPECT_EQ(status.error_code(), StatusCode::DATA_LOSS) << how;
      EXPECT_EQ(ReasonOf(status), "STORED_DATA_LOST") << how;
      EXPECT_NE(status.error_message().find(model.name()), std::string::npos);
      EXPECT_EQ(status.error_message().find(folder_->path()), std::string::npos)
          << "a path of the server is none of the client's: " << status.error_message();
    }
  };
  fs::resize_file(blob, bytes.size() - 1000);
  expect_lost("cut");
  fs::remove(blob);
  expect_lost("gone");
}

// No file of this process grows beyond `bytes` meanwhile: writing fails, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit lower = before_;
    lower.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &lower);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST_F(ModelServiceTest, AFullDiskIsToldWithItsReasonAndLeavesNothing) {
  const std::string bytes = ModelFile({8, 16, 32, 64, 128}, folder_->path() + "/full");
  v1::CreateModelRequest request;
  request.set_size("tiny");
  request.set_seed(1234);
  ClientContext context;
  v1::Model model;
  grpc::Status imported, created;
  {
    const FileSizeLimit limit(100000);
    imported = Import(models(), bytes, "", &model);
    created = models().CreateModel(&context, request, &model);
  }
  for (const grpc::Status& status : {imported, created}) {
    EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
    EXPECT_EQ(ReasonOf(status), "DISK_FULL");
    EXPECT_EQ(status.error_message().find(folder_->path()), std::string::npos)
        << "a path of the server is none of the client's: " << status.error_message();
  }
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
