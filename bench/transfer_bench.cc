// Upload and download of a CT's voxels: gvsld beside a bare gRPC stream of the same messages.
//
//   gvsl_transfer_bench bare                                     serves the bare stream; prints its
//   address gvsl_transfer_bench measure BARE_ADDRESS GVSLD_ADDRESS [MIB] interleaved runs, a
//   Markdown table
//
// The bare server reads and drops uploads and answers downloads from one buffer: no checksum, no
// hash, no disk. Both servers are processes of their own; bench/transfer starts them.
#include <grpcpp/grpcpp.h>
#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gvsl/v1/volumes.grpc.pb.h"

namespace {

using gvsl::v1::CreateVolumeRequest;
using gvsl::v1::DownloadVolumeRequest;
using gvsl::v1::DownloadVolumeResponse;
using gvsl::v1::VolumeService;

constexpr size_t kChunkBytes = (1 << 20) - 1024;
constexpr int64_t kSliceBytes = 512 * 512 * 2;
constexpr int kRuns = 5;

class BareService final : public VolumeService::Service {
  grpc::Status CreateVolume(grpc::ServerContext*, grpc::ServerReader<CreateVolumeRequest>* reader,
                            gvsl::v1::Volume* response) override {
    CreateVolumeRequest request;
    int64_t bytes = 0;
    while (reader->Read(&request)) bytes += static_cast<int64_t>(request.chunk().data().size());
    bytes_ = bytes;
    response->set_voxel_bytes(bytes);
    return grpc::Status::OK;
  }

  grpc::Status DownloadVolume(grpc::ServerContext*, const DownloadVolumeRequest*,
                              grpc::ServerWriter<DownloadVolumeResponse>* writer) override {
    DownloadVolumeResponse response;
    response.mutable_chunk()->mutable_data()->assign(kChunkBytes, 'x');
    for (int64_t sent = 0; sent < bytes_; sent += kChunkBytes) {
      if (!writer->Write(response)) return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  }

  int64_t bytes_ = 0;  // of the last upload
};

int ServeBare() {
  BareService service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::printf("127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server->Wait();
  return 0;
}

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "gvsl_transfer_bench: %s\n", what.c_str());
  std::exit(1);
}

// Uploads; returns the name that the server gave. `checksums` as gvsld demands them.
std::string Upload(VolumeService::Stub& stub, const std::string& voxels, bool checksums) {
  static int request = 0;
  grpc::ClientContext context;
  gvsl::v1::Volume volume;
  auto writer = stub.CreateVolume(&context, &volume);
  CreateVolumeRequest message;
  auto* header = message.mutable_header();
  header->set_request_id("bench-" + std::to_string(std::random_device()()) + "-" +
                         std::to_string(request++));
  header->mutable_volume()->set_voxel_type(gvsl::v1::Volume::INT16);
  auto* grid = header->mutable_volume()->mutable_grid();
  for (int64_t size :
       {int64_t{512}, int64_t{512}, static_cast<int64_t>(voxels.size()) / kSliceBytes}) {
    grid->add_size(size);
    grid->add_spacing_mm(0.7);
    grid->add_origin_mm(0);
  }
  for (int i = 0; i < 9; ++i) grid->add_direction(i % 4 == 0 ? 1 : 0);
  if (!writer->Write(message)) Die("upload refused: " + writer->Finish().error_message());
  for (size_t at = 0; at < voxels.size(); at += kChunkBytes) {
    const size_t count = std::min(kChunkBytes, voxels.size() - at);
    message.mutable_chunk()->set_data(voxels.data() + at, count);
    if (checksums) {
      message.mutable_chunk()->set_crc32(static_cast<uint32_t>(
          crc32(0, reinterpret_cast<const Bytef*>(voxels.data() + at), static_cast<uInt>(count))));
    }
    if (!writer->Write(message)) Die("upload broke off: " + writer->Finish().error_message());
  }
  message.mutable_finish();
  writer->WriteLast(message, grpc::WriteOptions());
  const grpc::Status status = writer->Finish();
  if (!status.ok()) Die("upload failed: " + status.error_message());
  return volume.name();
}

void Download(VolumeService::Stub& stub, const std::string& name, size_t bytes, bool checksums) {
  grpc::ClientContext context;
  DownloadVolumeRequest request;
  request.set_name(name);
  auto reader = stub.DownloadVolume(&context, request);
  DownloadVolumeResponse response;
  size_t received = 0;
  while (reader->Read(&response)) {
    const std::string& data = response.chunk().data();
    if (checksums && response.has_chunk() &&
        crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())) !=
            response.chunk().crc32()) {
      Die("a chunk's checksum is wrong");
    }
    received += data.size();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) Die("download failed: " + status.error_message());
  if (received < bytes) Die("download was short");
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::unique_ptr<VolumeService::Stub> Connect(const std::string& address) {
  return VolumeService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
}

int Measure(const std::string& bare_address, const std::string& gvsld_address, int64_t mib) {
  const auto bare = Connect(bare_address);
  const auto gvsld = Connect(gvsld_address);
  std::string voxels(static_cast<size_t>(mib << 20) / kSliceBytes * kSliceBytes, '\0');
  std::mt19937_64 random(1);
  std::vector<double> times[4];
  for (int run = 0; run <= kRuns; ++run) {  // the first run warms up and is not counted
    // New content every run: an old blob would be recognised.
    for (size_t at = 0; at + 8 <= voxels.size(); at += 8)
      *reinterpret_cast<uint64_t*>(&voxels[at]) = random();
    std::string name;
    const double seconds[4] = {
        Seconds([&] { Upload(*bare, voxels, false); }),
        Seconds([&] { name = Upload(*gvsld, voxels, true); }),
        Seconds([&] { Download(*bare, "", voxels.size(), false); }),
        Seconds([&] { Download(*gvsld, name, voxels.size(), true); }),
    };
    grpc::ClientContext context;
    gvsl::v1::DeleteVolumeRequest request;
    google::protobuf::Empty empty;
    request.set_name(name);
    if (!gvsld->DeleteVolume(&context, request, &empty).ok()) Die("delete failed");
    for (int i = 0; run > 0 && i < 4; ++i) times[i].push_back(seconds[i]);
  }
  const double megabytes = static_cast<double>(voxels.size()) / 1e6;
  std::printf("%.0f MB of voxels, chunks of %zu bytes, median of %d runs\n\n", megabytes,
              kChunkBytes, kRuns);
  std::printf("| | bare gRPC stream, MB/s | gvsld, MB/s | gvsld / bare |\n|---|---|---|---|\n");
  for (int i : {0, 2}) {
    const double bare_rate = megabytes / Median(times[i]);
    const double gvsld_rate = megabytes / Median(times[i + 1]);
    std::printf("| %s | %.0f | %.0f | %.2f |\n", i == 0 ? "upload" : "download", bare_rate,
                gvsld_rate, gvsld_rate / bare_rate);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "bare" && argc == 2) return ServeBare();
  if (verb == "measure" && (argc == 4 || argc == 5)) {
    const int64_t mib = argc == 5 ? std::atoll(argv[4]) : 512;
    if (mib >= 1 && mib <= 8192) return Measure(argv[2], argv[3], mib);
  }
  std::fprintf(stderr,
               "usage: gvsl_transfer_bench bare\n"
               "       gvsl_transfer_bench measure BARE_ADDRESS GVSLD_ADDRESS [MIB 1..8192]\n");
  return 2;
}
