#include "ingest/decoder_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "ingest/dicom_pixels.h"

extern "C" {  // which the header of glibc 2.36 leaves to C++
#include <sys/pidfd.h>
}

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

absl::Status MakeSocketPair(int (&ends)[2]) {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot talk to a decoder: ", std::strerror(errno)));
}

// A byte that carries an open file.
struct FileMessage {
  FileMessage() {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
  }
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
};

bool SendSocket(int control, int socket) {
  FileMessage carrier;
  cmsghdr* const header = CMSG_FIRSTHDR(&carrier.message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(socket));
  std::memcpy(CMSG_DATA(header), &socket, sizeof(socket));
  ssize_t sent = -1;
  do {
    sent = sendmsg(control, &carrier.message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == 1;
}

// -1: the other side has closed.
int ReceiveSocket(int control) {
  FileMessage carrier;
  ssize_t received = -1;
  do {
    received = recvmsg(control, &carrier.message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  const cmsghdr* const header = CMSG_FIRSTHDR(&carrier.message);
  if (received != 1 || header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int socket = -1;
  std::memcpy(&socket, CMSG_DATA(header), sizeof(socket));
  return socket;
}

// The running program, which forks decoders. One a program for the whole process; it ends when its
// socket closes, with this process. Thread-safe.
class DecoderProgram {
 public:
  static DecoderProgram& Of(const std::string& path) {
    static std::mutex mutex;
    static auto* const all = new std::map<std::string, DecoderProgram>();
    const std::lock_guard<std::mutex> lock(mutex);
    return all->try_emplace(path, path).first->second;
  }

  explicit DecoderProgram(std::string path) : path_(std::move(path)) {}

  // A new decoder, which serves the other end of `socket`: its pidfd.
  absl::StatusOr<int> Fork(int socket) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int attempt = 0; attempt < 2; ++attempt) {  // it may have been killed meanwhile
      if (control_ < 0) {
        if (absl::Status status = Start(); !status.ok()) return status;
      }
      pid_t decoder = -1;
      if (SendSocket(control_, socket) && ReadAll(control_, &decoder, sizeof(decoder)) &&
          decoder > 0) {
        // The program waits for its children in the next Fork, not before: the number is still its.
        const int process = pidfd_open(decoder, 0);
        if (process >= 0) return process;
        return absl::InternalError(
            absl::StrCat("cannot hold on to a decoder (pidfd_open): ", std::strerror(errno)));
      }
      Stop();
    }
    return absl::InternalError(absl::StrCat(path_,
                                            " starts no decoder: it must be the one that belongs "
                                            "to gvsl-ingest, and there must be processes left"));
  }

 private:
  absl::Status Start() {
    int ends[2];
    if (absl::Status status = MakeSocketPair(ends); !status.ok()) return status;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    char* arguments[] = {path_.data(), nullptr};
    const int error = posix_spawn(&process_, path_.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (error != 0) {
      close(ends[0]);
      return absl::InternalError(absl::StrCat("cannot start ", path_, ": ", std::strerror(error),
                                              "; install it beside gvsl-ingest"));
    }
    control_ = ends[0];
    return absl::OkStatus();
  }

  void Stop() {
    close(control_);
    control_ = -1;
    kill(process_, SIGKILL);
    while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  std::mutex mutex_;
  std::string path_;
  pid_t process_ = -1;
  int control_ = -1;
};

// The program's side: answers requests from `socket` until it closes.
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
  if (absl::Status status = MakeSocketPair(ends); !status.ok()) return status;
  const absl::StatusOr<int> process = DecoderProgram::Of(program_).Fork(ends[1]);
  close(ends[1]);
  if (!process.ok()) {
    close(ends[0]);
    return process.status();
  }
  process_ = *process;
  socket_ = ends[0];
  return absl::OkStatus();
}

void DecoderProcess::Stop() {
  if (process_ < 0) return;
  pidfd_send_signal(process_, SIGKILL, nullptr, 0);  // it has nothing to save
  close(process_);
  close(socket_);
  process_ = -1;
  socket_ = -1;
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

void ServeDecoders(int control) {
  PrepareDicomPixels();
  for (int socket = ReceiveSocket(control); socket >= 0; socket = ReceiveSocket(control)) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    const pid_t program = getpid();
    const pid_t decoder = fork();
    if (decoder == 0) {
      close(control);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() == program) ServeDecoder(socket);
      _exit(0);
    }
    close(socket);
    if (!WriteAll(control, &decoder, sizeof(decoder))) return;
  }
}

}  // namespace gvsl
