#include "trainer/rank_group.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#ifdef GVSL_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef GVSL_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "absl/strings/str_cat.h"

extern char** environ;

namespace gvsl {
namespace {

// Ranks wait for rank 0 while it validates and writes.
constexpr auto kTimeout = std::chrono::hours(1);
// For a rank to be loaded and to come.
constexpr std::chrono::minutes kJoinTimeout{2};
constexpr std::chrono::milliseconds kJoinPoll{20};

// Gloo's own rendezvous waits with the timeout of the sums, and hears of no death: it begins only
// once all ranks are there.
absl::Status Meet(c10d::FileStore& store, int rank, int size,
                  const std::function<absl::Status()>& all_live) {
  const std::vector<uint8_t> here = {1};
  const std::string all_here = "all";
  store.setTimeout(kJoinTimeout);
  if (rank > 0) {
    store.set(absl::StrCat("rank", rank), here);
    store.wait({all_here}, kJoinTimeout);
    return absl::OkStatus();
  }
  std::vector<std::string> others;
  for (int other = 1; other < size; ++other) others.push_back(absl::StrCat("rank", other));
  store.set("rank0", here);  // the file is there from here on
  const auto deadline = std::chrono::steady_clock::now() + kJoinTimeout;
  while (!store.check(others)) {
    if (absl::Status status = all_live(); !status.ok()) return status;
    if (std::chrono::steady_clock::now() > deadline)
      return absl::UnavailableError("a rank of the job did not come in time");
    std::this_thread::sleep_for(kJoinPoll);
  }
  store.set(all_here, here);
  return absl::OkStatus();
}

// Sums through a process group of c10d's.
template <typename Backend>
class C10dGroup : public RankGroup {
 public:
  C10dGroup(int rank, int size, c10::intrusive_ptr<Backend> backend)
      : rank_(rank), size_(size), backend_(std::move(backend)) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status Sum(at::Tensor& tensor) override {
    try {
      std::vector<at::Tensor> tensors = {tensor};
      backend_->allreduce(tensors)->wait();
      return absl::OkStatus();
    } catch (const std::exception& error) {
      return absl::UnavailableError(absl::StrCat("a rank of the job was lost (",
                                                 std::string(error.what()).substr(0, 200), ")"));
    }
  }

 protected:
  Backend& backend() { return *backend_; }

 private:
  const int rank_, size_;
  c10::intrusive_ptr<Backend> backend_;
};

[[maybe_unused]] absl::Status Lacks(const char* library, const char* device) {
  return absl::InvalidArgumentError(absl::StrCat("optimization.world_size: several ranks on ",
                                                 device, " need ", library,
                                                 ", which this build has not; take 1"));
}

absl::StatusOr<std::unique_ptr<RankGroup>> GlooGroup(
    int rank, int size, const c10::intrusive_ptr<c10d::FileStore>& store) {
#ifdef GVSL_GLOO
  auto options = c10d::ProcessGroupGloo::Options::create(
      std::chrono::duration_cast<std::chrono::milliseconds>(kTimeout));
  options->devices = {c10d::ProcessGroupGloo::createDeviceForInterface("lo")};
  return std::make_unique<C10dGroup<c10d::ProcessGroupGloo>>(
      rank, size, c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options));
#else
  (void)rank, (void)size, (void)store;
  return Lacks("Gloo", "the CPU");
#endif
}

#ifdef GVSL_NCCL
class NcclRanks : public C10dGroup<c10d::ProcessGroupNCCL> {
 public:
  using C10dGroup::C10dGroup;
  ~NcclRanks() override { backend().shutdown(); }  // else its threads are waited for
};
#endif

// The tensors that are summed name the device.
absl::StatusOr<std::unique_ptr<RankGroup>> NcclGroup(
    int rank, int size, const c10::intrusive_ptr<c10d::FileStore>& store) {
#ifdef GVSL_NCCL
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::duration_cast<std::chrono::milliseconds>(kTimeout);
  return std::make_unique<NcclRanks>(
      rank, size, c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options));
#else
  (void)rank, (void)size, (void)store;
  return Lacks("NCCL", "CUDA");
#endif
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(
    const std::string& store, int rank, int size, const std::string& device,
    const std::function<absl::Status()>& all_live) {
  try {
    auto file = c10::make_intrusive<c10d::FileStore>(store, size);
    if (absl::Status status = Meet(*file, rank, size, all_live); !status.ok()) return status;
    absl::StatusOr<std::unique_ptr<RankGroup>> group =
        device == "cpu" ? GlooGroup(rank, size, file) : NcclGroup(rank, size, file);
    if (!group.ok()) return group.status();
    // Others may still be reading the file when this rank has found them all.
    at::Tensor met = torch::zeros({1}, at::Device(device));
    if (absl::Status status = (*group)->Sum(met); !status.ok()) return status;
    std::error_code ignored;
    if (rank == 0) std::filesystem::remove(store, ignored);
    return group;
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("the ranks did not find each other: ",
                                               std::string(error.what()).substr(0, 200)));
  }
}

absl::Status Peers::Start(const std::string& folder, const std::string& store, int size) {
  for (int rank = 1; rank < size; ++rank) {
    std::vector<std::string> words = {"gvsl-trainer", folder, "--rank",   absl::StrCat(rank),
                                      "--store",      store,  "--leader", absl::StrCat(getpid())};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t process = 0;
    const int error =
        posix_spawn(&process, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ);
    if (error != 0) {
      return absl::UnavailableError(absl::StrCat("rank ", rank, ": ", std::strerror(error)));
    }
    processes_.push_back(process);
  }
  return absl::OkStatus();
}

absl::Status Peers::AllLive() const {
  for (size_t i = 0; i < processes_.size(); ++i) {
    siginfo_t about = {};  // it stays to be reaped by Kill: until then its number is its own
    const auto process = static_cast<id_t>(processes_[i]);
    if (waitid(P_PID, process, &about, WEXITED | WNOHANG | WNOWAIT) == 0 && about.si_pid == 0)
      continue;
    return absl::UnavailableError(
        absl::StrCat("rank ", i + 1, " of the job died before the ranks had met"));
  }
  return absl::OkStatus();
}

void Peers::Kill() {
  for (int process : processes_) {
    kill(process, SIGKILL);
    waitpid(process, nullptr, 0);
  }
  processes_.clear();
}

}  // namespace gvsl
