// Series made here, so that every voxel's value and place is known: what scanners may do to a
// series, one thing at a time.
#include <gtest/gtest.h>

#include <functional>

#include "ingest/dicom_attributes.h"
#include "ingest/dicom_series_writer.h"
#include "ingest/series_testing.h"
#include "ingest/siemens_mosaic.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

// Told the dataset of a slice and its number from 0; may change it.
using Edit = std::function<void(DcmDataset& dataset, int slice)>;

void Set(DcmDataset& dataset, const DcmTagKey& key, const std::string& value) {
  EXPECT_TRUE(dataset.putAndInsertString(key, value.c_str()).good()) << key.toString();
}

class SeriesSyntheticTest : public ::testing::Test {
 protected:
  // Writes a series into a folder of its own below the test's.
  std::vector<std::string> Write(const Volume& volume, const std::string& name,
                                 const Edit& edit = {},
                                 E_TransferSyntax syntax = EXS_LittleEndianExplicit,
                                 E_FileWriteMode mode = EWM_fileformat) {
    DicomSeriesOptions options;
    options.uid_seed = "synthetic";
    EXPECT_TRUE(WriteDicomSeries(volume, options, folder_ / name).ok());
    const std::vector<std::string> paths = FilesOf(folder_ / name);
    for (size_t slice = 0; slice < paths.size(); ++slice) {
      DcmFileFormat file;
      EXPECT_TRUE(file.loadFile(paths[slice].c_str()).good());
      file.loadAllDataIntoMemory();
      if (edit) edit(*file.getDataset(), static_cast<int>(slice));
      EXPECT_TRUE(file.saveFile(paths[slice].c_str(), syntax, EET_ExplicitLength, EGL_recalcGL,
                                EPD_noChange, 0, 0, mode)
                      .good());
    }
    return paths;
  }

  static Volume Image(const std::array<int64_t, 3>& size = {6, 5, 4}) {
    return Filled<int16_t>(GridOf(size, {0.7, 1.3, 2.5}, {-10, 20, 30}), Scrambled);
  }

  TemporaryFolder folder_;
};

void ExpectSameVolume(const Volume& made, const Volume& original) {
  ExpectSameLattice(made.grid(), original.grid(), 1e-9);  // decimal strings of 16 characters
  ASSERT_EQ(made.voxel_count(), original.voxel_count());
  for (int64_t i = 0; i < made.voxel_count(); ++i) {
    ASSERT_EQ(ValueAt(made, i), ValueAt(original, i)) << "voxel " << i;
  }
}

TEST_F(SeriesSyntheticTest, WrittenSeriesComesBackAsItWas) {
  const Volume original = Image();
  Write(original, "ct");
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  ExpectSameVolume(converted.volumes[0].volume, original);
  EXPECT_EQ(converted.volumes[0].volume.modality(), "CT");
  EXPECT_EQ(converted.volumes[0].volume.type(), VoxelType::kInt16);
}

TEST_F(SeriesSyntheticTest, ObliqueSeriesComesBackAsItWas) {
  Grid grid = GridOf({6, 5, 4}, {0.7, 1.3, 2.5}, {-10, 20, 30});
  grid.direction = Rotation(20);
  const Volume original = Filled<int16_t>(grid, Scrambled);
  Write(original, "ct");
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  ExpectSameVolume(converted.volumes[0].volume, original);
}

TEST_F(SeriesSyntheticTest, EncodingsThatDcmtkWritesComeBackAsTheyWere) {
  const Volume original = Image();
  Write(original, "deflated", {}, EXS_DeflatedLittleEndianExplicit);
  Write(original, "big_endian", {}, EXS_BigEndianExplicit);
  Write(original, "implicit", {}, EXS_LittleEndianImplicit);
  Write(original, "no_meta_header", {}, EXS_LittleEndianImplicit, EWM_dataset);
  for (const char* name : {"deflated", "big_endian", "implicit", "no_meta_header"}) {
    SCOPED_TRACE(name);
    const Converted converted = ConvertFolder(folder_ / name);
    ASSERT_EQ(converted.volumes.size(), 1u) << converted.ledger[0].detail;
    ExpectSameVolume(converted.volumes[0].volume, original);
  }
}

TEST_F(SeriesSyntheticTest, EachSliceIsRescaledByItsOwnSlope) {
  const Volume original = Image();
  Write(original, "pet", [](DcmDataset& dataset, int slice) {
    Set(dataset, DCM_SOPClassUID, UID_PositronEmissionTomographyImageStorage);
    Set(dataset, DCM_Modality, "PT");
    Set(dataset, DCM_RescaleSlope, std::to_string(0.5 * (slice + 1)));
    Set(dataset, DCM_RescaleIntercept, "0");
  });
  const Converted converted = ConvertFolder(folder_ / "pet");
  ASSERT_EQ(converted.volumes.size(), 1u);
  const Volume& made = converted.volumes[0].volume;
  EXPECT_EQ(made.type(), VoxelType::kFloat32);
  for (int64_t i = 0; i < made.voxel_count(); ++i) {
    const double stored = ValueAt(original, i) + 1024;  // as the writer stores HU
    const double slope = 0.5 * static_cast<double>(i / 30 + 1);
    ASSERT_EQ(ValueAt(made, i), slope * stored);
  }
}

TEST_F(SeriesSyntheticTest, BitsOutsideOfBitsStoredAreDroppedAndTheSignIsExtended) {
  const Volume original = Image();
  Write(original, "ct", [](DcmDataset& dataset, int) {
    const Uint16* stored = nullptr;
    unsigned long count = 0;
    ASSERT_TRUE(dataset.findAndGetUint16Array(DCM_PixelData, stored, &count).good());
    std::vector<Uint16> pixels(stored, stored + count);
    // Values as 12 signed bits, bits 2 to 13, with garbage around them.
    for (Uint16& pixel : pixels) {
      const int value = pixel - 1024;
      pixel = static_cast<Uint16>((value & 0xFFF) << 2 | 0xC001);
    }
    dataset.putAndInsertUint16Array(DCM_PixelData, pixels.data(), count);
    dataset.putAndInsertUint16(DCM_PixelRepresentation, 1);
    dataset.putAndInsertUint16(DCM_BitsStored, 12);
    dataset.putAndInsertUint16(DCM_HighBit, 13);
    Set(dataset, DCM_RescaleIntercept, "0");
  });
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  ExpectSameVolume(converted.volumes[0].volume, original);
}

TEST_F(SeriesSyntheticTest, PaddingOfACtIsAir) {
  const Volume original = Image();
  Write(original, "ct", [](DcmDataset& dataset, int) {
    dataset.putAndInsertUint16(DCM_PixelPaddingValue, 1024);  // 0 HU
    dataset.putAndInsertUint16(DCM_PixelPaddingRangeLimit, 1324);
  });
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  int64_t padded = 0;
  for (int64_t i = 0; i < original.voxel_count(); ++i) {
    const double value = ValueAt(original, i);
    const bool is_padding = value >= 0 && value <= 300;
    padded += is_padding;
    ASSERT_EQ(ValueAt(converted.volumes[0].volume, i), is_padding ? -1024 : value);
  }
  EXPECT_GT(padded, 0);
  EXPECT_EQ(converted.volumes[0].padding_voxels, padded);
}

TEST_F(SeriesSyntheticTest, ValuesBeyondSixteenBitsWiden) {
  const Volume original = Filled<int32_t>(GridOf({6, 5, 4}), [](int64_t x, int64_t y, int64_t z) {
    return 33000 + Scrambled(x, y, z);
  });
  Write(original, "ct");
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  EXPECT_EQ(converted.volumes[0].volume.type(), VoxelType::kInt32);
  ExpectSameVolume(converted.volumes[0].volume, original);
}

// Two images of every place. `key` is what tells them apart.
class SeriesRepeatTest : public SeriesSyntheticTest {
 protected:
  Converted Repeats(const Edit& first, const Edit& second) {
    const Volume a = Image(), b = Filled<int16_t>(a.grid(), [](int64_t x, int64_t y, int64_t z) {
                                return Scrambled(x, y, z) / 2;
                              });
    std::vector<std::string> paths = Write(a, "a", first);
    for (const std::string& path : Write(b, "b", [&](DcmDataset&dataset, int slice) {
           Set(dataset, DCM_SOPInstanceUID, DerivedUid("second", std::to_string(slice)));
           dataset.putAndInsertString(DCM_InstanceNumber, std::to_string(slice + 101).c_str());
           second(dataset, slice);
         })) {
      paths.push_back(path);
    }
    Converted converted = ConvertFiles(paths);
    if (converted.volumes.size() == 2) {
      ExpectSameVolume(converted.volumes[0].volume, a);
      ExpectSameVolume(converted.volumes[1].volume, b);
    }
    return converted;
  }
  static Edit Setting(const DcmTagKey& key, const std::string& value) {
    return [=](DcmDataset& dataset, int) { Set(dataset, key, value); };
  }
};

TEST_F(SeriesRepeatTest, EchoesPhasesBValuesAndTimesAreVolumesOfTheirOwn) {
  struct Case {
    DcmTagKey key;
    const char *first, *second, *label;
  };
  for (const Case& c : {Case{DCM_EchoTime, "4.6", "9.2", "echo time 9.2"},
                        Case{DCM_TemporalPositionIdentifier, "1", "2", "temporal position 2"},
                        Case{DCM_TriggerTime, "0", "350", "cardiac phase 350"},
                        Case{DCM_DiffusionBValue, "0", "1000", "b-value 1000"},
                        Case{DCM_AcquisitionNumber, "1", "2", "acquisition 2"},
                        Case{DCM_ImageType, "ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P",
                             "image type ORIGINAL\\PRIMARY\\P"}}) {
    SCOPED_TRACE(c.label);
    const auto value = [&](const char* text) -> Edit {
      if (c.key != DCM_DiffusionBValue) return Setting(c.key, text);
      return [&, text](DcmDataset& dataset, int) {
        dataset.putAndInsertFloat64(c.key, std::stod(text));
      };
    };
    const Converted converted = Repeats(value(c.first), value(c.second));
    ASSERT_EQ(converted.volumes.size(), 2u);
    EXPECT_EQ(converted.volumes[1].label, c.label);
    EXPECT_EQ(converted.Count(Verdict::kUsed), 8);
  }
}

TEST_F(SeriesRepeatTest, WhatNothingTellsApartFollowsItsNumbers) {
  const Edit nothing = [](DcmDataset&, int) {};
  const Converted converted = Repeats(nothing, nothing);
  ASSERT_EQ(converted.volumes.size(), 2u);
  EXPECT_EQ(converted.volumes[1].label, "repeat 2");
}

TEST_F(SeriesRepeatTest, KeyThatDiffersFromSliceToSliceDoesNotSplit) {
  const Volume original = Image();
  Write(original, "ct", [](DcmDataset& dataset, int slice) {
    Set(dataset, DCM_AcquisitionNumber, std::to_string(slice));
  });
  EXPECT_EQ(ConvertFolder(folder_ / "ct").volumes.size(), 1u);
}

TEST_F(SeriesRepeatTest, OneSecondSliceAtAPlaceIsAmbiguous) {
  std::vector<std::string> paths = Write(Image(), "a");
  const Volume other = Filled<int16_t>(Image().grid(), [](int64_t, int64_t, int64_t) { return 5; });
  paths.push_back(Write(other, "b", [](DcmDataset& dataset, int slice) {
    Set(dataset, DCM_SOPInstanceUID, DerivedUid("second", std::to_string(slice)));
  })[1]);
  const Converted converted = ConvertFiles(paths);
  EXPECT_TRUE(converted.volumes.empty());
  EXPECT_EQ(converted.Count(Verdict::kAmbiguousPosition), 5);
}

TEST_F(SeriesRepeatTest, SameUidWithOtherContentIsAConflict) {
  std::vector<std::string> paths = Write(Image(), "a");
  const Volume other = Filled<int16_t>(Image().grid(), [](int64_t, int64_t, int64_t) { return 5; });
  paths.push_back(Write(other, "b")[1]);
  const Converted converted = ConvertFiles(paths);
  ASSERT_EQ(converted.volumes.size(), 1u);
  EXPECT_EQ(converted.Count(Verdict::kConflict), 1);
}

// A field that is linear in space is interpolated without error (but for the rounding to integers,
// half a unit), wherever the slices lie.
double LinearField(const Vec3& at) { return std::round(8 * at[0] + 5 * at[1] + 11 * at[2]); }

void ExpectLinearField(const Volume& volume, int64_t margin_rows) {
  const Grid& grid = volume.grid();
  for (int64_t z = 0; z < grid.size[2]; ++z) {
    for (int64_t y = margin_rows; y < grid.size[1] - margin_rows; ++y) {
      for (int64_t x = 0; x < grid.size[0]; ++x) {
        const Vec3 at = grid.IndexToPhysical(
            {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)});
        const double value = ValueAt(volume, (z * grid.size[1] + y) * grid.size[0] + x);
        // Stored values and the result are both rounded.
        ASSERT_NEAR(value, 8 * at[0] + 5 * at[1] + 11 * at[2], 1.01) << x << "," << y << "," << z;
      }
    }
  }
}

TEST_F(SeriesSyntheticTest, TiltIsShearedWithAirOutside) {
  // Each slice 0.6 mm further along y: a tilt of 13.5 degrees with steps of 2.5 mm.
  const Grid grid = GridOf({8, 30, 6}, {1, 1, 2.5}, {0, 0, 0});
  const Volume tilted = Filled<int16_t>(grid, [&](int64_t x, int64_t y, int64_t z) {
    return LinearField({1.0 * x, y + 0.6 * z, 2.5 * z});
  });
  Write(tilted, "ct", [](DcmDataset& dataset, int slice) {
    Set(dataset, DCM_ImagePositionPatient,
        "0\\" + std::to_string(0.6 * slice) + "\\" + std::to_string(2.5 * slice));
  });
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  const SeriesVolume& made = converted.volumes[0];
  EXPECT_TRUE(made.geometry.resampled);
  EXPECT_NEAR(made.geometry.tilt_degrees, std::atan(0.6 / 2.5) * 180 / M_PI, 1e-4);
  EXPECT_EQ(made.volume.grid().size, (std::array<int64_t, 3>{8, 33, 6}));
  EXPECT_EQ(made.volume.grid().origin_mm, (Vec3{0, 0, 0}));
  ExpectLinearField(made.volume, 3);
  // The first slice has nothing in the three rows that the last one needs.
  EXPECT_EQ(ValueAt(made.volume, 32 * 8), -1024);
  EXPECT_EQ(ValueAt(made.volume, (5 * 33 + 0) * 8), -1024);
}

TEST_F(SeriesSyntheticTest, UnevenStepsBecomeEvenOnes) {
  const std::vector<double> depths = {0, 2, 4, 6, 8.5, 11, 13.5};
  const Volume uneven = Filled<int16_t>(GridOf({8, 6, 7}), [&](int64_t x, int64_t y, int64_t z) {
    return LinearField({1.0 * x, 1.0 * y, depths[z]});
  });
  Write(uneven, "ct", [&](DcmDataset& dataset, int slice) {
    Set(dataset, DCM_ImagePositionPatient, "0\\0\\" + std::to_string(depths[slice]));
  });
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  EXPECT_EQ(converted.volumes[0].volume.grid().spacing_mm[2], 2);
  EXPECT_EQ(converted.volumes[0].volume.grid().size[2], 7);  // 0 to 12 mm
  EXPECT_EQ(converted.volumes[0].geometry.min_step_mm, 2);
  EXPECT_EQ(converted.volumes[0].geometry.max_step_mm, 2.5);
  ExpectLinearField(converted.volumes[0].volume, 0);
}

TEST_F(SeriesSyntheticTest, ScoutIsLeftOut) {
  Write(Image(), "ct", [](DcmDataset& dataset, int slice) {
    if (slice == 3) Set(dataset, DCM_ImageType, "ORIGINAL\\PRIMARY\\LOCALIZER");
  });
  const Converted converted = ConvertFolder(folder_ / "ct");
  ASSERT_EQ(converted.volumes.size(), 1u);
  EXPECT_EQ(converted.volumes[0].volume.grid().size[2], 3);
  EXPECT_EQ(converted.Count(Verdict::kLocalizer), 1);
}

TEST_F(SeriesSyntheticTest, VolumeBeyondTheMemoryAllowedIsRefused) {
  Write(Image(), "ct");
  SeriesOptions options;
  options.max_volume_bytes = 100;
  EXPECT_EQ(ConvertFolder(folder_ / "ct", options).Count(Verdict::kTooLarge), 4);
}

// Four positions of two echoes, frames in no order, as one enhanced instance.
TEST_F(SeriesSyntheticTest, EnhancedFramesAreOrderedAndSplitByTheirFunctionalGroups) {
  const std::string path = Write(Image({6, 5, 2}), "mr")[0];
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  DcmDataset& dataset = *file.getDataset();
  Set(dataset, DCM_SOPClassUID, UID_EnhancedMRImageStorage);
  Set(dataset, DCM_Modality, "MR");
  Set(dataset, DCM_NumberOfFrames, "8");
  for (const DcmTagKey& key : {DCM_ImagePositionPatient, DCM_ImageOrientationPatient,
                               DCM_PixelSpacing, DCM_RescaleSlope, DCM_RescaleIntercept}) {
    dataset.findAndDeleteElement(key);
  }
  const auto group = [](DcmItem* item, const DcmTagKey& sequence) {
    DcmItem* macro = nullptr;
    item->findOrCreateSequenceItem(sequence, macro, -2);
    return macro;
  };
  DcmItem* shared = group(&dataset, DCM_SharedFunctionalGroupsSequence);
  group(shared, DCM_PlaneOrientationSequence)
      ->putAndInsertString(DCM_ImageOrientationPatient, "1\\0\\0\\0\\1\\0");
  group(shared, DCM_PixelMeasuresSequence)->putAndInsertString(DCM_PixelSpacing, "1.5\\0.5");
  std::vector<Uint16> pixels;
  for (int frame = 0; frame < 8; ++frame) {
    const int place = frame * 3 % 4, echo = frame / 4;
    DcmItem* own = group(&dataset, DCM_PerFrameFunctionalGroupsSequence);
    group(own, DCM_PlanePositionSequence)
        ->putAndInsertString(DCM_ImagePositionPatient,
                             ("0\\0\\" + std::to_string(2 * place)).c_str());
    group(own, DCM_MREchoSequence)->putAndInsertFloat64(DCM_EffectiveEchoTime, 10 + 5 * echo);
    DcmItem* values = group(own, DCM_PixelValueTransformationSequence);
    values->putAndInsertString(DCM_RescaleSlope, "0.25");
    values->putAndInsertString(DCM_RescaleIntercept, std::to_string(frame).c_str());
    for (int i = 0; i < 30; ++i) pixels.push_back(static_cast<Uint16>(100 * place + echo));
  }
  dataset.putAndInsertUint16Array(DCM_PixelData, pixels.data(), pixels.size());
  const std::string enhanced = folder_ / "enhanced.dcm";
  ASSERT_TRUE(file.saveFile(enhanced.c_str(), EXS_LittleEndianExplicit).good());

  const Converted converted = ConvertFiles({enhanced});

  ASSERT_EQ(converted.volumes.size(), 2u) << converted.ledger[0].detail;
  for (int echo = 0; echo < 2; ++echo) {
    const SeriesVolume& made = converted.volumes[echo];
    EXPECT_EQ(made.label, echo == 0 ? "echo time 10" : "echo time 15");
    EXPECT_EQ(made.volume.grid().spacing_mm, (Vec3{0.5, 1.5, 2}));
    for (int place = 0; place < 4; ++place) {
      const int frame = echo * 4 + place * 3 % 4;
      EXPECT_EQ(made.slices[place].frame, frame + 1);
      EXPECT_EQ(ValueAt(made.volume, place * 30), 0.25 * (100 * place + echo) + frame);
    }
  }
}

// A header that tells lengths beyond its end, or numbers of items that never come.
TEST(SiemensCsaTest, DamagedHeadersHaveNoValues) {
  std::string header(2000, '\xFF');
  const auto values = [&] {
    return CsaValues(reinterpret_cast<const uint8_t*>(header.data()), header.size(), "Field");
  };
  EXPECT_TRUE(values().empty());
  header.replace(0, 4, "SV10");
  EXPECT_TRUE(values().empty());
  for (size_t length = 0; length < 200; ++length) {
    header.assign(length, '\x01');
    EXPECT_TRUE(values().empty());
  }
}

}  // namespace
}  // namespace gvsl
