// libFuzzer target: bytes become files, files instances, instances volumes, as gvsl-ingest and
// gvsl-dicom-decoder do it together (scripts/fuzz builds and runs it).
//
// The input is up to eight files, each behind its length (4 bytes, little endian), so that several
// slices can meet in one stack.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "ingest/dicom_logging.h"
#include "ingest/dicom_pixels.h"
#include "ingest/series.h"

namespace gvsl {
namespace {

constexpr int kMaxFiles = 8;
constexpr int kLengthBytes = 4;
constexpr int kMaxFrames = 3;  // that are decoded of a compressed file
constexpr int64_t kMaxVolumeBytes = int64_t{32} << 20;
// A header may promise 65535 x 65535 pixels; the decoder process has a limit of its memory, and the
// fuzzer has none but that of one allocation.
constexpr int64_t kMaxFramePixels = int64_t{1} << 24;

// Memory, not a disk.
std::string MakeFolder() {
  std::string folder = "/dev/shm/gvsl-fuzz-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) std::abort();
  return folder;
}

std::vector<std::string> WriteFiles(const uint8_t* data, size_t size) {
  static const std::string folder = MakeFolder();
  std::vector<std::string> paths;
  while (size > kLengthBytes && paths.size() < kMaxFiles) {
    size_t length = 0;
    for (int i = kLengthBytes - 1; i >= 0; --i) length = length << 8 | data[i];
    data += kLengthBytes;
    size -= kLengthBytes;
    length = std::min(length, size);
    paths.push_back(folder + "/" + std::to_string(paths.size()) + ".dcm");
    std::ofstream(paths.back(), std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(length));
    data += length;
    size -= length;
  }
  return paths;
}

// What the decoder process would do.
void Decode(const DicomInstance& instance) {
  if (int64_t{instance.pixels.rows} * instance.pixels.columns > kMaxFramePixels) return;
  auto file = DicomPixelFile::Open(instance.path);
  if (!file.ok()) return;
  const int frames = std::min(static_cast<int>(instance.frames.size()), kMaxFrames);
  for (int i = 0; i < frames; ++i) (void)file->Frame(instance.frames[i].frame);
}

void Run(const uint8_t* data, size_t size) {
  std::vector<DicomInstance> native;
  for (const std::string& path : WriteFiles(data, size)) {
    DicomInstance instance = ReadDicomInstance(path);
    if (instance.verdict == Verdict::kUsed && instance.is_compressed) {
      Decode(instance);
    } else {
      native.push_back(std::move(instance));
    }
  }
  const size_t given = native.size();
  size_t told = 0;
  SeriesOptions options;
  options.max_volume_bytes = kMaxVolumeBytes;
  options.threads = 1;
  for (bool split : {false, true}) {
    options.split_at_gaps = split;
    for (const Series& series : GroupBySeries(native)) {
      const auto ledger = ConvertSeries(series, options, [](SeriesVolume volume) {
        // Every voxel is there.
        if (volume.volume.byte_count() == 0) std::abort();
        return absl::OkStatus();
      });
      if (ledger.ok()) told += ledger->size();
    }
  }
  if (told > 2 * given) std::abort();
}

}  // namespace
}  // namespace gvsl

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool silenced = (gvsl::SilenceDicomLog(), true);
  (void)silenced;
  gvsl::Run(data, size);
  return 0;
}
