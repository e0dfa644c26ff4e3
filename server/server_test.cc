#include "server/server.h"

#include <grpcpp/generic/generic_stub.h>

#include <future>

#include "server/service_test_fixture.h"

namespace gvsl {
namespace {

constexpr const char* kServices[] = {"gvsl.v1.VolumeService",  "gvsl.v1.ModelService",
                                     "gvsl.v1.FeatureService", "gvsl.v1.SimilarityService",
                                     "gvsl.v1.JobService",     "gvsl.v1.ServerService"};

class ServerTest : public ServiceTest {};

TEST_F(ServerTest, ItsStatusTellsWhatItHoldsAndRunsOn) {
  Store(Cube(), Id());
  const v1::ServerStatus status = service_->Status();
  EXPECT_EQ(status.version(), GVSL_VERSION);
  EXPECT_NE(status.libtorch_version(), "");
  EXPECT_EQ(status.device(), "cpu");
  EXPECT_EQ(status.threads(), 2);
  EXPECT_GE(status.volume_count(), 1);
  EXPECT_GE(status.model_count(), 1);
  int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_->path() + "/data/blobs"))
    bytes += entry.is_regular_file() ? static_cast<int64_t>(entry.file_size()) : 0;
  EXPECT_EQ(status.stored_bytes(), bytes);
  EXPECT_GT(bytes, 8192);
  EXPECT_GT(status.free_bytes(), 0);
  EXPECT_EQ(status.queue_capacity(), 64);
  EXPECT_EQ(status.default_model(), model_);
  EXPECT_FALSE(status.draining());
}

TEST(Start, ASecondServerOnTheSameFolderOrPortIsRefusedInWords) {
  const Folder folder, other;
  Service service(folder.path());
  v1::ServerConfig config;
  config.set_data_dir(folder.path());
  config.set_listen("127.0.0.1:0");
  config.set_device("cpu");
  auto second = Server::Start(config);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(second.status().message()).find("another gvsld"), std::string::npos);
  config.set_data_dir(other.path());
  config.set_listen(absl::StrCat("127.0.0.1:", service.server->port()));
  second = Server::Start(config);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.status().message()).find("listen: "), std::string::npos);
}

TEST(Start, BlobsWithoutTheirDatabaseAreRefusedAndStay) {
  const Folder folder;
  {
    Service service(folder.path());
    v1::Volume volume;
    ASSERT_OK(Upload(*service.volumes, Cube().Header("a"), Cube().voxels, &volume));
  }
  for (const char* file : {"", "-wal", "-shm"})
    fs::remove(folder.path() + "/metadata.sqlite" + file);
  const std::string digest = Sha256Of(Cube().voxels);
  v1::ServerConfig config;
  config.set_data_dir(folder.path());
  config.set_listen("127.0.0.1:0");
  config.set_device("cpu");
  for (int attempt = 0; attempt < 2; ++attempt) {  // the first one must not make an empty database
    const auto refused = Server::Start(config);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(std::string(refused.status().message()).find("metadata.sqlite is missing"),
              std::string::npos);
    EXPECT_TRUE(fs::exists(folder.path() + "/blobs/" + digest.substr(0, 2) + "/" + digest));
  }
}

TEST(Start, AnOlderDatabaseSetsLaterBlobsAsideUntilTheNewerOneIsBack) {
  const Folder folder;
  const std::string database = folder.path() + "/metadata.sqlite", older = folder.path() + "/older",
                    newer = folder.path() + "/newer";
  v1::Volume first, second;
  {
    Service service(folder.path());
    ASSERT_OK(Upload(*service.volumes, Cube().Header("a"), Cube().voxels, &first));
  }
  fs::copy_file(database, older);  // a stopped server has no write-ahead log left
  {
    Service service(folder.path());
    ASSERT_OK(Upload(*service.volumes, Cube(20).Header("b"), Cube(20).voxels, &second));
  }
  fs::rename(database, newer);

  fs::copy_file(older, database);
  {
    Service service(folder.path());
    EXPECT_EQ(service.Status().volume_count(), 1);
    EXPECT_EQ(service.Status().stored_bytes(), 8192);
  }
  EXPECT_TRUE(fs::exists(folder.path() + "/unreferenced/" + Sha256Of(Cube(20).voxels)));

  fs::rename(newer, database);
  Service service(folder.path());
  EXPECT_EQ(service.Status().volume_count(), 2);
  v1::PreviewVolumeRequest request;
  request.set_name(second.name());
  ClientContext context;
  v1::PreviewVolumeResponse preview;
  EXPECT_OK(service.volumes->PreviewVolume(&context, request, &preview));
}

TEST(Start, WhatWasStoredIsThereAfterARestart) {
  const Folder folder;
  v1::Volume volume;
  {
    Service service(folder.path());
    service.CreateTinyModel();
    ASSERT_OK(Upload(*service.volumes, Cube().Header("a"), Cube().voxels, &volume));
  }
  Service service(folder.path());
  EXPECT_EQ(service.Status().volume_count(), 1);
  EXPECT_OK(SmallWork(*service.features, volume.name()));
}

// Calls of services whose messages Debian ships in no C++ package, as bytes on the wire.
grpc::ByteBuffer Raw(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}
std::string Text(grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices)
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

// A stream of bytes, one step at a time.
class RawStream {
 public:
  RawStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
            const std::string& request)
      : stub_(channel), call_(stub_.PrepareCall(&context_, method, &queue_)) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
    call_->StartCall(nullptr);
    Step();
    call_->WriteLast(Raw(request), grpc::WriteOptions(), nullptr);
    Step();
  }
  ~RawStream() {
    context_.TryCancel();
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Step();
  }
  // The next message's bytes; "" at the end.
  std::string Read() {
    grpc::ByteBuffer buffer;
    call_->Read(&buffer, nullptr);
    return Step() ? Text(buffer) : "";
  }

 private:
  bool Step() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }
  ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

// grpc.health.v1: HealthCheckRequest { string service = 1 }, HealthCheckResponse { status = 1 }.
std::string HealthRequest(const std::string& service) {
  return service.empty() ? ""
                         : "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
}
constexpr char kServing[] = "\x08\x01", kNotServing[] = "\x08\x02", kServiceUnknown[] = "\x08\x03";

grpc::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                         std::string* answer) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  ClientContext context;
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                    Raw(HealthRequest(service)), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (status.ok()) *answer = Text(response);
  return status;
}

TEST_F(ServerTest, HealthIsServingForTheEmptyNameAndEachService) {
  std::vector<std::string> services = {""};
  services.insert(services.end(), std::begin(kServices), std::end(kServices));
  for (const std::string& service : services) {
    std::string answer;
    EXPECT_OK(CheckHealth(service_->channel, service, &answer));
    EXPECT_EQ(answer, kServing) << service;
    EXPECT_EQ(
        RawStream(service_->channel, "/grpc.health.v1.Health/Watch", HealthRequest(service)).Read(),
        kServing)
        << service;
  }
  std::string answer;
  EXPECT_EQ(CheckHealth(service_->channel, "unknown", &answer).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(
      RawStream(service_->channel, "/grpc.health.v1.Health/Watch", HealthRequest("unknown")).Read(),
      kServiceUnknown);
}

TEST_F(ServerTest, ReflectionListsEveryService) {
  // ServerReflectionRequest { string list_services = 7 }; names are plain in the answer's bytes.
  RawStream stream(service_->channel,
                   "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                   std::string("\x3a\x00", 2));
  const std::string answer = stream.Read();
  for (const char* service : kServices)
    EXPECT_NE(answer.find(service), std::string::npos) << service;
  EXPECT_NE(answer.find("grpc.health.v1.Health"), std::string::npos);
}

TEST(Drain, LetsRunningCallsFinishAndRefusesNewOnes) {
  const Folder folder;
  Service service(folder.path(), 64, 60);
  RawStream watch(service.channel, "/grpc.health.v1.Health/Watch", HealthRequest(""));
  ASSERT_EQ(watch.Read(), kServing);
  const Cube cube;
  ClientContext context;
  v1::Volume made;
  auto upload = service.volumes->CreateVolume(&context, &made);
  ASSERT_TRUE(upload->Write(cube.Header("running")));
  ASSERT_TRUE(upload->Write(ChunkOf(cube.voxels.substr(0, 1000))));
  WaitUntilHeld(*service.volumes, "running", 1000);

  auto drained = std::async(std::launch::async, [&] { service.server->Drain(); });
  EXPECT_EQ(watch.Read(), kNotServing);
  while (!service.Status().draining()) std::this_thread::yield();  // the status still answers
  std::string health;
  EXPECT_OK(CheckHealth(service.channel, "gvsl.v1.VolumeService", &health));
  EXPECT_EQ(health, kNotServing);
  v1::GetVolumeRequest get;
  get.set_name("volumes/any");
  ClientContext refused_context;
  v1::Volume volume;
  const grpc::Status refused = service.volumes->GetVolume(&refused_context, get, &volume);
  EXPECT_EQ(refused.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(refused), "DRAINING");

  EXPECT_TRUE(upload->Write(ChunkOf(cube.voxels.substr(1000))));
  upload->WriteLast(FinishWith(""), grpc::WriteOptions());
  EXPECT_OK(upload->Finish());
  drained.get();
}

TEST(Drain, CutsWhatDoesNotFinishInItsTime) {
  const Folder folder;
  Service service(folder.path(), 64, 1);
  service.CreateTinyModel();
  v1::Volume large;
  ASSERT_OK(Upload(*service.volumes, Cube(64, 4).Header("a"), Cube(64, 4).voxels, &large));
  ClientContext context;
  auto reader = service.features->ExtractDense(&context, LongWork(large.name()));
  v1::ExtractDenseResponse message;
  ASSERT_TRUE(reader->Read(&message));
  service.server->Drain();
  service.server.reset();  // returns: the work was cancelled between two windows
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace gvsl
