#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <limits>

#include "imaging/status_reason.h"
#include "model/model_file.h"
#include "model/state.h"
#include "model/test_files.h"

namespace gvsl {
namespace {

constexpr std::array<int64_t, 5> kWidths = {8, 8, 16, 16, 16};

ModelCard SmallCard() {
  ModelCard card;
  card.size = "custom";
  card.widths = kWidths;
  card.provenance = "a \"quoted\" line\nand \xc3\xa9";
  return card;
}

class SafetensorsTest : public testing::Test {
 protected:
  // A file of this header and so many bytes of data.
  std::string Write(const std::string& header, size_t data_size) {
    const uint64_t size = header.size();
    const std::string path = folder_ / "file.safetensors";
    WriteBytes(path, std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + header +
                         std::string(data_size, '\0'));
    return path;
  }
  // The refusal of such a file; its reason is checked.
  std::string Refusal(const std::string& header, size_t data_size) {
    const absl::Status status = ReadSafetensors(Write(header, data_size)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << header;
    EXPECT_EQ(ReasonOf(status), "UNREADABLE_MODEL_FILE") << header;
    return Message(status);
  }

  TestFolder folder_{"safetensors_test"};
};

TEST_F(SafetensorsTest, ComesBackBitForBitWithItsMetadata) {
  const std::string path = folder_ / "round.safetensors";
  SafetensorsFile file;
  file.state = CountedState(kWidths);
  file.state[0].second.view(-1)[0] = -0.0f;
  file.state[0].second.view(-1)[1] = std::numeric_limits<float>::denorm_min();
  file.state.emplace_back("scalar", at::tensor(3.5f));
  file.state.back().second = file.state.back().second.view(at::IntArrayRef{});
  file.state.emplace_back("empty", at::empty({0, 4}));
  file.metadata = {{"a", "1"}, {"b", "two \"quotes\" and \xe2\x82\xac"}};
  ASSERT_TRUE(WriteSafetensors(file, path).ok());

  const auto read = ReadSafetensors(path);
  ASSERT_TRUE(read.ok()) << Message(read.status());
  EXPECT_EQ(read->metadata, file.metadata);
  ASSERT_EQ(read->state.size(), file.state.size());
  for (const auto& [name, tensor] : read->state) {
    const std::string& sought = name;
    const auto expected = std::find_if(file.state.begin(), file.state.end(),
                                       [&](const auto& entry) { return entry.first == sought; });
    ASSERT_TRUE(expected != file.state.end()) << name;
    ASSERT_EQ(tensor.sizes(), expected->second.sizes()) << name;
    EXPECT_EQ(std::memcmp(tensor.data_ptr(), expected->second.data_ptr(), tensor.nbytes()), 0)
        << name;
  }
}

TEST_F(SafetensorsTest, IsReadByAnIndependentParser) {
  std::string printed;
  if (Python("-c 'import torch'", folder_ / "log", printed) != 0) {
    GTEST_SKIP() << "no python3 with torch: " << printed;
  }
  LoadedModel model;
  model.card = SmallCard();
  model.state = CountedState(kWidths);
  ASSERT_TRUE(SaveModel(model, folder_ / "model.safetensors").ok());
  WriteLayout(kWidths, folder_ / "layout.tsv");
  const int status =
      Python("'" GVSL_SOURCE_DIR "/model/torch_files.py' safetensors '" + (folder_ / "layout.tsv") +
                 "' '" + (folder_ / "model.safetensors") + "'",
             folder_ / "log", printed);
  ASSERT_EQ(status, 0) << printed;
  EXPECT_NE(printed.find(WeightsDigest(model.state)), std::string::npos) << printed;
  EXPECT_NE(printed.find("\\\"widths\\\":[8,8,16,16,16]"), std::string::npos) << printed;
}

TEST_F(SafetensorsTest, ReadsHalfPrecisionAndAHeaderOfOddLength) {
  // 1.5 in half precision, bfloat16 and double; an odd header leaves none of them aligned.
  const std::string header = R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                             R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]},)"
                             R"("c":{"dtype":"F64","shape":[],"data_offsets":[4,12]}})";
  const std::string path = Write(header + std::string(header.size() % 2 == 0 ? 1 : 2, ' '), 0);
  std::string bytes = ReadWholeFile(path).value();
  const double value = 1.5;
  bytes += std::string("\x00\x3e\xc0\x3f", 4) +
           std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  WriteBytes(path, bytes);
  const auto read = ReadSafetensors(path);
  ASSERT_TRUE(read.ok()) << Message(read.status());
  ASSERT_EQ(read->state.size(), 3u);
  for (const auto& [name, tensor] : read->state) EXPECT_EQ(tensor.item<float>(), 1.5f) << name;
}

TEST_F(SafetensorsTest, RefusesHostileHeaders) {
  const auto entry = [](const std::string& shape, const std::string& offsets,
                        const std::string& type = "\"F32\"") {
    return "{\"t\":{\"dtype\":" + type + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
           "}}";
  };
  struct Case {
    std::string header;
    size_t data_size;
    const char* what;
  };
  for (const Case& one : std::vector<Case>{
           {entry("[2]", "[0,8]"), 4, "larger than the file"},
           {entry("[1]", "[4,8]"), 4, "lies outside the file"},
           {entry("[1]", "[4,8]"), 8, "a hole"},
           {entry("[1]", "[0,4]"), 8, "belong to no tensor"},
           {entry("[1]", "[4,0]"), 4, "lies outside the file"},
           {entry("[1]", "[0,3]"), 4, "another size than its shape"},
           {entry("[1]", "[-4,0]"), 4, "no valid data_offsets"},
           {entry("[1]", "[0,18446744073709551615]"), 4, "no valid data_offsets"},
           {entry("[1]", "[0,4.0]"), 4, "no valid data_offsets"},
           {entry("[1]", "[0,4,8]"), 4, "lacks"},
           {entry("[-1]", "[0,4]"), 4, "no valid shape"},
           {entry("[\"1\"]", "[0,4]"), 4, "no valid shape"},
           {entry("1", "[0,4]"), 4, "lacks"},
           {entry("[4294967296,4294967296]", "[0,0]"), 4, "larger than the file"},
           {entry("[0,4611686018427387904,4611686018427387904]", "[0,0]"), 0,
            "larger than the file"},
           {entry("[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]", "[0,0]"), 0, "no valid shape"},
           {entry("[1]", "[0,4]", "\"I32\""), 4, "not floating point"},
           {entry("[1]", "[0,4]", "\"F32 \""), 4, "not floating point"},
           {entry("[1]", "[0,4]", "32"), 4, "lacks"},
           {R"({"t":{"shape":[1],"data_offsets":[0,4]}})", 4, "lacks dtype"},
           {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            8, "an overlap before tensor"},
           {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4, "\"a\" stands twice"},
           {R"({"__metadata__":{"k":1}})", 0, "more than text"},
           {R"({"__metadata__":["k"]})", 0, "no object"},
           {R"({"t":3})", 0, "lacks"},
           {R"([])", 0, "no JSON object"},
           {R"({"t":)", 0, "not JSON"},
           {"{\"\xff\":1}", 0, "not JSON"},
           {std::string(1000000, '['), 0, "nested too deeply"},
           {"", 0, "not JSON"}}) {
    EXPECT_NE(Refusal(one.header, one.data_size).find(one.what), std::string::npos)
        << one.header.substr(0, 200) << " gave: " << Refusal(one.header, one.data_size);
  }
}

TEST_F(SafetensorsTest, RefusesAHeaderLongerThanTheFileOrThanAnyModelNeeds) {
  for (uint64_t size : {uint64_t{11}, uint64_t{1} << 40, ~uint64_t{0}}) {
    std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
    bytes += "{}        ";
    WriteBytes(folder_ / "long.safetensors", bytes);
    const absl::Status status = ReadSafetensors(folder_ / "long.safetensors").status();
    EXPECT_NE(Message(status).find("the header is longer"), std::string::npos) << size;
  }
  EXPECT_NE(Refusal("{}" + std::string(5 << 20, ' '), 0).find("4 MiB"), std::string::npos);
  WriteBytes(folder_ / "short.safetensors", "1234567");
  EXPECT_EQ(ReasonOf(ReadSafetensors(folder_ / "short.safetensors").status()),
            "UNREADABLE_MODEL_FILE");
}

TEST_F(SafetensorsTest, RefusesATruncatedModel) {
  LoadedModel model;
  model.card = SmallCard();
  model.state = CountedState(kWidths);
  const std::string path = folder_ / "model.safetensors";
  ASSERT_TRUE(SaveModel(model, path).ok());
  const std::string whole = ReadWholeFile(path).value();
  for (size_t size : {size_t{0}, size_t{7}, size_t{8}, size_t{1000}, whole.size() - 1}) {
    WriteBytes(path, whole.substr(0, size));
    EXPECT_EQ(ReasonOf(ReadModelInfo(path).status()), "UNREADABLE_MODEL_FILE") << size;
  }
}

TEST(ModelFile, CarriesTheCardAndTheDigests) {
  const TestFolder folder("model_file_card");
  const auto made = CreateModelFile(SmallCard(), 3, folder / "a.safetensors");
  ASSERT_TRUE(made.ok()) << Message(made.status());
  const auto read = ReadModelInfo(folder / "a.safetensors");
  ASSERT_TRUE(read.ok()) << Message(read.status());
  EXPECT_EQ(CardToJson(read->card), CardToJson(SmallCard()));
  EXPECT_EQ(read->weights_sha256, made->weights_sha256);
  EXPECT_EQ(read->fingerprint, Fingerprint(SmallCard(), made->weights_sha256));
}

TEST(ModelFile, IsTheSameForTheSameSeedAndAnotherForAnother) {
  const TestFolder folder("model_file_seed");
  const auto first = CreateModelFile(SmallCard(), 3, folder / "a.safetensors");
  const auto again = CreateModelFile(SmallCard(), 3, folder / "b.safetensors");
  const auto other = CreateModelFile(SmallCard(), 4, folder / "c.safetensors");
  ASSERT_TRUE(first.ok() && again.ok() && other.ok());
  EXPECT_EQ(first->weights_sha256, again->weights_sha256);
  EXPECT_EQ(ReadWholeFile(folder / "a.safetensors").value(),
            ReadWholeFile(folder / "b.safetensors").value());
  EXPECT_NE(first->weights_sha256, other->weights_sha256);
}

TEST(ModelFile, IsImportedOverItself) {
  const TestFolder folder("model_file_itself");  // its tensors are mapped from what is replaced
  const std::string path = folder / "a.safetensors";
  const auto made = CreateModelFile(SmallCard(), 3, path);
  const auto again = ImportModelFile(path, ModelCard(), path);
  ASSERT_TRUE(again.ok()) << Message(again.status());
  EXPECT_EQ(again->fingerprint, made->fingerprint);
  EXPECT_EQ(folder.files(), 1);
}

TEST(ModelFile, LeavesNothingWhereItCannotBeWritten) {
  const TestFolder folder("model_file_unwritable");
  std::filesystem::create_directory(folder / "taken");  // a folder stands where the file would
  const absl::Status status = CreateModelFile(SmallCard(), 3, folder / "taken").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << Message(status);
  EXPECT_EQ(folder.files(), 1);
  EXPECT_EQ(CreateModelFile(SmallCard(), 3, folder / "absent/a.safetensors").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ModelFile, TellsAFullDiskAndKeepsTheOlderFile) {
  const TestFolder folder("model_file_full");
  const std::string model = folder / "a.safetensors", other = folder / "b.safetensors",
                    exported = folder / "a.pth";
  const auto made = CreateModelFile(SmallCard(), 3, model);
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(ExportPth(model, exported).ok());
  ASSERT_EQ(folder.files(), 2);
  // As on a full disk: no file may grow beyond 100 kB.
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit limit = {};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small = {100000, limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status statuses[] = {CreateModelFile(SmallCard(), 4, model).status(),
                                   ImportModelFile(model, ModelCard(), other).status(),
                                   ExportPth(model, exported)};
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, handler);
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << Message(status);
    EXPECT_EQ(ReasonOf(status), "DISK_FULL");
  }
  EXPECT_EQ(folder.files(), 2);
  EXPECT_EQ(ReadModelInfo(model)->weights_sha256, made->weights_sha256);
  EXPECT_TRUE(ReadPth(exported).ok());
}

TEST(ModelFile, ImportsWithinTheMemoryThatItIsGiven) {
  const TestFolder folder("model_file_memory");
  const StateDict state = CountedState(kWidths);
  int64_t bytes = 0;
  for (const auto& [name, tensor] : state) bytes += static_cast<int64_t>(tensor.nbytes());
  ASSERT_TRUE(WritePth(state, folder / "a.pth").ok());
  const auto import = [&](int64_t memory_bytes) {
    return ImportModelFile(folder / "a.pth", SmallCard(), folder / "a.safetensors", memory_bytes);
  };
  const absl::Status status = import(bytes - 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << Message(status);
  EXPECT_EQ(ReasonOf(status), "MODEL_TOO_LARGE");
  EXPECT_FALSE(std::filesystem::exists(folder / "a.safetensors"));
  EXPECT_TRUE(import(bytes).ok());
}

TEST(ModelFile, RefusesWeightsThatAreNotThoseOfItsDigest) {
  const TestFolder folder("model_file_digest");
  const std::string path = folder / "a.safetensors";
  ASSERT_TRUE(CreateModelFile(SmallCard(), 3, path).ok());
  std::string bytes = ReadWholeFile(path).value();
  bytes[bytes.size() - 100] ^= 1;
  WriteBytes(path, bytes);
  const absl::Status status = ImportModelFile(path, ModelCard(), folder / "b.safetensors").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), "CHECKSUM_MISMATCH");
}

TEST(ModelFile, RefusesWeightsThatAreNoNumbersAndWritesNothing) {
  const TestFolder folder("model_file_nan");
  StateDict state = CountedState(kWidths);
  state[7].second.view(-1)[0] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(WritePth(state, folder / "nan.pth").ok());
  const absl::Status status =
      ImportModelFile(folder / "nan.pth", ModelCard(), folder / "out.safetensors").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(status).find(state[7].first), std::string::npos) << Message(status);
  EXPECT_FALSE(std::filesystem::exists(folder / "out.safetensors"));
}

TEST(ModelFile, RefusesWidthsThatNoCardAllows) {
  const TestFolder folder("model_file_widths");
  ASSERT_TRUE(WritePth(CountedState({8, 8, 8, 8, 56}), folder / "odd.pth").ok());
  const absl::Status status =
      ImportModelFile(folder / "odd.pth", ModelCard(), folder / "out.safetensors").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(status).find("widths"), std::string::npos) << Message(status);
}

TEST(ModelFile, RefusesAnEmptyFileAndAFileWithoutACard) {
  const TestFolder folder("model_file_empty");
  WriteBytes(folder / "empty", "");
  EXPECT_EQ(ReasonOf(ImportModelFile(folder / "empty", ModelCard(), folder / "out").status()),
            "UNREADABLE_MODEL_FILE");
  SafetensorsFile file;
  file.state = CountedState(kWidths);
  ASSERT_TRUE(WriteSafetensors(file, folder / "bare.safetensors").ok());
  const absl::Status status =
      ImportModelFile(folder / "bare.safetensors", ModelCard(), folder / "out").status();
  EXPECT_NE(Message(status).find("no GVSL model card"), std::string::npos) << Message(status);
}

}  // namespace
}  // namespace gvsl
