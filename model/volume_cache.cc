#include "model/volume_cache.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/sha256.h"
#include "imaging/status_reason.h"
#include "model/mapped_file.h"
#include "model/preprocessor.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'G', 'V', 'S', 'L', 'H', 'A', 'L', 'F'};
constexpr int64_t kSlab = 8;  // slices preprocessed at a time
// A file aside that nobody has written to for so long was left by a process that was killed.
constexpr std::chrono::hours kAbandoned{1};

struct Header {
  char magic[8];
  int64_t size[3];  // D, H, W
};

int64_t FileBytes(const std::array<int64_t, 3>& size) {
  return static_cast<int64_t>(sizeof(Header)) + 2 * size[0] * size[1] * size[2];
}

absl::Status Write(const SourceVolume& source, const Preprocessor& preprocessor,
                   const std::string& path) {
  const Grid& grid = preprocessor.grid();
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  for (int i = 0; i < 3; ++i) header.size[i] = grid.size[2 - i];
  absl::Status status = file.Write(&header, sizeof(header), 0);
  const int64_t plane = grid.size[0] * grid.size[1];
  std::vector<float> values;
  std::vector<c10::Half> halves;
  for (int64_t z = 0; z < grid.size[2] && status.ok(); z += kSlab) {
    const int64_t depth = std::min(kSlab, grid.size[2] - z);
    values.resize(static_cast<size_t>(depth * plane));
    preprocessor.Box({0, 0, z}, {grid.size[0], grid.size[1], depth}, values.data());
    halves.assign(values.begin(), values.end());
    status = file.Write(halves.data(), halves.size() * 2,
                        static_cast<int64_t>(sizeof(header)) + 2 * z * plane);
  }
  if (status.ok()) status = file.Commit();
  if (status.ok()) return status;
  return WithReason(
      absl::Status(status.code(), absl::StrCat("caching ", source.name, ": ", status.message())),
      ReasonOf(status).empty() ? "CACHE_FAILED" : ReasonOf(status).c_str());
}

}  // namespace

std::string CacheKey(const SourceVolume& source, const ModelCard& card) {
  const Grid& grid = source.grid;
  std::string text =
      absl::StrCat("1 ", source.voxels_sha256, " ", VoxelTypeName(source.type), " ",
                   source.modality == "CT" ? "CT" : "other", " ", PreprocessingDigest(card));
  const auto add = [&](double value) {
    char bits[8];
    std::memcpy(bits, &value, 8);
    text.append(bits, 8);
  };
  for (int i = 0; i < 3; ++i) {
    add(static_cast<double>(grid.size[i]));
    add(grid.spacing_mm[i]);
    add(grid.origin_mm[i]);
    for (int j = 0; j < 3; ++j) add(grid.direction[i][j]);
  }
  return Sha256Of(text);
}

void CachedVolume::Read(const std::array<int64_t, 3>& begin, const std::array<int64_t, 3>& side,
                        float* out) const {
  std::fill(out, out + side[0] * side[1] * side[2], 0.0f);
  std::array<int64_t, 3> low, high;
  for (int i = 0; i < 3; ++i) {
    low[i] = std::max<int64_t>(begin[i], 0);
    high[i] = std::min(begin[i] + side[i], size_[i]);
    if (low[i] >= high[i]) return;
  }
  const auto* voxels = reinterpret_cast<const c10::Half*>(file_->data() + sizeof(Header));
  for (int64_t z = low[0]; z < high[0]; ++z) {
    for (int64_t y = low[1]; y < high[1]; ++y) {
      const c10::Half* from = voxels + (z * size_[1] + y) * size_[2];
      float* to = out + ((z - begin[0]) * side[1] + y - begin[1]) * side[2] - begin[2];
      for (int64_t x = low[2]; x < high[2]; ++x) to[x] = from[x];
    }
  }
}

VolumeCache::VolumeCache(std::string folder, int64_t limit_bytes)
    : folder_(std::move(folder)), limit_bytes_(limit_bytes) {}

absl::StatusOr<std::shared_ptr<const CachedVolume>> VolumeCache::Get(const SourceVolume& source,
                                                                     const ModelCard& card) {
  if (absl::Status status = MakeFolders(folder_); !status.ok()) return status;
  const std::string name = CacheKey(source, card) + ".f16",
                    path = (fs::path(folder_) / name).string();
  auto cached = Map(path);
  if (absl::IsNotFound(cached.status()) || absl::IsDataLoss(cached.status())) {
    if (absl::Status status = Make(source, card, path); !status.ok()) return status;
    cached = Map(path);
  }
  if (!cached.ok()) {
    return absl::Status(cached.status().code(),
                        absl::StrCat("the cached form of ", source.name, ": ",
                                     std::string(cached.status().message())));
  }
  std::error_code error;
  fs::last_write_time(path, fs::file_time_type::clock::now(), error);  // used now
  if (used_.insert(name).second) used_bytes_ += static_cast<int64_t>((*cached)->file_->size());
  return std::shared_ptr<const CachedVolume>(*std::move(cached));
}

absl::StatusOr<std::shared_ptr<CachedVolume>> VolumeCache::Map(const std::string& path) {
  auto mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  auto cached = std::make_shared<CachedVolume>();
  cached->file_ = *mapped;
  Header header{};
  if (cached->file_->size() >= sizeof(header)) {
    std::memcpy(&header, cached->file_->data(), sizeof(header));
  }
  std::copy(header.size, header.size + 3, cached->size_.begin());
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 ||
      static_cast<int64_t>(cached->file_->size()) != FileBytes(cached->size_)) {
    return absl::DataLossError("it is damaged");
  }
  return cached;
}

absl::Status VolumeCache::Make(const SourceVolume& source, const ModelCard& card,
                               const std::string& path) {
  const auto named = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(source.name, ": ", status.message()));
  };
  auto volume = Volume::Map(source.path, source.grid, source.type, VolumeKind::kImage);
  if (!volume.ok()) return named(volume.status());
  volume->set_modality(source.modality);
  auto preprocessor = Preprocessor::Make(*volume, card);
  if (!preprocessor.ok()) return named(preprocessor.status());
  const auto& size = preprocessor->grid().size;
  absl::Status status = MakeRoom(FileBytes({size[2], size[1], size[0]}));
  return status.ok() ? Write(source, *preprocessor, path) : status;
}

absl::Status VolumeCache::MakeRoom(int64_t bytes) {
  if (limit_bytes_ <= 0) return absl::OkStatus();
  if (used_bytes_ + bytes > limit_bytes_) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat(
            "the job's volumes need more than the ", limit_bytes_ >> 20,
            " MiB that the cache of preprocessed volumes may take; raise its limit, or use "
            "fewer volumes or a coarser spacing")),
        "CACHE_TOO_SMALL");
  }
  struct Entry {
    fs::file_time_type time;
    fs::path path;
    int64_t bytes;
  };
  RemoveAsideFiles(folder_, kAbandoned);
  std::vector<Entry> others;
  int64_t total = used_bytes_ + bytes;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder_, error)) {
    const std::string name = item.path().filename().string();
    const bool aside = IsAsideName(name);  // another process is writing it: it takes room, too
    if ((item.path().extension() != ".f16" && !aside) || used_.count(name) > 0) continue;
    Entry entry{item.last_write_time(error), item.path(),
                static_cast<int64_t>(item.file_size(error))};
    if (error) continue;  // another process has just removed it
    total += entry.bytes;
    if (!aside) others.push_back(std::move(entry));
  }
  std::sort(others.begin(), others.end(),
            [](const Entry& a, const Entry& b) { return a.time < b.time; });
  for (const Entry& entry : others) {
    if (total <= limit_bytes_) break;
    // Whoever has it mapped keeps it until he lets go.
    fs::remove(entry.path, error);
    total -= entry.bytes;
  }
  return absl::OkStatus();
}

}  // namespace gvsl
