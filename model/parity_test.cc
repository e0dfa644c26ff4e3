// Runs the program gvsl-parity on the public golden set, as a user does.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "model/golden_set.h"
#include "model/state.h"
#include "model/test_files.h"

namespace gvsl {
namespace {

std::string GoldenFolder() {
  const char* folder = std::getenv("GVSL_GOLDEN");
  return std::string(folder != nullptr ? folder : GVSL_GOLDEN_DEFAULT) + "/public";
}

class ParityTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(GoldenFolder() + "/set.json")) {
      GTEST_SKIP() << "no golden set in " << GoldenFolder();
    }
  }

  // Exit status; what was printed, both streams, is in `printed_`.
  int Parity(const std::string& arguments) {
    const std::string log = folder_ / "log";
    const std::string command =
        std::string("'") + GVSL_BIN_DIR + "/gvsl-parity' " + arguments + " > '" + log + "' 2>&1";
    const int result = std::system(command.c_str());
    printed_ = ReadWholeFile(log).value();
    return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
  }
  std::string Checkpoint() const { return folder_ / "weights.pth"; }

  // Writes the formula's weights with one value of a deep layer changed by `change`.
  void WritePerturbed(float change) {
    auto set = ReadGoldenSet(GoldenFolder());
    ASSERT_TRUE(set.ok()) << set.status().message();
    auto state = FormulaState(*set);
    ASSERT_TRUE(state.ok()) << state.status().message();
    (*state)[34].second.view(-1)[5] += change;  // unet.down4, second convolution's norm
    const absl::Status written = WritePth(*state, Checkpoint());
    ASSERT_TRUE(written.ok()) << written.message();
  }

  // CTest runs the tests side by side, each in a process of its own.
  const TestFolder folder_{"parity"};
  std::string printed_;
};

TEST_F(ParityTest, EveryPublicGoldenIsWithinItsBound) {
  EXPECT_EQ(Parity("'" + GoldenFolder() + "'"), 0) << printed_;
  EXPECT_NE(printed_.find("74 outputs of 2 cases, 0 exceed"), std::string::npos) << printed_;
}

TEST_F(ParityTest, AcceptsACheckpointOfTheSameWeights) {
  WritePerturbed(0);
  EXPECT_EQ(Parity("'" + GoldenFolder() + "' --forward_only --checkpoint '" + Checkpoint() + "'"),
            0)
      << printed_;
}

TEST_F(ParityTest, RefusesACheckpointWithOneChangedValue) {
  WritePerturbed(0.05f);
  EXPECT_EQ(Parity("'" + GoldenFolder() + "' --forward_only --checkpoint '" + Checkpoint() + "'"),
            1);
  EXPECT_NE(printed_.find("EXCEEDED"), std::string::npos) << printed_;
}

TEST_F(ParityTest, TellsWhatIsWrongWithItsFiles) {
  EXPECT_EQ(Parity("/nowhere"), 1);
  EXPECT_NE(printed_.find("/nowhere/set.json"), std::string::npos) << printed_;

  std::ofstream(folder_ / "set.json") << "{\"seed\": 1}";
  EXPECT_EQ(Parity("'" + folder_.path() + "'"), 1);
  EXPECT_NE(printed_.find("is not a golden set"), std::string::npos) << printed_;

  std::ofstream(Checkpoint()) << "no checkpoint";
  EXPECT_EQ(Parity("'" + GoldenFolder() + "' --checkpoint '" + Checkpoint() + "'"), 1);
  EXPECT_NE(printed_.find("weights.pth"), std::string::npos) << printed_;
}

TEST_F(ParityTest, ExitsWithTwoOnBadUsage) {
  EXPECT_EQ(Parity(""), 2);
  EXPECT_EQ(Parity("a b"), 2);
  EXPECT_EQ(Parity("a --nonsense"), 2);
}

TEST_F(ParityTest, RefusesATruncatedArray) {
  const std::string path = folder_ / "cut.npy";
  std::string bytes = ReadWholeFile(GoldenFolder() + "/cube32/flow.npy").value();
  std::ofstream(path, std::ios::binary) << bytes.substr(0, bytes.size() / 2);
  EXPECT_EQ(ReadNpy(path).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gvsl
