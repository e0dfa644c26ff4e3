#include "trainer/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/crc.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"
#include "tensorboard.pb.h"

namespace gvsl {
namespace {

double WallTime() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// CRC-32C (Castagnoli), rotated and offset as the format wants it.
uint32_t MaskedCrc(const void* data, size_t size) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(data, size);
  const uint32_t value = crc.checksum();
  return ((value >> 15) | (value << 17)) + 0xA282EAD8u;
}

absl::Status Failed(int error) {
  const std::string message = absl::StrCat("TensorBoard file: ", std::strerror(error));
  if (IsDiskFull(error)) return WithReason(absl::ResourceExhaustedError(message), "DISK_FULL");
  return absl::InternalError(message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorboardWriter>> TensorboardWriter::Open(
    const std::string& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  // The process id tells two starts within a second apart.
  const std::string path = absl::StrCat(folder, "/events.out.tfevents.",
                                        static_cast<int64_t>(WallTime()), ".gvsl.", getpid());
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (file < 0) return Failed(errno);
  std::unique_ptr<TensorboardWriter> writer(new TensorboardWriter(file));
  tensorboard::Event event;
  event.set_wall_time(WallTime());
  event.set_file_version("brain.Event:2");
  if (absl::Status status = writer->Record(event.SerializeAsString()); !status.ok()) return status;
  return writer;
}

TensorboardWriter::~TensorboardWriter() { close(file_); }

absl::Status TensorboardWriter::Scalars(int64_t step,
                                        const std::vector<std::pair<std::string, double>>& values) {
  tensorboard::Event event;
  event.set_wall_time(WallTime());
  event.set_step(step);
  for (const auto& [tag, value] : values) {
    tensorboard::Value* entry = event.mutable_summary()->add_value();
    entry->set_tag(tag);
    entry->set_simple_value(static_cast<float>(value));
  }
  return Record(event.SerializeAsString());
}

absl::Status TensorboardWriter::Png(int64_t step, const std::string& tag, int width, int height,
                                    const std::string& png) {
  tensorboard::Event event;
  event.set_wall_time(WallTime());
  event.set_step(step);
  tensorboard::Value* entry = event.mutable_summary()->add_value();
  entry->set_tag(tag);
  entry->mutable_image()->set_width(width);
  entry->mutable_image()->set_height(height);
  entry->mutable_image()->set_colorspace(3);
  entry->mutable_image()->set_encoded_image_string(png);
  return Record(event.SerializeAsString());
}

absl::Status TensorboardWriter::Record(const std::string& bytes) {
  const uint64_t length = bytes.size();
  const uint32_t length_crc = MaskedCrc(&length, sizeof(length));
  const uint32_t data_crc = MaskedCrc(bytes.data(), bytes.size());
  std::string record;
  record.append(reinterpret_cast<const char*>(&length), sizeof(length));
  record.append(reinterpret_cast<const char*>(&length_crc), sizeof(length_crc));
  record.append(bytes);
  record.append(reinterpret_cast<const char*>(&data_crc), sizeof(data_crc));
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t written = write(file_, record.data() + done, record.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed(errno);
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

}  // namespace gvsl
