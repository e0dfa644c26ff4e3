// What the tests of model/ share: a folder a test, bytes in files, Python.
#ifndef GVSL_MODEL_TEST_FILES_H_
#define GVSL_MODEL_TEST_FILES_H_

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "model/golden_set.h"

namespace gvsl {

// A new folder of this name, removed with the object.
class TestFolder {
 public:
  explicit TestFolder(const std::string& name)
      : path_(std::filesystem::path(testing::TempDir()) /
              ("gvsl_" + name + "_" + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  int files() const {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

// A network whose tensor k has ((31 k + i) mod 97 - 48) / 64 as its value i, as torch_files.py
// makes it: exact in every floating type.
inline StateDict CountedState(const std::array<int64_t, 5>& widths) {
  StateDict state;
  for (const TensorSpec& spec : StateLayout(widths)) {
    int64_t count = 1;
    for (int64_t side : spec.shape) count *= side;
    const at::Tensor index = at::arange(count, at::kLong) + 31 * static_cast<int64_t>(state.size());
    const at::Tensor values = (at::remainder(index, 97) - 48).to(at::kDouble) / 64;
    state.emplace_back(spec.name, values.to(at::kFloat).view(spec.shape));
  }
  return state;
}

// Lines of name, tab, sides with commas: the form of official_state_dict.tsv.
inline void WriteLayout(const std::array<int64_t, 5>& widths, const std::string& path) {
  std::ofstream file(path);
  for (const TensorSpec& spec : StateLayout(widths)) {
    file << spec.name << '\t';
    for (size_t i = 0; i < spec.shape.size(); ++i) file << (i > 0 ? "," : "") << spec.shape[i];
    file << '\n';
  }
}

inline void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
}

// Runs /usr/bin/python3, or what GVSL_PYTHON names; returns the exit status. What it printed, both
// streams, is in `printed`.
inline int Python(const std::string& arguments, const std::string& log, std::string& printed) {
  const char* python = std::getenv("GVSL_PYTHON");
  const std::string command = std::string("'") + (python != nullptr ? python : "/usr/bin/python3") +
                              "' " + arguments + " > '" + log + "' 2>&1";
  const int result = std::system(command.c_str());
  printed = ReadWholeFile(log).value_or("");
  return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
}

}  // namespace gvsl

#endif  // GVSL_MODEL_TEST_FILES_H_
