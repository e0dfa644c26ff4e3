// What is odd in folders from hospitals: every file gets the right verdict, and none ends the
// program.
#include <gtest/gtest.h>

#include <fstream>

#include "ingest/dicom_pixels.h"
#include "ingest/frame_reader.h"
#include "ingest/series_testing.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

class SeriesVerdictTest : public ::testing::Test {
 protected:
  void SetUp() override {
    data_ = DicomDataFolder();
    if (data_.empty()) GTEST_SKIP() << "no public series (set GVSL_TEST_DATA)";
  }
  std::string Derived(const std::string& name) const {
    return data_ + "/derived_edge_cases/" + name;
  }
  std::string Odd(const std::string& name) const { return data_ + "/odd_files_pydicom/" + name; }
  std::string data_;
};

// The one volume of the crop of 32 slices of 51 x 35, one millimetre apart.
void ExpectWholeCrop(const Converted& converted) {
  ASSERT_EQ(converted.volumes.size(), 1u);
  const Grid& grid = converted.volumes[0].volume.grid();
  EXPECT_EQ(grid.size, (std::array<int64_t, 3>{35, 51, 32}));
  EXPECT_EQ(grid.spacing_mm, (Vec3{1, 1, 1}));
  EXPECT_EQ(grid.origin_mm, (Vec3{0, 0, 1}));
  EXPECT_EQ(converted.Count(Verdict::kUsed), 32);
}

TEST_F(SeriesVerdictTest, NamesAndInstanceNumbersDoNotMatter) {
  const Converted shuffled = ConvertFolder(Derived("shuffled_names"));
  const Converted permuted = ConvertFolder(Derived("permuted_instance_numbers"));
  ExpectWholeCrop(shuffled);
  ExpectWholeCrop(permuted);
  const Volume& a = shuffled.volumes[0].volume;
  const Volume& b = permuted.volumes[0].volume;
  ASSERT_EQ(a.type(), b.type());
  EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), a.byte_count()), 0);
}

TEST_F(SeriesVerdictTest, CopiesAreDuplicates) {
  for (const char* name : {"duplicate_same_sop_uid", "duplicate_new_sop_uid"}) {
    SCOPED_TRACE(name);
    const Converted converted = ConvertFolder(Derived(name));
    ExpectWholeCrop(converted);
    EXPECT_EQ(converted.Count(Verdict::kDuplicate), 1);
  }
}

TEST_F(SeriesVerdictTest, SliceOfAnotherSizeIsLeftOutAndItsPlaceIsAGap) {
  const Converted converted = ConvertFolder(Derived("one_slice_other_size"));
  EXPECT_TRUE(converted.volumes.empty());
  EXPECT_EQ(converted.Of("0008.dcm").verdict, Verdict::kWrongSize);
  EXPECT_EQ(converted.Count(Verdict::kGap), 31);
}

TEST_F(SeriesVerdictTest, SliceOfAnotherSpacingIsLeftOutAndItsPlaceIsAGap) {
  const Converted converted = ConvertFolder(Derived("inconsistent_pixel_spacing"));
  EXPECT_TRUE(converted.volumes.empty());
  EXPECT_EQ(converted.Of("0008.dcm").verdict, Verdict::kWrongSpacing);
  EXPECT_EQ(converted.Count(Verdict::kGap), 31);
}

TEST_F(SeriesVerdictTest, MissingSlicesAreRefusedOrSplit) {
  EXPECT_EQ(ConvertFolder(Derived("missing_interior_slices")).Count(Verdict::kGap), 30);
  SeriesOptions options;
  options.split_at_gaps = true;
  const Converted converted = ConvertFolder(Derived("missing_interior_slices"), options);
  ASSERT_EQ(converted.volumes.size(), 2u);
  EXPECT_EQ(converted.Count(Verdict::kUsed), 30);
  EXPECT_EQ(converted.volumes[0].label, "part 1");
  EXPECT_EQ(converted.volumes[0].volume.grid().size[2], 10);
  EXPECT_EQ(converted.volumes[1].volume.grid().size[2], 20);
  EXPECT_EQ(converted.volumes[1].volume.grid().origin_mm[2], 13);
}

TEST_F(SeriesVerdictTest, SliceWithoutPositionHasNoPlace) {
  const Converted converted = ConvertFolder(Derived("missing_position_tag"));
  EXPECT_EQ(converted.Count(Verdict::kNoPosition), 1);
  EXPECT_EQ(converted.Count(Verdict::kGap), 31);
}

TEST_F(SeriesVerdictTest, TruncatedFileIsNamed) {
  const Converted converted = ConvertFolder(Derived("one_truncated_file"));
  EXPECT_EQ(converted.Of("0008.dcm").verdict, Verdict::kTruncated);
  EXPECT_EQ(converted.Count(Verdict::kGap), 31);
}

TEST_F(SeriesVerdictTest, SeriesOfOneFolderAreParted) {
  const Converted converted = ConvertFolder(Derived("mixed_two_series"));
  ASSERT_EQ(converted.volumes.size(), 2u);
  EXPECT_EQ(converted.Count(Verdict::kUsed), 67);
  EXPECT_EQ(converted.Of("readme.txt").verdict, Verdict::kNotDicom);
}

TEST_F(SeriesVerdictTest, OddFilesAreToldApart) {
  const std::map<std::string, Verdict> expected = {
      {"rtstruct.dcm", Verdict::kNotAnImage},
      {"dicomdirtests_DICOMDIR", Verdict::kNotAnImage},
      {"liver_1frame.dcm", Verdict::kNotAnImage},     // a segmentation
      {"badVR.dcm", Verdict::kUnsupportedClass},      // an RT dose
      {"image_dfl.dcm", Verdict::kUnsupportedClass},  // a secondary capture, deflated
      {"SC_rgb_rle.dcm", Verdict::kColour},
      {"emri_small.dcm", Verdict::kNoPosition},  // its functional groups were cut away
      {"emri_small_RLE.dcm", Verdict::kNoPosition},
      {"emri_small_big_endian.dcm", Verdict::kNoPosition},
      {"no_meta.dcm", Verdict::kNotDicom},  // begins one byte late
      {"meta_missing_tsyntax.dcm", Verdict::kNotDicom},
      {"MR_truncated.dcm", Verdict::kTruncated},
      {"CT_small.dcm", Verdict::kSingleSlice},
      {"MR_small.dcm", Verdict::kSingleSlice},
      {"MR_small_RLE.dcm", Verdict::kSingleSlice},
      {"MR_small_bigendian.dcm", Verdict::kSingleSlice},
      {"MR_small_implicit.dcm", Verdict::kSingleSlice},
      {"MR_small_jp2klossless.dcm", Verdict::kSingleSlice},
      {"MR_small_jpeg_ls_lossless.dcm", Verdict::kSingleSlice},
      {"MR_small_padded.dcm", Verdict::kSingleSlice},
  };
  const std::vector<std::string> files = FilesOf(data_ + "/odd_files_pydicom");
  EXPECT_EQ(files.size(), expected.size());
  for (const std::string& path : files) {
    const std::string name = fs::path(path).filename();
    const Converted converted = ConvertFiles({path});
    ASSERT_EQ(converted.ledger.size(), 1u);
    const auto verdict = expected.find(name);
    ASSERT_NE(verdict, expected.end()) << name;
    EXPECT_STREQ(VerdictName(converted.ledger[0].verdict), VerdictName(verdict->second))
        << name << ": " << converted.ledger[0].detail;
    EXPECT_FALSE(converted.ledger[0].detail.empty()) << name;
  }
}

// The same image in seven encodings: byte orders, with and without explicit VRs, padded,
// compressed.
TEST_F(SeriesVerdictTest, EveryEncodingOfAnImageHasTheSamePixels) {
  FrameReader reader;
  const auto pixels = [&](const char* name) {
    const DicomInstance instance = ReadDicomInstance(Odd(name));
    EXPECT_EQ(instance.verdict, Verdict::kUsed) << name << ": " << instance.detail;
    if (instance.frames.empty()) return std::vector<uint16_t>();
    auto slice = reader.Slice(instance, instance.frames[0]);
    EXPECT_TRUE(slice.ok()) << name << ": " << slice.status();
    return slice.ok() ? *slice : std::vector<uint16_t>();
  };
  const std::vector<uint16_t> original = pixels("MR_small.dcm");
  ASSERT_EQ(original.size(), 64u * 64u);
  for (const char* name :
       {"MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm"}) {
    EXPECT_EQ(pixels(name), original) << name;
  }
}

TEST_F(SeriesVerdictTest, FilesThatAreNotThereAreToldSo) {
  const Converted converted = ConvertFiles({Odd("absent.dcm"), data_});
  EXPECT_EQ(converted.Count(Verdict::kUnreadable), 2);
}

// Every header of the public files, cut at every length up to 2 KB and at others beyond.
TEST_F(SeriesVerdictTest, NoTruncationEndsTheProgram) {
  const TemporaryFolder folder;
  for (const char* name : {"MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"}) {
    std::ifstream file(Odd(name), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    for (size_t length = 0; length < bytes.size(); length += length < 2000 ? 61 : 509) {
      const std::string path = folder / "cut.dcm";
      std::ofstream(path, std::ios::binary) << bytes.substr(0, length);
      const Converted converted = ConvertFiles({path});
      ASSERT_EQ(converted.ledger.size(), 1u);
      EXPECT_TRUE(converted.volumes.empty());
    }
  }
}

}  // namespace
}  // namespace gvsl
