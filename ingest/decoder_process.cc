#include "ingest/decoder_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "ingest/dicom_pixels.h"

namespace gvsl {
namespace {

constexpr int kAnswerTimeoutMs = 60000;
constexpr uint32_t kMaxPathBytes = 4096, kMaxMessageBytes = 4096;

struct Request {
  int32_t frame;
  uint32_t path_bytes;  // the path follows
};
struct Answer {
  int32_t code;    // absl::StatusCode
  uint32_t count;  // pixels (OK) or the message's bytes follow
};

bool ReadAll(int file, void* data, size_t size) {
  auto* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t count = read(file, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

bool WriteAll(int socket, const void* data, size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count = send(socket, at, size, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

}  // namespace

std::string DefaultDecoderProgram() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "gvsl-dicom-decoder").string();
}

DecoderProcess::DecoderProcess(std::string program) : program_(std::move(program)) {}

DecoderProcess::~DecoderProcess() { Stop(); }

absl::Status DecoderProcess::Start() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::InternalError(absl::StrCat("cannot talk to a decoder: ", std::strerror(errno)));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::string name = program_;
  char* arguments[] = {name.data(), nullptr};
  const int error = posix_spawn(&process_, program_.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    process_ = -1;
    return absl::InternalError(absl::StrCat("cannot start ", program_, ": ", std::strerror(error),
                                            "; install it beside gvsl-ingest"));
  }
  socket_ = ends[0];
  return absl::OkStatus();
}

void DecoderProcess::Stop() {
  if (socket_ >= 0) close(socket_);
  if (process_ > 0) {
    kill(process_, SIGKILL);  // it has nothing to save
    while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  socket_ = -1;
  process_ = -1;
}

bool DecoderProcess::Send(const void* data, size_t size) { return WriteAll(socket_, data, size); }

bool DecoderProcess::Receive(void* data, size_t size) {
  auto* at = static_cast<char*>(data);
  while (size > 0) {
    pollfd ready{socket_, POLLIN, 0};
    const int count = poll(&ready, 1, kAnswerTimeoutMs);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    const ssize_t received = recv(socket_, at, size, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return false;
    at += received;
    size -= static_cast<size_t>(received);
  }
  return true;
}

absl::StatusOr<std::vector<uint16_t>> DecoderProcess::Frame(const std::string& path, int index,
                                                            size_t pixel_count) {
  if (process_ < 0) {
    if (absl::Status status = Start(); !status.ok()) return status;
  }
  const Request request{index, static_cast<uint32_t>(path.size())};
  Answer answer{};
  std::vector<uint16_t> pixels;
  std::string message;
  bool good = path.size() <= kMaxPathBytes && Send(&request, sizeof(request)) &&
              Send(path.data(), path.size()) && Receive(&answer, sizeof(answer));
  const bool ok = answer.code == static_cast<int32_t>(absl::StatusCode::kOk);
  if (good && ok) {
    // What the other side says is not trusted either.
    good = answer.count == pixel_count;
    if (good) {
      pixels.resize(pixel_count);
      good = Receive(pixels.data(), pixel_count * sizeof(uint16_t));
    }
  } else if (good) {
    good = answer.count <= kMaxMessageBytes;
    if (good) {
      message.resize(answer.count);
      good = Receive(message.data(), message.size());
    }
  }
  if (!good) {
    Stop();
    return absl::DataLossError("the decoder died of its pixels, or did not finish in time");
  }
  if (!ok) return absl::DataLossError(message);
  return pixels;
}

void ServeDecoder(int socket) {
  std::optional<DicomPixelFile> file;
  std::string open_path;
  Request request;
  while (ReadAll(socket, &request, sizeof(request)) && request.path_bytes <= kMaxPathBytes) {
    std::string path(request.path_bytes, '\0');
    if (!ReadAll(socket, path.data(), path.size())) return;
    absl::StatusOr<std::vector<uint16_t>> pixels = absl::UnknownError("");
    if (path != open_path) {
      file.reset();
      open_path.clear();
      absl::StatusOr<DicomPixelFile> opened = DicomPixelFile::Open(path);
      if (opened.ok()) {
        file = *std::move(opened);
        open_path = path;
      } else {
        pixels = opened.status();
      }
    }
    if (file.has_value()) pixels = file->Frame(request.frame);
    const std::string message = std::string(pixels.status().message()).substr(0, kMaxMessageBytes);
    const Answer answer{static_cast<int32_t>(pixels.status().code()),
                        static_cast<uint32_t>(pixels.ok() ? pixels->size() : message.size())};
    const bool sent =
        WriteAll(socket, &answer, sizeof(answer)) &&
        (pixels.ok() ? WriteAll(socket, pixels->data(), pixels->size() * sizeof(uint16_t))
                     : WriteAll(socket, message.data(), message.size()));
    if (!sent) return;
  }
}

}  // namespace gvsl
