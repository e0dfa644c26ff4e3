// What the tests of the services share: a real server in this process, spoken to through real
// sockets by the stubs that any client has.
#ifndef GVSL_SERVER_SERVICE_TEST_FIXTURE_H_
#define GVSL_SERVER_SERVICE_TEST_FIXTURE_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "google/rpc/error_details.pb.h"
#include "gvsl/v1/features.grpc.pb.h"
#include "gvsl/v1/jobs.grpc.pb.h"
#include "gvsl/v1/models.grpc.pb.h"
#include "gvsl/v1/server.grpc.pb.h"
#include "gvsl/v1/similarity.grpc.pb.h"
#include "gvsl/v1/volumes.grpc.pb.h"
#include "imaging/sha256.h"
#include "model/model_file.h"
#include "server/server.h"

namespace gvsl {

namespace fs = std::filesystem;
using grpc::ClientContext;
using grpc::StatusCode;

constexpr size_t kMebibyte = 1 << 20;

template <typename Detail>
Detail DetailOf(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  Detail detail;
  for (const auto& any : details.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  return Detail();
}
inline std::string ReasonOf(const grpc::Status& status) {
  return DetailOf<google::rpc::ErrorInfo>(status).reason();
}
inline std::string FieldOf(const grpc::Status& status) {
  const auto bad = DetailOf<google::rpc::BadRequest>(status);
  return bad.field_violations_size() > 0 ? bad.field_violations(0).field() : "";
}

#define EXPECT_OK(call)                                   \
  do {                                                    \
    const grpc::Status status_ = (call);                  \
    EXPECT_TRUE(status_.ok()) << status_.error_message(); \
  } while (false)
#define ASSERT_OK(call)                                   \
  do {                                                    \
    const grpc::Status status_ = (call);                  \
    ASSERT_TRUE(status_.ok()) << status_.error_message(); \
  } while (false)

// A folder that is gone when the test is.
class Folder {
 public:
  Folder()
      : path_(testing::TempDir() + "/server_test." + std::to_string(getpid()) + "." +
              std::to_string(++count_)) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  inline static int count_ = 0;
  const std::string path_;
};

struct Service {
  explicit Service(const std::string& folder, int queue_capacity = 64, int drain_timeout_s = 30,
                   const std::string& trainer = "", const v1::ServerConfig& others = {}) {
    v1::ServerConfig config;
    config.set_data_dir(folder);
    config.set_listen("127.0.0.1:0");
    config.set_device("cpu");
    config.set_threads(2);
    config.set_queue_capacity(queue_capacity);
    config.set_memory_limit_mib(2048);
    config.set_drain_timeout_s(drain_timeout_s);
    config.set_upload_expiry_h(24);
    config.set_trainer(trainer);
    config.set_concurrent_jobs(1);
    config.set_job_restarts(5);
    config.set_exact_search_up_to(20000);
    config.set_search_effort(128);
    config.set_search_memory_mib(512);
    config.mutable_rerank_weights()->set_ncc(1);
    config.mutable_rerank_weights()->set_features(1);
    config.mutable_rerank_weights()->set_deformation(1);
    config.MergeFrom(others);
    auto started = Server::Start(config);
    EXPECT_TRUE(started.ok()) << started.status();
    if (!started.ok()) return;
    server = *std::move(started);
    channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->port()),
                                  grpc::InsecureChannelCredentials());
    volumes = v1::VolumeService::NewStub(channel);
    models = v1::ModelService::NewStub(channel);
    features = v1::FeatureService::NewStub(channel);
    similarity = v1::SimilarityService::NewStub(channel);
    jobs = v1::JobService::NewStub(channel);
    status = v1::ServerService::NewStub(channel);
  }

  v1::ServerStatus Status() {
    ClientContext context;
    v1::ServerStatus answer;
    EXPECT_OK(status->GetServerStatus(&context, {}, &answer));
    return answer;
  }
  void WaitForQueue(int length) {
    while (Status().queue_length() != length) std::this_thread::yield();
  }
  std::string CreateTinyModel(uint64_t seed = 1) {
    v1::CreateModelRequest request;
    request.set_size("tiny");
    request.set_seed(seed);
    ClientContext context;
    v1::Model model;
    EXPECT_OK(models->CreateModel(&context, request, &model));
    return model.name();
  }

  std::unique_ptr<Server> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::VolumeService::Stub> volumes;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<v1::FeatureService::Stub> features;
  std::unique_ptr<v1::SimilarityService::Stub> similarity;
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::ServerService::Stub> status;
};

// Random int16 voxels on a cube, 1 mm unless said otherwise.
struct Cube {
  explicit Cube(int side = 16, double spacing_mm = 1, uint32_t seed = 1) {
    grid.size = {side, side, side};
    grid.spacing_mm = {spacing_mm, spacing_mm, spacing_mm};
    grid.origin_mm = {-7, 11, 13};
    std::mt19937 random(seed);
    for (int64_t i = 0; i < grid.voxel_count(); ++i) {
      const auto value = static_cast<int16_t>(random() % 2000);
      voxels.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
  }
  v1::CreateVolumeRequest Header(const std::string& request_id) const {
    v1::CreateVolumeRequest request;
    auto* header = request.mutable_header();
    header->set_request_id(request_id);
    header->mutable_volume()->set_display_name("cube");
    header->mutable_volume()->set_kind(v1::Volume::IMAGE);
    header->mutable_volume()->set_voxel_type(v1::Volume::INT16);
    *header->mutable_volume()->mutable_grid() = ToProto(grid);
    return request;
  }
  Grid grid;
  std::string voxels;
};

inline v1::CreateVolumeRequest ChunkOf(const std::string& data) {
  v1::CreateVolumeRequest request;
  request.mutable_chunk()->set_data(data);
  request.mutable_chunk()->set_crc32(ChecksumOf(data));
  return request;
}

inline v1::CreateVolumeRequest FinishWith(const std::string& sha256) {
  v1::CreateVolumeRequest request;
  request.mutable_finish()->set_voxels_sha256(sha256);
  return request;
}

// Sends messages and half-closes; the status and what was made.
inline grpc::Status Send(v1::VolumeService::Stub& stub,
                         const std::vector<v1::CreateVolumeRequest>& parts, v1::Volume* made) {
  ClientContext context;
  auto writer = stub.CreateVolume(&context, made);
  for (const auto& part : parts) {
    if (!writer->Write(part)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

// Returns once the server holds so many bytes of an unfinished upload: its call has begun.
inline void WaitUntilHeld(v1::VolumeService::Stub& stub, const std::string& id, int64_t bytes) {
  v1::GetUploadRequest request;
  request.set_name("uploads/" + id);
  v1::Upload upload;
  while (upload.received_bytes() < bytes) {
    ClientContext context;
    stub.GetUpload(&context, request, &upload);
  }
}

// A whole upload: header, chunks of at most `chunk` bytes, finish.
inline grpc::Status Upload(v1::VolumeService::Stub& stub, const v1::CreateVolumeRequest& header,
                           const std::string& voxels, v1::Volume* made, size_t chunk = 100000) {
  std::vector<v1::CreateVolumeRequest> parts = {header};
  for (size_t at = 0; at < voxels.size(); at += chunk)
    parts.push_back(ChunkOf(voxels.substr(at, chunk)));
  parts.push_back(FinishWith(Sha256Of(voxels)));
  return Send(stub, parts, made);
}

// The bytes of an untrained model's file of these widths; the file itself is gone afterwards.
inline std::string ModelFile(const std::array<int64_t, 5>& widths, const std::string& path) {
  ModelCard card;
  card.size = SizeOf(widths);
  card.widths = widths;
  EXPECT_TRUE(CreateModelFile(card, 99, path).ok());
  std::ifstream in(path, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  fs::remove(path);
  return bytes;
}

inline grpc::Status Import(v1::ModelService::Stub& stub, const std::string& bytes,
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

struct Dense {
  grpc::Status status;
  v1::ExtractDenseResponse::Header header;
  std::string bytes;
};
inline Dense ExtractDense(v1::FeatureService::Stub& stub, const v1::ExtractDenseRequest& request) {
  ClientContext context;
  auto reader = stub.ExtractDense(&context, request);
  Dense dense;
  v1::ExtractDenseResponse message;
  while (reader->Read(&message)) {
    EXPECT_LE(message.ByteSizeLong(), kMebibyte);
    if (message.has_header()) dense.header = message.header();
    EXPECT_EQ(message.has_header(), dense.bytes.empty() && !message.has_chunk());
    EXPECT_EQ(ChecksumOf(message.chunk().data()), message.chunk().crc32());
    dense.bytes += message.chunk().data();
  }
  dense.status = reader->Finish();
  return dense;
}

inline std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// Hundreds of thousands of windows: minutes of work, which no test waits for.
inline v1::ExtractDenseRequest LongWork(const std::string& volume) {
  v1::ExtractDenseRequest request;
  request.set_volume(volume);
  request.mutable_window()->set_window(16);
  request.mutable_window()->set_overlap(0.75);
  return request;
}

// The device is free when a small request is answered within a minute.
inline grpc::Status SmallWork(v1::FeatureService::Stub& stub, const std::string& volume) {
  v1::ExtractGlobalRequest request;
  request.add_volumes(volume);
  request.mutable_window()->set_window(16);
  ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
  v1::ExtractGlobalResponse answer;
  return stub.ExtractGlobal(&context, request, &answer);
}

// One server for the tests of a suite, with a tiny model.
class ServiceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new Folder;
    service_ = new Service(folder_->path() + "/data");
    ASSERT_NE(service_->server, nullptr);
    model_ = service_->CreateTinyModel();
  }
  static void TearDownTestSuite() {
    delete service_;
    delete folder_;
  }
  static v1::VolumeService::Stub& volumes() { return *service_->volumes; }
  static v1::ModelService::Stub& models() { return *service_->models; }
  static v1::FeatureService::Stub& features() { return *service_->features; }

  // A request id of the running test's own.
  static std::string Id(const std::string& suffix = "") {
    return testing::UnitTest::GetInstance()->current_test_info()->name() + suffix;
  }
  static v1::Volume Store(const Cube& cube, const std::string& id) {
    v1::Volume made;
    EXPECT_OK(Upload(volumes(), cube.Header(id), cube.voxels, &made));
    return made;
  }
  static v1::Upload Held(const std::string& id) {
    v1::GetUploadRequest request;
    request.set_name("uploads/" + id);
    ClientContext context;
    v1::Upload upload;
    EXPECT_OK(volumes().GetUpload(&context, request, &upload));
    return upload;
  }
  static grpc::Status Get(const std::string& name, v1::Volume* volume) {
    v1::GetVolumeRequest request;
    request.set_name(name);
    ClientContext context;
    return volumes().GetVolume(&context, request, volume);
  }
  static grpc::Status Delete(const std::string& name) {
    v1::DeleteVolumeRequest request;
    request.set_name(name);
    ClientContext context;
    google::protobuf::Empty empty;
    return volumes().DeleteVolume(&context, request, &empty);
  }
  static grpc::Status Download(const std::string& name, int64_t offset, std::string* bytes,
                               v1::Volume* volume = nullptr) {
    v1::DownloadVolumeRequest request;
    request.set_name(name);
    request.set_offset(offset);
    ClientContext context;
    auto reader = volumes().DownloadVolume(&context, request);
    v1::DownloadVolumeResponse message;
    while (reader->Read(&message)) {
      EXPECT_LE(message.ByteSizeLong(), kMebibyte);
      if (message.has_volume() && volume != nullptr) *volume = message.volume();
      EXPECT_EQ(ChecksumOf(message.chunk().data()), message.chunk().crc32());
      *bytes += message.chunk().data();
    }
    return reader->Finish();
  }
  static int BlobFiles() {
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_->path() + "/data/blobs"))
      files += entry.is_regular_file();
    return files;
  }
  static v1::WindowOptions SmallWindow() {
    v1::WindowOptions window;
    window.set_window(16);
    return window;
  }

  inline static Folder* folder_ = nullptr;
  inline static Service* service_ = nullptr;
  inline static std::string model_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_SERVICE_TEST_FIXTURE_H_
