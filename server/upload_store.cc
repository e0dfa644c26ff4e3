#include "server/upload_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/status_reason.h"
#include "server/blob_store.h"

namespace gvsl {
namespace fs = std::filesystem;

absl::StatusOr<std::unique_ptr<UploadStore>> UploadStore::Open(const std::string& folder) {
  if (absl::Status status = MakeFolder(folder); !status.ok()) return status;
  std::unique_ptr<UploadStore> store(new UploadStore(folder));
  // Half of the pair is what a server leaves that was killed while an upload began or ended.
  std::set<std::string> requests;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    requests.insert(entry.path().stem().string());
  }
  for (const std::string& id : requests) {
    if (fs::exists(store->HeaderPath(id), error) && fs::exists(store->PartPath(id), error))
      continue;
    fs::remove(store->HeaderPath(id), error);
    fs::remove(store->PartPath(id), error);
  }
  return store;
}

absl::Status UploadStore::Claim(const std::string& request_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (active_.insert(request_id).second) return absl::OkStatus();
  return WithReason(
      absl::AbortedError(
          "another call is writing this upload; wait for it, or take another request_id"),
      "UPLOAD_IN_USE");
}

void UploadStore::Release(const std::string& request_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  active_.erase(request_id);
}

absl::StatusOr<std::unique_ptr<UploadWriter>> UploadStore::Begin(const std::string& request_id,
                                                                 const v1::Volume& header,
                                                                 int64_t offset) {
  if (absl::Status status = Claim(request_id); !status.ok()) return status;
  std::unique_ptr<UploadWriter> writer(new UploadWriter(this, request_id));  // releases the claim
  if (absl::Status status = writer->Open(header, offset); !status.ok()) return status;
  return writer;
}

absl::StatusOr<v1::Upload> UploadStore::Get(const std::string& request_id) {
  std::error_code error;
  const auto size = fs::file_size(PartPath(request_id), error);
  v1::Volume header;
  std::ifstream in(HeaderPath(request_id), std::ios::binary);
  if (error || !in || !header.ParseFromIstream(&in)) {
    return WithReason(
        absl::NotFoundError("there is no unfinished upload of this request_id; begin at offset 0"),
        "UPLOAD_NOT_FOUND");
  }
  v1::Upload upload;
  upload.set_name("uploads/" + request_id);
  upload.set_received_bytes(static_cast<int64_t>(size));
  upload.set_total_bytes(header.voxel_bytes());
  return upload;
}

absl::Status UploadStore::Delete(const std::string& request_id) {
  if (absl::Status status = Claim(request_id); !status.ok()) return status;
  absl::Status status = Get(request_id).status();
  std::error_code error;
  fs::remove(HeaderPath(request_id), error);
  fs::remove(PartPath(request_id), error);
  Release(request_id);
  return status;
}

void UploadStore::Expire(int64_t seconds) {
  std::error_code error;
  const auto oldest = fs::file_time_type::clock::now() - std::chrono::seconds(seconds);
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const auto time = entry.last_write_time(error);
    if (error || time >= oldest) continue;
    const std::string request_id = entry.path().stem().string();
    if (!Claim(request_id).ok()) continue;
    // The header is written once; the part tells when the upload last moved.
    const auto part_time = fs::last_write_time(PartPath(request_id), error);
    if (error || part_time < oldest) {
      fs::remove(HeaderPath(request_id), error);
      fs::remove(PartPath(request_id), error);
    }
    Release(request_id);
  }
}

UploadWriter::~UploadWriter() {
  if (file_ >= 0) close(file_);
  store_->Release(request_id_);
}

absl::Status UploadWriter::Open(const v1::Volume& header, int64_t offset) {
  type_ = FromProto(header.voxel_type());
  auto grid = FromProto(header.grid());
  if (!grid.ok()) return grid.status();
  grid_ = *grid;
  total_ = grid_.voxel_count() * static_cast<int64_t>(BytesPerVoxel(type_));
  const std::string part = store_->PartPath(request_id_),
                    header_path = store_->HeaderPath(request_id_);
  std::error_code unknown;
  const auto free_bytes = fs::space(part.substr(0, part.rfind('/')), unknown).available;
  if (!unknown && free_bytes < static_cast<uint64_t>(std::max<int64_t>(total_ - offset, 0))) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat(
                          "the volume needs ", total_ - offset, " more bytes and the server has ",
                          free_bytes, "; free space on the server's data folder")),
                      "DISK_FULL");
  }
  v1::Volume kept = header;
  kept.set_voxel_bytes(total_);
  const std::string wanted = kept.SerializeAsString();
  std::ifstream in(header_path, std::ios::binary);
  const std::string held((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!held.empty() && held != wanted) {
    return WithReason(
        absl::AlreadyExistsError("header.request_id: an unfinished upload of another volume has "
                                 "it; take a new one, or give that upload up with DeleteUpload"),
        "REQUEST_ID_REUSED");
  }
  if (offset > 0) {
    struct stat about = {};
    const int64_t size = stat(part.c_str(), &about) == 0 ? about.st_size : 0;
    if (held.empty() || size != offset) {
      return WithReason(
          absl::AbortedError(absl::StrCat("header.offset: the server holds ",
                                          held.empty() ? 0 : size, " bytes of this upload, not ",
                                          offset, "; ask GetUpload and go on from there")),
          "OFFSET_MISMATCH");
    }
  } else {
    // The old bytes go before the new header comes: a header never stands beside another's bytes.
    std::error_code error;
    fs::remove(part, error);
    std::ofstream out(header_path, std::ios::binary | std::ios::trunc);
    if (!out.write(wanted.data(), static_cast<std::streamsize>(wanted.size())).flush()) {
      return WriteError("cannot begin the upload", errno != 0 ? errno : EIO);
    }
  }
  file_ = open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (offset > 0 ? 0 : O_TRUNC), 0640);
  if (file_ < 0) return WriteError("cannot begin the upload", errno);
  // What an earlier call left is counted again: the digest goes over every byte.
  std::vector<uint8_t> buffer(static_cast<size_t>(std::min<int64_t>(offset, 1 << 20)));
  for (int64_t at = 0; at < offset;) {
    const ssize_t got = pread(file_, buffer.data(),
                              static_cast<size_t>(std::min<int64_t>(offset - at, 1 << 20)), at);
    if (got <= 0)
      return absl::DataLossError("the upload's bytes cannot be read again; begin at offset 0");
    if (absl::Status status = Account(buffer.data(), static_cast<size_t>(got)); !status.ok())
      return status;
    at += got;
  }
  received_ = offset;
  return absl::OkStatus();
}

absl::Status UploadWriter::Account(const uint8_t* data, size_t size) {
  digest_.Update(data, size);
  return VisitVoxelType(type_, [&](auto zero) -> absl::Status {
    using T = decltype(zero);
    double low = voxels_ > 0 ? min_ : INFINITY, high = voxels_ > 0 ? max_ : -INFINITY;
    const auto count = [&](const T* values, size_t n) -> absl::Status {
      T least = values[0], greatest = values[0];
      for (size_t i = 0; i < n; ++i) {
        if constexpr (std::is_floating_point_v<T>) {
          if (!std::isfinite(values[i])) {
            const int64_t v = voxels_ + static_cast<int64_t>(i);
            return WithReason(
                absl::InvalidArgumentError(absl::StrCat(
                    "voxel (", v % grid_.size[0], ", ", v / grid_.size[0] % grid_.size[1], ", ",
                    v / (grid_.size[0] * grid_.size[1]),
                    ") is not a finite number; replace NaN and infinity first")),
                "NON_FINITE_VOXELS");
          }
        }
        least = std::min(least, values[i]);
        greatest = std::max(greatest, values[i]);
      }
      low = std::min(low, static_cast<double>(least));
      high = std::max(high, static_cast<double>(greatest));
      voxels_ += static_cast<int64_t>(n);
      return absl::OkStatus();
    };
    // A voxel that the last chunk cut is completed first.
    if (!partial_voxel_.empty()) {
      const size_t missing = std::min(sizeof(T) - partial_voxel_.size(), size);
      partial_voxel_.append(reinterpret_cast<const char*>(data), missing);
      data += missing;
      size -= missing;
      if (partial_voxel_.size() < sizeof(T)) return absl::OkStatus();
      T value;
      std::memcpy(&value, partial_voxel_.data(), sizeof(T));
      partial_voxel_.clear();
      if (absl::Status status = count(&value, 1); !status.ok()) return status;
    }
    const size_t whole = size / sizeof(T);
    if (whole > 0) {
      const T* values = reinterpret_cast<const T*>(data);
      std::vector<T> aligned;
      if (reinterpret_cast<uintptr_t>(data) % alignof(T) != 0) {
        aligned.resize(whole);
        std::memcpy(aligned.data(), data, whole * sizeof(T));
        values = aligned.data();
      }
      if (absl::Status status = count(values, whole); !status.ok()) return status;
    }
    partial_voxel_.assign(reinterpret_cast<const char*>(data) + whole * sizeof(T),
                          size - whole * sizeof(T));
    min_ = low;
    max_ = high;
    return absl::OkStatus();
  });
}

absl::Status UploadWriter::Append(const std::string& data, uint32_t crc) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  if (ChecksumOf(data) != crc) {
    return WithReason(absl::DataLossError(
                          absl::StrCat("the chunk at byte ", received_,
                                       " is not what its checksum says; send it again from there")),
                      "CHECKSUM_MISMATCH");
  }
  if (static_cast<int64_t>(data.size()) > total_ - received_) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat("chunk.data: more bytes than the ",
                                                              total_, " that the volume has")),
                      "TOO_MANY_BYTES");
  }
  if (absl::Status status = Account(bytes, data.size()); !status.ok()) return status;
  for (size_t at = 0; at < data.size();) {
    const ssize_t written =
        pwrite(file_, data.data() + at, data.size() - at, received_ + static_cast<int64_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const absl::Status status = WriteError("cannot keep the voxels", errno);
      // Half a chunk is none: the file ends where the last whole one did.
      if (ftruncate(file_, received_) != 0) Discard();
      return status;
    }
    at += static_cast<size_t>(written);
  }
  received_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

absl::StatusOr<UploadWriter::Voxels> UploadWriter::Finish(const std::string& sha256) {
  if (received_ != total_) {
    return absl::DataLossError(absl::StrCat("the upload was finished with ", received_, " of ",
                                            total_, " bytes; send the rest from there"));
  }
  Voxels voxels;
  voxels.path = store_->PartPath(request_id_);
  voxels.sha256 = digest_.Finish();
  voxels.min = min_;
  voxels.max = max_;
  if (!sha256.empty() && sha256 != voxels.sha256) {
    Discard();
    return WithReason(
        absl::DataLossError(
            "the voxels are not those that finish.voxels_sha256 names; the upload was "
            "dropped, send it again from the beginning"),
        "CHECKSUM_MISMATCH");
  }
  return voxels;
}

void UploadWriter::Discard() {
  std::error_code error;
  fs::remove(store_->HeaderPath(request_id_), error);
  fs::remove(store_->PartPath(request_id_), error);
}

}  // namespace gvsl
