#include "trainer/rank_group.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <torch/torch.h>

#include <chrono>
#include <cstring>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace gvsl {
namespace {

// Ranks wait for rank 0 while it validates and writes.
constexpr auto kTimeout = std::chrono::hours(1);

class GlooGroup : public RankGroup {
 public:
  GlooGroup(int rank, int size, const std::string& store) : rank_(rank), size_(size) {
    auto options = c10d::ProcessGroupGloo::Options::create(
        std::chrono::duration_cast<std::chrono::milliseconds>(kTimeout));
    options->devices = {c10d::ProcessGroupGloo::createDeviceForInterface("lo")};
    group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::FileStore>(store, size), rank, size, options);
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status Sum(at::Tensor& tensor) override {
    try {
      std::vector<at::Tensor> tensors = {tensor};
      group_->allreduce(tensors)->wait();
      return absl::OkStatus();
    } catch (const std::exception& error) {
      return absl::UnavailableError(absl::StrCat("a rank of the job was lost (",
                                                 std::string(error.what()).substr(0, 200), ")"));
    }
  }

 private:
  const int rank_, size_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(const std::string& store, int rank, int size) {
  try {
    return std::unique_ptr<RankGroup>(new GlooGroup(rank, size, store));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("the ranks did not find each other: ",
                                               std::string(error.what()).substr(0, 200)));
  }
}

absl::Status Peers::Start(const std::string& folder, const std::string& store, int size) {
  for (int rank = 1; rank < size; ++rank) {
    std::vector<std::string> words = {"gvsl-trainer",     folder,    "--rank",
                                      absl::StrCat(rank), "--store", store};
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

void Peers::Kill() {
  for (int process : processes_) {
    kill(process, SIGKILL);
    waitpid(process, nullptr, 0);
  }
  processes_.clear();
}

}  // namespace gvsl
