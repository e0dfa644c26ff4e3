// Compressed pixels are decoded elsewhere: what goes wrong there is an error here, and no more.
#include "ingest/decoder_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "ingest/dicom_pixels.h"
#include "ingest/series_testing.h"

namespace gvsl {
namespace {

class DecoderProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (DicomDataFolder().empty()) GTEST_SKIP() << "no public series (set GVSL_TEST_DATA)";
    path_ = DicomDataFolder() + "/odd_files_pydicom/MR_small_jpeg_ls_lossless.dcm";
  }
  std::string path_;
};

TEST_F(DecoderProcessTest, DecodesManyFramesInOneProcess) {
  DecoderProcess decoder;
  for (int i = 0; i < 3; ++i) {
    const auto pixels = decoder.Frame(path_, 0, 64 * 64);
    ASSERT_TRUE(pixels.ok()) << pixels.status();
    EXPECT_EQ(pixels->size(), 64u * 64u);
  }
}

TEST_F(DecoderProcessTest, AnswersWithAnErrorAndGoesOn) {
  DecoderProcess decoder;
  EXPECT_EQ(decoder.Frame(path_ + ".absent", 0, 1).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(decoder.Frame(path_, 7, 64 * 64).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(decoder.Frame(path_, 0, 12).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(decoder.Frame(path_, 0, 64 * 64).ok());
}

// The decoders that this process has running: grandchildren of it.
std::vector<pid_t> RunningDecoders() {
  std::map<pid_t, pid_t> parents;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "stat");
    pid_t process = 0, parent = 0;
    std::string name;
    char state = 0;
    if (file >> process >> name >> state >> parent && state != 'Z') parents[process] = parent;
  }
  std::vector<pid_t> decoders;
  for (const auto& [process, parent] : parents) {
    const auto above = parents.find(parent);
    if (above != parents.end() && above->second == getpid()) decoders.push_back(process);
  }
  return decoders;
}

TEST_F(DecoderProcessTest, DecoderThatDiesIsDataLossAndTheNextOneGoesOn) {
  DecoderProcess decoder;
  ASSERT_TRUE(decoder.Frame(path_, 0, 64 * 64).ok());
  const std::vector<pid_t> running = RunningDecoders();
  ASSERT_EQ(running.size(), 1u);
  kill(running[0], SIGKILL);
  const absl::Status status = decoder.Frame(path_, 0, 64 * 64).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_TRUE(decoder.Frame(path_, 0, 64 * 64).ok());
}

// systemd and a terminal send their signals to all processes of a service.
TEST_F(DecoderProcessTest, DecoderOutlivesTheSignalsThatTellItsOwnerToFinish) {
  DecoderProcess decoder;
  ASSERT_TRUE(decoder.Frame(path_, 0, 64 * 64).ok());
  const std::vector<pid_t> running = RunningDecoders();
  ASSERT_EQ(running.size(), 1u);
  for (int signal_number : {SIGTERM, SIGINT, SIGHUP}) kill(running[0], signal_number);
  EXPECT_TRUE(decoder.Frame(path_, 0, 64 * 64).ok());
}

TEST_F(DecoderProcessTest, EachDecoderIsAProcessOfItsOwnAndEndsWithItsOwner) {
  {
    DecoderProcess one, other;
    ASSERT_TRUE(one.Frame(path_, 0, 64 * 64).ok());
    ASSERT_TRUE(other.Frame(path_, 0, 64 * 64).ok());
    EXPECT_EQ(RunningDecoders().size(), 2u);
  }
  while (!RunningDecoders().empty()) usleep(1000);
}

TEST_F(DecoderProcessTest, DecoderProgramThatWasKilledIsStartedAgain) {
  DecoderProcess before;
  ASSERT_TRUE(before.Frame(path_, 0, 64 * 64).ok());
  std::ifstream stat("/proc/" + std::to_string(RunningDecoders().at(0)) + "/stat");
  pid_t decoder = 0, program = 0;
  std::string name, state;
  stat >> decoder >> name >> state >> program;
  kill(program, SIGKILL);
  while (!RunningDecoders().empty()) usleep(1000);  // its decoders end with it

  EXPECT_EQ(before.Frame(path_, 0, 64 * 64).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(before.Frame(path_, 0, 64 * 64).ok());
}

TEST_F(DecoderProcessTest, ProgramThatIsNoDecoderIsNamed) {
  DecoderProcess decoder("/bin/false");
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = decoder.Frame(path_, 0, 64 * 64).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_TRUE(Contains(status, "/bin/false")) << status;
  }
}

TEST_F(DecoderProcessTest, MissingDecoderSaysWhatToInstall) {
  DecoderProcess decoder("/nonexistent/gvsl-dicom-decoder");
  const absl::Status status = decoder.Frame(path_, 0, 64 * 64).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Contains(status, "/nonexistent/gvsl-dicom-decoder")) << status;
}

// Each byte of the compressed data turned over in turn: never more than a verdict.
TEST_F(DecoderProcessTest, DamagedCodestreamsNeverEndTheProgram) {
  const TemporaryFolder folder;
  for (const char* name :
       {"MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"}) {
    std::ifstream file(DicomDataFolder() + "/odd_files_pydicom/" + name, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    DecoderProcess decoder;
    int damaged = 0;
    for (size_t at = bytes.size() - 4000; at < bytes.size(); at += 23) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(~changed[at]);
      // A new name each time: the decoder keeps the last file open.
      const std::string path = folder / (std::to_string(at) + ".dcm");
      std::ofstream(path, std::ios::binary) << changed;
      const auto pixels = decoder.Frame(path, 0, 64 * 64);
      damaged += !pixels.ok();
      std::filesystem::remove(path);
    }
    EXPECT_TRUE(decoder.Frame(DicomDataFolder() + "/odd_files_pydicom/" + name, 0, 64 * 64).ok())
        << name << ", after " << damaged << " damaged ones";
  }
}

// Found by scripts/fuzz: DCMTK reads where the header points, if that is outside of the frame, too.
TEST_F(DecoderProcessTest, AnRleHeaderThatPointsOutsideOfItsFrameIsNotFollowed) {
  std::ifstream file(DicomDataFolder() + "/odd_files_pydicom/MR_small_RLE.dcm", std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const std::string item("\xFE\xFF\x00\xE0", 4);
  const size_t header = bytes.rfind(item) + 8;  // of the one frame: 2 segments of a byte each
  ASSERT_EQ(bytes[header], 2);
  const TemporaryFolder folder;
  const std::string path = folder / "damaged.dcm";
  for (const char* second : {"\x3F\0\0\0", "\xFF\xFF\xFF\x7F"}) {  // before the first; far away
    bytes.replace(header + 8, 4, second, 4);
    std::ofstream(path, std::ios::binary) << bytes;
    auto pixels = DicomPixelFile::Open(path);
    ASSERT_TRUE(pixels.ok()) << pixels.status();
    const absl::Status status = pixels->Frame(0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_TRUE(Contains(status, "RLE header")) << status;
  }
}

TEST_F(DecoderProcessTest, SliceThatCannotBeDecodedIsLeftOutOfItsVolume) {
  const TemporaryFolder folder;
  const std::vector<std::string> files = FilesOf(DicomDataFolder() + "/d2n_mr_jpegls/dicom");
  std::vector<std::string> paths;
  for (const std::string& path : files) {
    paths.push_back(folder / std::filesystem::path(path).filename().string());
    std::filesystem::copy_file(path, paths.back());
  }
  // The last slice of the stack: the compressed data of its file is overwritten.
  std::fstream file(paths.back(), std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(-60000, std::ios::end);
  file << std::string(50000, '\xFF');
  file.close();

  const Converted converted = ConvertFiles(paths);

  ASSERT_EQ(converted.volumes.size(), 1u);
  EXPECT_EQ(converted.volumes[0].volume.grid().size[2], 3);
  EXPECT_EQ(converted.Count(Verdict::kUndecodable), 1);
}

TEST_F(DecoderProcessTest, WithoutADecoderTheConversionFailsAndLosesNothing) {
  SilenceDicomLog();
  std::vector<DicomInstance> instances;
  for (const std::string& path : FilesOf(DicomDataFolder() + "/d2n_mr_jpegls/dicom")) {
    instances.push_back(ReadDicomInstance(path));
  }
  SeriesOptions options;
  options.decoder_program = "/nonexistent/decoder";
  const auto ledger = ConvertSeries(GroupBySeries(instances)[0], options,
                                    [](SeriesVolume) { return absl::OkStatus(); });
  EXPECT_EQ(ledger.status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gvsl
