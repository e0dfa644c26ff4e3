// Files of Python's torch.save, really written by it (torch_files.py), in and out.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "imaging/status_reason.h"
#include "model/model_file.h"
#include "model/state.h"
#include "model/test_files.h"

namespace gvsl {
namespace {

constexpr std::array<int64_t, 5> kWidths = {8, 8, 16, 16, 16};
constexpr char kScript[] = GVSL_SOURCE_DIR "/model/torch_files.py";

// Python takes two seconds to write the files, so it writes them once.
class PthTest : public testing::Test {
 public:
  static void SetUpTestSuite() {
    folder_ = new TestFolder("pth_test");
    WriteLayout(kWidths, *folder_ / "layout.tsv");
    python_ = Python("-c 'import torch'", *folder_ / "log", printed_) == 0;
    if (!python_) return;
    written_ = Python(std::string("'") + kScript + "' write '" + (*folder_ / "layout.tsv") + "' '" +
                          folder_->path() + "'",
                      *folder_ / "log", printed_) == 0;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }

 protected:
  void SetUp() override {
    if (!python_) GTEST_SKIP() << "no python3 with torch: " << printed_;
    ASSERT_TRUE(written_) << printed_;
  }
  static std::string File(const std::string& name) { return *folder_ / (name + ".pth"); }

  // The tensors that the formula gives, all or those of the U-Net.
  static void ExpectFormula(const StateDict& state, bool heads) {
    const StateDict expected = CountedState(kWidths);
    ASSERT_EQ(state.size(), heads ? 104u : 72u);
    for (size_t k = 0; k < state.size(); ++k) {
      EXPECT_EQ(state[k].first, expected[k].first);
      EXPECT_TRUE(at::equal(state[k].second, expected[k].second)) << state[k].first;
    }
  }

  static void ExpectUnreadable(const std::string& path, const std::string& what) {
    const auto state = ReadPth(path);
    ASSERT_FALSE(state.ok()) << path;
    EXPECT_EQ(state.status().code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(ReasonOf(state.status()), "UNREADABLE_MODEL_FILE") << path;
    EXPECT_NE(Message(state.status()).find(what), std::string::npos)
        << path << ": " << Message(state.status());
  }

  static TestFolder* folder_;
  static bool python_, written_;
  static std::string printed_;
};
TestFolder* PthTest::folder_ = nullptr;
bool PthTest::python_ = false;
bool PthTest::written_ = false;
std::string PthTest::printed_;

TEST_F(PthTest, ReadsTheWholeNetworkBitForBitInEveryFormThatTorchSaves) {
  for (const char* name :
       {"zip", "legacy", "protocol_4", "legacy_protocol_4", "half", "legacy_half", "bfloat16",
        "double", "plain_dict", "metadata", "parameters", "data_parallel", "checkpoint",
        "one_storage", "legacy_one_storage", "strided", "reversed"}) {
    SCOPED_TRACE(name);
    const auto state = ReadPth(File(name));
    ASSERT_TRUE(state.ok()) << Message(state.status());
    const auto fitted = FitState(*state);
    ASSERT_TRUE(fitted.ok()) << Message(fitted.status());
    EXPECT_TRUE(fitted->has_heads);
    EXPECT_EQ(fitted->widths, kWidths);
    ExpectFormula(fitted->state, true);
  }
}

TEST_F(PthTest, ReadsAUNetAloneWithAndWithoutItsPrefix) {
  for (const char* name : {"unet_with_prefix", "unet_alone"}) {
    SCOPED_TRACE(name);
    const auto state = ReadPth(File(name));
    ASSERT_TRUE(state.ok()) << Message(state.status());
    const auto fitted = FitState(*state);
    ASSERT_TRUE(fitted.ok()) << Message(fitted.status());
    EXPECT_FALSE(fitted->has_heads);
    ExpectFormula(fitted->state, false);
  }
}

TEST_F(PthTest, CompletesAUNetAloneWithSeededHeadsAndSaysSo) {
  ModelCard card;
  const auto first = ImportModelFile(File("unet_alone"), card, *folder_ / "first.safetensors");
  const auto second =
      ImportModelFile(File("unet_with_prefix"), card, *folder_ / "second.safetensors");
  ASSERT_TRUE(first.ok()) << Message(first.status());
  ASSERT_TRUE(second.ok()) << Message(second.status());
  EXPECT_FALSE(first->card.has_heads);
  EXPECT_EQ(first->card.size, "custom");
  EXPECT_EQ(first->card.widths, kWidths);
  EXPECT_EQ(first->weights_sha256, second->weights_sha256);
}

TEST_F(PthTest, NamesEveryMissingUnexpectedAndMisshapenTensor) {
  const auto state = ReadPth(File("mismatched"));
  ASSERT_TRUE(state.ok()) << Message(state.status());
  const absl::Status status = FitState(*state).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "MISMATCHED_TENSORS");
  for (const char* part :
       {"Missing (1): fc_rot.bias.", "Unexpected (1): segmentation.weight.",
        "Misshapen (1): out_flow.weight is [3, 4, 1, 1, 1] where [3, 16, 3, 3, 3] is needed."}) {
    EXPECT_NE(Message(status).find(part), std::string::npos) << part << " in " << Message(status);
  }
}

TEST_F(PthTest, RefusesAFileThatNamesAnythingButTensorsAndRunsNothing) {
  for (const auto& [name, forbidden] : {std::pair{"command", "posix.system"},
                                        {"module", "torch.nn.modules.conv.Conv3d"},
                                        {"numpy", "numpy.core.multiarray._reconstruct"},
                                        {"set", "set"}}) {
    for (const char* format : {"forbidden_", "forbidden_legacy_"}) {
      SCOPED_TRACE(std::string(format) + name);
      const absl::Status status = ReadPth(File(std::string(format) + name)).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(ReasonOf(status), "FORBIDDEN_PICKLE");
      EXPECT_NE(Message(status).find(forbidden), std::string::npos) << Message(status);
    }
  }
  EXPECT_FALSE(std::filesystem::exists(*folder_ / "it_ran"));
}

TEST_F(PthTest, RefusesATorchScriptProgram) {
  EXPECT_EQ(ReasonOf(ReadPth(File("hostile_script")).status()), "FORBIDDEN_PICKLE");
}

TEST_F(PthTest, TakesTheMemoryOfItsCopiesAndNoMore) {
  // Float32 is copied once; a transposed tensor once more; half precision is copied, then
  // converted, and the copy let go.
  int64_t plain = 0, strided = 0, half = 0;
  for (const auto& [name, tensor] : CountedState(kWidths)) {
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    plain += bytes;
    const at::Tensor turned = tensor.dim() > 1 ? tensor.transpose(0, -1) : tensor;
    strided += turned.is_contiguous() ? bytes : 2 * bytes;
    half = std::max(half, plain + bytes / 2);
  }
  for (const auto& [name, bytes] : {std::pair{"zip", plain},
                                    {"legacy", plain},
                                    {"strided", strided},
                                    {"half", std::max(half, plain)}}) {
    EXPECT_TRUE(ReadPth(File(name), bytes).ok()) << name;
    const absl::Status status = ReadPth(File(name), bytes - 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << name;
    EXPECT_EQ(ReasonOf(status), "MODEL_TOO_LARGE") << name;
  }
}

// Each file is of a few kilobytes, or a few megabytes; what it asks for is not.
TEST_F(PthTest, RefusesHostileArchivesAndSaysWhatIsWrong) {
  for (const auto& [name, what] : {std::pair{"shape_overflow", "absurd"},
                                   {"shape_huge", "absurd"},
                                   {"shape_beyond_64_bits", "shape is no shape"},
                                   {"shape_negative", "shape is no shape"},
                                   {"stride_negative", "shape is no shape"},
                                   {"stride_overflow", "absurd"},
                                   {"stride_beyond", "beyond its data"},
                                   {"offset_beyond", "beyond its data"},
                                   {"offset_overflow", "absurd"},
                                   {"rank_mismatch", "shape is no shape"},
                                   {"expanded", "beyond its data"},
                                   {"promise", "less data than it promises"},
                                   {"promise_huge", "larger than the file"},
                                   {"no_data", "no entry data/7"},
                                   {"two_counts", "beyond its data"},
                                   {"big_endian", "little-endian"},
                                   {"compressed", "compressed"},
                                   {"two_of_one_name", "one name"},
                                   {"not_tensors", "\"t\" is no tensor"},
                                   {"number_for_a_name", "is no tensor"},
                                   {"list", "no dictionary"},
                                   {"key_of_megabytes", "a storage is not described"},
                                   {"nested", "no dictionary"},
                                   {"many_views", "larger than the file"},
                                   {"many_values", "too many values"},
                                   {"overlapping", "overlap"}}) {
    ExpectUnreadable(File(std::string("hostile_") + name), what);
  }
}

TEST_F(PthTest, RefusesATruncatedFileWhereverItEnds) {
  for (const char* name : {"zip", "legacy"}) {
    const std::string whole = ReadWholeFile(File(name)).value();
    const std::string cut = *folder_ / "cut.pth";
    for (size_t size : {size_t{0}, size_t{1}, size_t{3}, size_t{4}, size_t{15}, size_t{100},
                        size_t{1000}, whole.size() / 2, whole.size() - 100, whole.size() - 1}) {
      WriteBytes(cut, whole.substr(0, size));
      const auto state = ReadPth(cut);
      ASSERT_FALSE(state.ok()) << name << " of " << size << " bytes";
      EXPECT_EQ(ReasonOf(state.status()), "UNREADABLE_MODEL_FILE") << Message(state.status());
    }
  }
}

TEST_F(PthTest, NoticesAChangedByteOfATensorByItsChecksum) {
  std::string bytes = ReadWholeFile(File("zip")).value();
  bytes[bytes.size() / 2] ^= 1;
  const std::string changed = *folder_ / "changed.pth";
  WriteBytes(changed, bytes);
  ExpectUnreadable(changed, "checksum");
}

TEST_F(PthTest, SurvivesAChangedByteAnywhereInThePickle) {
  // The legacy format has no checksum: whatever stands in the pickle is parsed. The first kilobytes
  // are the pickle.
  const std::string whole = ReadWholeFile(File("legacy")).value();
  const std::string changed = *folder_ / "changed.pth";
  int refused = 0;
  for (size_t at = 0; at < 6000; at += 17) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 + at % 255));
    WriteBytes(changed, bytes);
    const auto state = ReadPth(changed);
    if (state.ok()) continue;
    ++refused;
    EXPECT_FALSE(ReasonOf(state.status()).empty()) << at << ": " << Message(state.status());
  }
  EXPECT_GT(refused, 100);
}

TEST_F(PthTest, TellsOtherFilesFromModels) {
  const std::string path = *folder_ / "other.pth";
  for (const std::string& bytes :
       {std::string("hello"), std::string("\xff\xd8\xff\xe0 a JPEG"),
        std::string("PK\x03\x04 and no more"), std::string(4096, '\0')}) {
    WriteBytes(path, bytes);
    const absl::Status status = ReadPth(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(status), "UNREADABLE_MODEL_FILE") << Message(status);
  }
  EXPECT_EQ(ReadPth(*folder_ / "absent.pth").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(PthTest, IsLoadedStrictlyByPythonAndComesBackBitForBit) {
  // The official widths; and the official names and shapes, where they are at hand.
  const std::string model = *folder_ / "base.safetensors", exported = *folder_ / "exported.pth",
                    resaved = *folder_ / "resaved.pth", again = *folder_ / "again.safetensors";
  std::string layout = *folder_ / "base.tsv";
  WriteLayout(ModelCard().widths, layout);
  const char* golden = std::getenv("GVSL_GOLDEN");
  const std::string official =
      std::string(golden != nullptr ? golden : GVSL_GOLDEN_DEFAULT) + "/official_state_dict.tsv";
  if (std::filesystem::exists(official)) layout = official;

  const auto made = CreateModelFile(ModelCard(), 11, model);
  ASSERT_TRUE(made.ok()) << Message(made.status());
  ASSERT_TRUE(ExportPth(model, exported).ok());
  std::string printed;
  const int status = Python(
      std::string("'") + kScript + "' reload '" + layout + "' '" + exported + "' '" + resaved + "'",
      *folder_ / "log", printed);
  ASSERT_EQ(status, 0) << printed;
  const auto back = ImportModelFile(resaved, made->card, again);
  ASSERT_TRUE(back.ok()) << Message(back.status());

  // The digest is over every name, shape and value.
  EXPECT_EQ(back->weights_sha256, made->weights_sha256);
  EXPECT_EQ(back->fingerprint, made->fingerprint);
  EXPECT_EQ(back->parameter_count, 32440739);
}

}  // namespace
}  // namespace gvsl
