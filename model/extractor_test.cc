#include "model/extractor.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "imaging/orientation.h"
#include "imaging/parallel.h"
#include "imaging/status_reason.h"
#include "model/network.h"
#include "model/sliding_window.h"
#include "model/test_features.h"

namespace gvsl {
namespace {

constexpr int64_t kChannels = 8, kGlobalChannels = 128;  // of the tiny size
// The same sums in another order: float32 rounding through 18 layers (unet_engine_test.cc).
constexpr double kRounding = 1e-4;

WindowOptions Window(int64_t side, double overlap = 0.25) {
  WindowOptions options;
  options.window = side;
  options.overlap = overlap;
  return options;
}

DenseOptions Dense(int64_t side, double overlap = 0.25) {
  DenseOptions options;
  options.window = Window(side, overlap);
  return options;
}

class ExtractorTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TestFolder("extractor_test");
    extractor_ = TinyExtractor(Model(), ModelCard()).release();
    unet_ = new UNet(*WidthsOf("tiny"));
    const LoadedModel model = *LoadModel(Model());
    const torch::NoGradGuard no_grad;
    size_t k = 0;
    for (auto& parameter : (*unet_)->parameters()) parameter.copy_(model.state[k++].second);
  }
  static void TearDownTestSuite() {
    delete unet_;
    delete extractor_;
    delete folder_;
  }
  static std::string Model() { return *folder_ / "tiny.safetensors"; }

  // The network's own answer for a box of the volume's voxels, zero outside: the volume lies on the
  // model's grid and its window is 0..2048.
  static UNetFeatures Network(const Volume& volume, const std::array<int64_t, 3>& begin,
                              const std::array<int64_t, 3>& side) {
    at::Tensor image = at::zeros({1, 1, side[2], side[1], side[0]});
    const auto& size = volume.grid().size;
    auto values = image.accessor<float, 5>();
    for (int64_t z = 0; z < side[2]; ++z) {
      for (int64_t y = 0; y < side[1]; ++y) {
        for (int64_t x = 0; x < side[0]; ++x) {
          const std::array<int64_t, 3> v = {begin[0] + x, begin[1] + y, begin[2] + z};
          bool inside = true;
          for (int i = 0; i < 3; ++i) inside = inside && v[i] >= 0 && v[i] < size[i];
          if (!inside) continue;
          const float value = volume.voxels<int16_t>()[(v[2] * size[1] + v[1]) * size[0] + v[0]];
          values[0][0][z][y][x] = std::clamp(value / 2048, 0.0f, 1.0f);
        }
      }
    }
    const torch::NoGradGuard no_grad;
    return (*unet_)->forward(image);
  }

  static TestFolder* folder_;
  static Extractor* extractor_;
  static UNet* unet_;
};
TestFolder* ExtractorTest::folder_ = nullptr;
Extractor* ExtractorTest::extractor_ = nullptr;
UNet* ExtractorTest::unet_ = nullptr;

TEST_F(ExtractorTest, GivesAVolumeThatFitsIntoAWindowTheNetworksOwnFeatures) {
  // Odd sides, padded as the official network pads; overlap and blending have nothing to do.
  const Volume volume = NoiseVolume({37, 21, 18}, {1, 1, 1});
  const UNetFeatures expected = Network(volume, {0, 0, 0}, {37, 21, 18});
  const auto global = extractor_->Global(volume, Window(48), nullptr);
  ASSERT_TRUE(global.ok());
  ASSERT_EQ(static_cast<int64_t>(global->size()), kGlobalChannels);
  const at::Tensor mean = expected.global.mean({0, 2, 3, 4});
  for (int64_t c = 0; c < kGlobalChannels; ++c) {
    EXPECT_NEAR((*global)[static_cast<size_t>(c)], mean[c].item<float>(), kRounding) << c;
  }
  const DenseField field = DenseOf(*extractor_, volume, Dense(48));
  EXPECT_TRUE(field.header.grid == volume.grid());
  EXPECT_EQ(field.header.channels, kChannels);
  const at::Tensor dense = expected.dense[0].permute({1, 0, 2, 3}).contiguous();
  const std::vector<float> values(dense.data_ptr<float>(), dense.data_ptr<float>() + dense.numel());
  EXPECT_LT(WorstDifference(field.values, values), kRounding);

  DenseOptions other = Dense(64, 0.75);
  other.window.gaussian = false;
  EXPECT_TRUE(DenseOf(*extractor_, volume, other).values == field.values);
}

TEST_F(ExtractorTest, BlendsWindowsByTheirWeightsAndAveragesTheirBottlenecks) {
  const Volume volume = NoiseVolume({41, 32, 20}, {1, 1, 1});
  const auto axis = [&](int i) { return WindowAxis(volume.grid().size[i], 32, 0.25, true); };
  const std::array<WindowAxis, 3> windows = {axis(0), axis(1), axis(2)};
  const std::array<int64_t, 3> side = {windows[0].side(), windows[1].side(), windows[2].side()};
  ASSERT_EQ(windows[0].count(), 2);
  at::Tensor sum = at::zeros({kChannels, 20, 32, 41}, at::kDouble);
  at::Tensor global = at::zeros({kGlobalChannels}, at::kDouble);
  for (int64_t k = 0; k < 2; ++k) {
    const std::array<int64_t, 3> start = {windows[0].start(k), windows[1].start(0),
                                          windows[2].start(0)};
    const UNetFeatures features = Network(volume, start, side);
    global += features.global.to(at::kDouble).mean({0, 2, 3, 4}) / 2;  // equal shares of volume
    for (int64_t x = windows[0].begin(k); x < windows[0].end(k); ++x) {
      sum.select(3, x) +=
          windows[0].weight(k, x) *
          features.dense[0].select(3, x - start[0]).narrow(1, -start[2], 20).to(at::kDouble);
    }
  }
  const DenseField field = DenseOf(*extractor_, volume, Dense(32));
  const at::Tensor expected = sum.permute({1, 0, 2, 3}).to(at::kFloat).contiguous();
  EXPECT_LT(WorstDifference(field.values,
                            std::vector<float>(expected.data_ptr<float>(),
                                               expected.data_ptr<float>() + expected.numel())),
            kRounding);
  const auto vector = extractor_->Global(volume, Window(32), nullptr);
  ASSERT_TRUE(vector.ok());
  for (int64_t c = 0; c < kGlobalChannels; ++c) {
    EXPECT_NEAR((*vector)[static_cast<size_t>(c)], global[c].item<double>(), kRounding) << c;
  }
}

TEST_F(ExtractorTest, TakesVolumesOfAnySize) {
  for (const auto& size : {std::array<int64_t, 3>{2, 2, 2},
                           {3, 70, 5},
                           {16, 16, 16},
                           {17, 33, 49},
                           {15, 16, 33},
                           {90, 2, 31}}) {
    const Volume volume = NoiseVolume(size, {1, 1, 1});
    const DenseField field = DenseOf(*extractor_, volume, Dense(32));
    EXPECT_EQ(field.header.grid.size, size);
    EXPECT_EQ(static_cast<int64_t>(field.values.size()), kChannels * volume.voxel_count());
    EXPECT_TRUE(std::all_of(field.values.begin(), field.values.end(),
                            [](float value) { return std::isfinite(value); }));
  }
}

TEST_F(ExtractorTest, GivesFiniteFeaturesOfAnEmptyImage) {
  Volume volume = NoiseVolume({40, 34, 20}, {1, 1, 1});
  std::fill_n(volume.mutable_voxels<int16_t>(), volume.voxel_count(), int16_t{-1000});
  const UNetFeatures expected = Network(volume, {0, 0, 0}, {40, 34, 20});
  const DenseField field = DenseOf(*extractor_, volume, Dense(48));
  const at::Tensor dense = expected.dense[0].permute({1, 0, 2, 3}).contiguous();
  // Where an image is constant the norms divide by little, and rounding shows most.
  EXPECT_LT(
      WorstDifference(field.values, std::vector<float>(dense.data_ptr<float>(),
                                                       dense.data_ptr<float>() + dense.numel())),
      10 * kRounding);
}

TEST_F(ExtractorTest, DoesNotDependOnHowTheVolumeIsStored) {
  const Volume volume = NoiseVolume({40, 26, 19}, {1.2, 0.9, 2});
  const auto global = extractor_->Global(volume, Window(32), nullptr);
  const DenseField model_space = DenseOf(*extractor_, volume, Dense(32));
  DenseOptions onto_volume = Dense(32);
  onto_volume.volume_space = true;
  const DenseField volume_space = DenseOf(*extractor_, volume, onto_volume);
  for (const char* codes : {"RAS", "SPL", "IAR", "PSL"}) {
    const Volume stored = *Reorient(volume, codes);
    EXPECT_TRUE(*extractor_->Global(stored, Window(32), nullptr) == *global) << codes;
    EXPECT_TRUE(DenseOf(*extractor_, stored, Dense(32)).values == model_space.values) << codes;
    // On the volume's own grid: planes along another axis are blended in another order.
    const DenseField field = DenseOf(*extractor_, stored, onto_volume);
    ASSERT_TRUE(field.header.grid == stored.grid()) << codes;
    const Reorientation back = *ReorientationTo(volume.grid(), codes);
    double worst = 0;
    const auto& size = stored.grid().size;
    for (int64_t z = 0; z < size[2]; ++z) {
      for (int64_t y = 0; y < size[1]; ++y) {
        for (int64_t x = 0; x < size[0]; ++x) {
          const std::array<int64_t, 3> here = {x, y, z};
          std::array<int64_t, 3> there;
          for (int i = 0; i < 3; ++i) {
            there[back.source_axis[i]] = back.flipped[i] ? size[i] - 1 - here[i] : here[i];
          }
          for (int64_t c = 0; c < kChannels; ++c) {
            worst = std::max<double>(
                worst,
                std::abs(field.at(c, z, y, x) - volume_space.at(c, there[2], there[1], there[0])));
          }
        }
      }
    }
    EXPECT_LT(worst, 1e-5) << codes;  // features of up to 5, a few roundings
  }
}

TEST_F(ExtractorTest, ARegionWithAStrideIsThatPartOfTheWhole) {
  const Volume volume = NoiseVolume({44, 29, 38}, {1, 1, 1});
  for (bool volume_space : {false, true}) {
    DenseOptions options = Dense(32);
    options.volume_space = volume_space;
    const DenseField whole = DenseOf(*extractor_, volume, options);
    options.roi_begin = {5, 3, 8};
    options.roi_end = {43, 28, 30};
    for (int64_t stride : {1, 3, 100}) {
      options.stride = stride;
      const DenseField part = DenseOf(*extractor_, volume, options);
      const Grid& grid = part.header.grid;
      EXPECT_EQ(grid.origin_mm, volume.grid().IndexToPhysical({5, 3, 8}));
      EXPECT_EQ(grid.spacing_mm[0], static_cast<double>(stride));
      EXPECT_EQ(grid.size,
                (std::array<int64_t, 3>{(38 + stride - 1) / stride, (25 + stride - 1) / stride,
                                        (22 + stride - 1) / stride}));
      double worst = 0;
      for (int64_t z = 0; z < grid.size[2]; ++z) {
        for (int64_t c = 0; c < kChannels; ++c) {
          for (int64_t y = 0; y < grid.size[1]; ++y) {
            for (int64_t x = 0; x < grid.size[0]; ++x) {
              const float expected = whole.at(c, 8 + z * stride, 3 + y * stride, 5 + x * stride);
              worst = std::max<double>(worst, std::abs(part.at(c, z, y, x) - expected));
            }
          }
        }
      }
      // On the model's grid bit for bit; on the volume's the region's origin is another number, and
      // the places between voxels are rounded from it.
      EXPECT_LE(worst, volume_space ? 1e-5 : 0) << "stride " << stride;
    }
  }
}

TEST_F(ExtractorTest, SamplesTheDenseFeaturesAtVoxelsAndLinearlyBetweenThem) {
  const Volume volume = NoiseVolume({44, 29, 38}, {1.5, 1, 1});
  const DenseField dense = DenseOf(*extractor_, volume, Dense(32));
  const Grid& grid = dense.header.grid;
  std::vector<std::array<int64_t, 3>> voxels;
  std::vector<Vec3> points;
  for (int64_t n = 0; n < 60; ++n) {
    voxels.push_back(
        {n * 7 % (grid.size[0] - 1), n * 11 % (grid.size[1] - 1), n * 5 % (grid.size[2] - 1)});
    const Vec3 index = {static_cast<double>(voxels.back()[0]),
                        static_cast<double>(voxels.back()[1]),
                        static_cast<double>(voxels.back()[2])};
    points.push_back(grid.IndexToPhysical(index));
    points.push_back(grid.IndexToPhysical({index[0] + 0.25, index[1] + 0.5, index[2] + 0.75}));
  }
  const auto samples = extractor_->Sample(volume, points, Window(32), nullptr);
  ASSERT_TRUE(samples.ok()) << Message(samples.status());
  ASSERT_EQ(samples->size(), points.size());
  double worst = 0;
  for (size_t n = 0; n < voxels.size(); ++n) {
    ASSERT_EQ((*samples)[2 * n].values.size(), static_cast<size_t>(kChannels));
    const auto [x, y, z] = voxels[n];
    for (int64_t c = 0; c < kChannels; ++c) {
      double between = 0;
      for (int corner = 0; corner < 8; ++corner) {
        const int dx = corner & 1, dy = corner >> 1 & 1, dz = corner >> 2;
        between +=
            (dx ? 0.25 : 0.75) * 0.5 * (dz ? 0.75 : 0.25) * dense.at(c, z + dz, y + dy, x + dx);
      }
      const size_t channel = static_cast<size_t>(c);
      worst =
          std::max({worst, std::abs((*samples)[2 * n].values[channel] - dense.at(c, z, y, x) + 0.0),
                    std::abs((*samples)[2 * n + 1].values[channel] - between)});
    }
  }
  EXPECT_LT(worst, 1e-5);  // blended in double precision here, in single there
}

TEST_F(ExtractorTest, EveryMethodGivesAsManyLevelsAsAsked) {
  const Volume volume = NoiseVolume({41, 33, 20}, {1, 1, 1});
  const DenseField last = DenseOf(*extractor_, volume, Dense(32));
  DenseOptions options = Dense(32);
  options.window.levels = 3;
  const int64_t channels = 8 + 16 + 32;
  const DenseField dense = DenseOf(*extractor_, volume, options);
  ASSERT_EQ(dense.header.channels, channels);
  const auto at = [](const DenseField& field, int64_t voxel, int64_t c) {
    return field.at(c, voxel / (33 * 41), voxel / 41 % 33, voxel % 41);
  };
  Volume labels = *Volume::Allocate(volume.grid(), VoxelType::kUint8, VolumeKind::kLabels);
  std::vector<Vec3> points;
  for (int64_t i = 100; i < labels.voxel_count(); i += 997) {
    labels.mutable_voxels<uint8_t>()[i] = 1;
    points.push_back(volume.grid().IndexToPhysical({static_cast<double>(i % 41),
                                                    static_cast<double>(i / 41 % 33),
                                                    static_cast<double>(i / (33 * 41))}));
  }
  const auto samples = extractor_->Sample(volume, points, options.window, nullptr);
  ASSERT_TRUE(samples.ok()) << Message(samples.status());
  const auto pooled = extractor_->Pool(volume, labels, options.window, nullptr);
  ASSERT_TRUE(pooled.ok()) << Message(pooled.status());
  ASSERT_EQ(pooled->at(0).mean.size(), static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, squares = 0;
    for (size_t p = 0; p < points.size(); ++p) {
      const int64_t voxel = 100 + 997 * static_cast<int64_t>(p);
      const float value = at(dense, voxel, c);
      if (c < kChannels) {
        EXPECT_EQ(value, at(last, voxel, c)) << "the last level comes first, unchanged";
      }
      ASSERT_EQ((*samples)[p].values.size(), static_cast<size_t>(channels));
      EXPECT_NEAR((*samples)[p].values[static_cast<size_t>(c)], value, 1e-5);
      sum += value;
      squares += static_cast<double>(value) * value;
    }
    const double count = static_cast<double>(points.size());
    EXPECT_NEAR(pooled->at(0).mean[static_cast<size_t>(c)], sum / count, 1e-6);
    EXPECT_GT(squares / count - sum / count * (sum / count), 1e-6) << "level of channel " << c;
  }
}

TEST_F(ExtractorTest, ComputesOnlyTheWindowsThatHoldPoints) {
  const Volume volume = NoiseVolume({80, 80, 80}, {1, 1, 1});  // 4^3 windows
  int passes = 0;
  const auto count = [&] {
    ++passes;
    return false;
  };
  const auto corner = extractor_->Sample(volume, {volume.grid().IndexToPhysical({2.5, 3.5, 4.5})},
                                         Window(32), count);
  ASSERT_TRUE(corner.ok());
  EXPECT_EQ(passes, 1);
  EXPECT_EQ((*corner)[0].values.size(), static_cast<size_t>(kChannels));
}

TEST_F(ExtractorTest, TellsPointsOutsideTheVolume) {
  const Volume volume = NoiseVolume({20, 20, 20}, {1, 1, 1});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto at = [&](double x) { return volume.grid().IndexToPhysical({x, 10, 10}); };
  const auto samples =
      extractor_->Sample(volume, {at(-0.51), at(-0.49), at(19.49), at(19.51), at(1e300), at(nan)},
                         Window(32), nullptr);
  ASSERT_TRUE(samples.ok());
  const bool outside[] = {true, false, false, true, true, true};
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ((*samples)[i].out_of_view, outside[i]) << i;
    EXPECT_EQ((*samples)[i].values.empty(), outside[i]) << i;
  }
}

TEST_F(ExtractorTest, PoolsTheDenseFeaturesOfEveryLabel) {
  const Volume volume = NoiseVolume({41, 33, 20}, {1, 1, 1});
  Volume labels = *Volume::Allocate(volume.grid(), VoxelType::kUint8, VolumeKind::kLabels);
  for (int64_t i = 0; i < labels.voxel_count(); ++i) {
    const int64_t block = i % 41 / 14 + i / 41 % 33 / 12;  // 0..4; 0 is background
    labels.mutable_voxels<uint8_t>()[i] = static_cast<uint8_t>(block == 3 ? 200 : block);
  }
  const DenseField dense = DenseOf(*extractor_, volume, Dense(32));
  const auto pooled = extractor_->Pool(volume, labels, Window(32), nullptr);
  ASSERT_TRUE(pooled.ok()) << Message(pooled.status());
  std::vector<int32_t> found;
  for (const LabelFeature& feature : *pooled) {
    found.push_back(feature.label);
    std::vector<double> sum(kChannels, 0), square(kChannels, 0);
    int64_t count = 0;
    for (int64_t z = 0; z < 20; ++z) {
      for (int64_t y = 0; y < 33; ++y) {
        for (int64_t x = 0; x < 41; ++x) {
          if (labels.voxels<uint8_t>()[(z * 33 + y) * 41 + x] != feature.label) continue;
          ++count;
          for (int64_t c = 0; c < kChannels; ++c) {
            const double value = dense.at(c, z, y, x);
            sum[static_cast<size_t>(c)] += value;
            square[static_cast<size_t>(c)] += value * value;
          }
        }
      }
    }
    EXPECT_EQ(feature.voxel_count, count);
    for (size_t c = 0; c < kChannels; ++c) {
      const double mean = sum[c] / static_cast<double>(count);
      const double variance = square[c] / static_cast<double>(count) - mean * mean;
      EXPECT_NEAR(feature.mean[c], mean, 1e-6);
      EXPECT_NEAR(feature.standard_deviation[c], std::sqrt(variance), 1e-6);
    }
  }
  EXPECT_EQ(found, (std::vector<int32_t>{1, 2, 4, 200}));
}

TEST_F(ExtractorTest, PoolsLabelsOfAnotherGridByTheNearest) {
  const Volume volume = NoiseVolume({40, 30, 20}, {1, 1, 1});
  Grid coarse = volume.grid();  // voxels of 2 mm over the same extent
  for (int i = 0; i < 3; ++i) {
    coarse.size[i] /= 2;
    coarse.spacing_mm[i] = 2;
    coarse.origin_mm[i] += 0.5;
  }
  Volume labels = *Volume::Allocate(coarse, VoxelType::kInt32, VolumeKind::kLabels);
  labels.mutable_voxels<int32_t>()[(3 * 15 + 4) * 20 + 5] = 70000;
  const auto pooled = extractor_->Pool(volume, *Reorient(labels, "RAS"), Window(32), nullptr);
  ASSERT_TRUE(pooled.ok()) << Message(pooled.status());
  ASSERT_EQ(pooled->size(), 1u);
  EXPECT_EQ((*pooled)[0].label, 70000);
  EXPECT_EQ((*pooled)[0].voxel_count, 8);
}

TEST_F(ExtractorTest, PoolsLabelsThatFloat32CannotTellApart) {
  const Volume volume = NoiseVolume({20, 20, 20}, {1, 1, 1});
  Volume labels = *Volume::Allocate(volume.grid(), VoxelType::kInt32, VolumeKind::kLabels);
  const std::vector<int32_t> values = {std::numeric_limits<int32_t>::min(), (1 << 24) + 1,
                                       (1 << 24) + 2, std::numeric_limits<int32_t>::max()};
  std::copy(values.begin(), values.end(), labels.mutable_voxels<int32_t>());
  const auto pooled = extractor_->Pool(volume, labels, Window(32), nullptr, 0, 4);
  ASSERT_TRUE(pooled.ok()) << Message(pooled.status());
  std::vector<int32_t> found;
  for (const LabelFeature& feature : *pooled) found.push_back(feature.label);
  EXPECT_EQ(found, values);
}

TEST_F(ExtractorTest, RefusesLabelsThatAreNoneOrTooManyBeforeAnyWork) {
  const Volume volume = NoiseVolume({20, 20, 20}, {1, 1, 1});
  Volume labels = *Volume::Allocate(volume.grid(), VoxelType::kInt32, VolumeKind::kLabels);
  const auto never = [] {
    ADD_FAILURE() << "a window was computed";
    return true;
  };
  for (const absl::Status& status :
       {extractor_->Pool(volume, volume, Window(32), never).status(),
        extractor_->Pool(volume, labels, Window(32), never).status(), [&] {
          for (int32_t i = 0; i < 4; ++i) labels.mutable_voxels<int32_t>()[i] = i + 1;
          return extractor_->Pool(volume, labels, Window(32), never, 0, 3).status();
        }()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Message(status).find("labels: "), 0u) << Message(status);
  }
}

TEST_F(ExtractorTest, IsCancelledBetweenWindows) {
  const Volume volume = NoiseVolume({60, 40, 70}, {1, 1, 1});  // 3 x 2 x 3 windows
  int asked = 0;
  const auto third = [&] { return ++asked == 3; };
  EXPECT_EQ(extractor_->Global(volume, Window(32), third).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);

  asked = 0;
  DenseField field;
  EXPECT_EQ(extractor_->Dense(volume, Dense(32), third, field).code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(field.slices, 0) << "the first slab is not finished after two windows of six";

  asked = 0;
  Volume labels = *Volume::Allocate(volume.grid(), VoxelType::kUint8, VolumeKind::kLabels);
  labels.mutable_voxels<uint8_t>()[0] = 1;
  EXPECT_EQ(extractor_->Pool(volume, labels, Window(32), third).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST_F(ExtractorTest, StopsWhereTheSinkDoes) {
  const Volume volume = NoiseVolume({30, 30, 60}, {1, 1, 1});
  for (bool volume_space : {false, true}) {
    DenseOptions options = Dense(32);
    options.volume_space = volume_space;
    DenseField field;
    field.stop_at = 5;
    EXPECT_EQ(extractor_->Dense(volume, options, nullptr, field).code(),
              absl::StatusCode::kUnavailable);
    EXPECT_EQ(field.slices, 5);
  }
}

TEST_F(ExtractorTest, NamesTheOptionThatIsWrong) {
  const Volume volume = NoiseVolume({20, 20, 20}, {1, 1, 1});
  const auto refusal = [&](const DenseOptions& options) {
    DenseField field;
    const absl::Status status = extractor_->Dense(volume, options, nullptr, field);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(field.slices, 0);
    return Message(status);
  };
  for (int64_t side : {-16, 24, 528, 1}) {
    EXPECT_EQ(refusal(Dense(side)).find("window.window: "), 0u) << side;
  }
  for (double overlap : {-0.1, 0.76, 1.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(refusal(Dense(32, overlap)).find("window.overlap: "), 0u) << overlap;
  }
  for (int64_t batch : {-1, 65}) {
    DenseOptions options = Dense(32);
    options.window.batch = batch;
    EXPECT_EQ(refusal(options).find("window.batch: "), 0u) << batch;
  }
  for (int64_t levels : {-1, 0, 5}) {
    DenseOptions options = Dense(32);
    options.window.levels = levels;
    EXPECT_EQ(refusal(options).find("window.levels: "), 0u) << levels;
  }
  for (int64_t stride : {-1, 0, 65536}) {
    DenseOptions options = Dense(32);
    options.stride = stride;
    EXPECT_EQ(refusal(options).find("stride: "), 0u) << stride;
  }
  for (const auto& [begin, end] :
       {std::pair{std::array<int64_t, 3>{0, 0, 0}, std::array<int64_t, 3>{20, 20, 21}},
        {{-1, 0, 0}, {20, 20, 20}},
        {{5, 5, 5}, {5, 20, 20}},
        {{20, 0, 0}, {20, 20, 20}},
        {{0, 0, 0}, {0, 0, 20}}}) {
    DenseOptions options = Dense(32);
    options.roi_begin = begin;
    options.roi_end = end;
    EXPECT_EQ(refusal(options).find("roi: "), 0u);
  }
}

TEST_F(ExtractorTest, RefusesAWindowLargerThanMemoryAndTellsTheLargestThatFits) {
  const int64_t limit = 64 << 20;
  const absl::Status status = extractor_->CheckWindow(Window(256), limit);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "WINDOW_TOO_LARGE");
  const std::string message = Message(status), mark = "the largest that fits is ";
  const size_t at = message.find(mark);
  ASSERT_NE(at, std::string::npos) << message;
  const int64_t fits = std::stoll(message.substr(at + mark.size()));
  EXPECT_EQ(fits % 16, 0);
  EXPECT_TRUE(extractor_->CheckWindow(Window(fits), limit).ok());
  EXPECT_FALSE(extractor_->CheckWindow(Window(fits + 16), limit).ok());
  EXPECT_NE(Message(extractor_->CheckWindow(Window(16), 1000)).find("none fits"),
            std::string::npos);
  EXPECT_TRUE(extractor_->CheckWindow(Window(512), 0).ok()) << "0: memory is not looked at";
}

TEST_F(ExtractorTest, RefusesASlabLargerThanMemoryBeforeAnyWork) {
  const Volume volume = NoiseVolume({300, 300, 40}, {1, 1, 1});
  const auto never = [] {
    ADD_FAILURE() << "a window was computed";
    return true;
  };
  DenseOptions options = Dense(32);
  options.memory_bytes = 64 << 20;  // a pass fits; 300 x 300 x 32 voxels of 8 channels do not
  DenseField field;
  const absl::Status dense = extractor_->Dense(volume, options, never, field);
  Volume labels = *Volume::Allocate(volume.grid(), VoxelType::kUint8, VolumeKind::kLabels);
  const absl::Status pool =
      extractor_->Pool(volume, labels, options.window, never, options.memory_bytes).status();
  for (const absl::Status& status : {dense, pool}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(status), "WINDOW_TOO_LARGE");
  }
  options.roi_begin = {100, 100, 0};
  options.roi_end = {220, 220, 10};
  EXPECT_TRUE(extractor_->Dense(volume, options, nullptr, field).ok()) << "a region does";
  options.window.levels = 4;  // 120 channels
  const absl::Status levels = extractor_->Dense(volume, options, never, field);
  EXPECT_EQ(ReasonOf(levels), "WINDOW_TOO_LARGE");
  EXPECT_NE(Message(levels).find("fewer levels"), std::string::npos) << Message(levels);
}

TEST_F(ExtractorTest, CountsWhatIsHeldBesideTheSlab) {
  const Volume volume = NoiseVolume({90, 80, 40}, {1, 1, 1});
  // Whether the work begins: it ends before its first window.
  const auto fits = [&](DenseOptions options, int64_t memory_bytes) {
    options.memory_bytes = memory_bytes;
    DenseField field;
    return extractor_
               ->Dense(
                   volume, options, [] { return true; }, field)
               .code() == absl::StatusCode::kCancelled;
  };
  DenseOptions plain = Dense(32), onto_volume = plain, with_stride = plain;
  onto_volume.volume_space = true;
  with_stride.stride = 2;
  int64_t low = 1, high = int64_t{1} << 30;
  while (high - low > 1) (fits(plain, (low + high) / 2) ? high : low) = (low + high) / 2;
  ASSERT_FALSE(fits(plain, low));
  ASSERT_TRUE(fits(plain, high));
  const int64_t plane = 4 * kChannels * 90 * 80;
  EXPECT_FALSE(fits(onto_volume, high + 3 * plane - 1)) << "two planes and a slice";
  EXPECT_TRUE(fits(onto_volume, high + 3 * plane));
  EXPECT_FALSE(fits(with_stride, high + plane / 4 - 1)) << "a slice of a fourth";
  EXPECT_TRUE(fits(with_stride, high + plane / 4));
}

TEST_F(ExtractorTest, IsDeterministicForAThreadCountAndCloseForAnother) {
  const Volume volume = NoiseVolume({45, 40, 36}, {1, 1, 1});
  const DenseField first = DenseOf(*extractor_, volume, Dense(32));
  EXPECT_TRUE(DenseOf(*extractor_, volume, Dense(32)).values == first.values);
  const auto other = Extractor::Load(Model(), {"cpu", 1});
  ASSERT_TRUE(other.ok());
  EXPECT_LT(WorstDifference(DenseOf(**other, volume, Dense(32)).values, first.values), kRounding);
  ASSERT_TRUE(InitializeLibTorch({"cpu", 2}).ok());  // for the tests that follow
}

TEST_F(ExtractorTest, GivesTheSameBitsForEveryBatchAndIgnoresHalfPrecisionOnTheCpu) {
  const Volume volume = NoiseVolume({45, 40, 36}, {1, 1, 1});
  const DenseField one = DenseOf(*extractor_, volume, Dense(32));
  const auto global = extractor_->Global(volume, Window(32), nullptr);
  DenseOptions options = Dense(32);
  options.window.batch = 5;
  options.window.half_precision = true;
  EXPECT_TRUE(DenseOf(*extractor_, volume, options).values == one.values);
  EXPECT_TRUE(*extractor_->Global(volume, options.window, nullptr) == *global);
}

TEST_F(ExtractorTest, UsesTheCardsCropWhereNoWindowIsGiven) {
  ModelCard card;
  card.crop = 32;
  const auto extractor = TinyExtractor(*folder_ / "crop.safetensors", card);
  const Volume volume = NoiseVolume({45, 40, 36}, {1, 1, 1});
  EXPECT_TRUE(DenseOf(*extractor, volume, Dense(0)).values ==
              DenseOf(*extractor_, volume, Dense(32)).values);
}

TEST_F(ExtractorTest, KnowsTheMemoryThatItHolds) {
  // Every convolution's 27 taps a pair of channels become 64, its channels padded to multiples of
  // 16: in the tiny size that is 4 to 5 times the first levels' weights and 64/27 of the last's.
  const int64_t stored = extractor_->info().parameter_count * static_cast<int64_t>(sizeof(float));
  int64_t unet = 0;
  for (const auto& parameter : (*unet_)->parameters()) unet += parameter.nbytes();
  EXPECT_GT(extractor_->memory_bytes(), unet * 64 / 27);
  EXPECT_LT(extractor_->memory_bytes(), unet * 64 / 27 * 5 / 4);
  EXPECT_GT(stored, unet);
}

TEST_F(ExtractorTest, LetsEveryPartOfItRunOnItsThreadsAlone) {
  const auto parts = [] {
    std::atomic<int> count{0};
    ParallelFor(100, 0, [&](int64_t, int64_t) { ++count; });
    return count.load();
  };
  ASSERT_TRUE(InitializeLibTorch({"cpu", 3}).ok());
  EXPECT_EQ(parts(), 3);
  EXPECT_EQ(at::get_num_threads(), 3);
  ASSERT_TRUE(InitializeLibTorch({"cpu", 2}).ok());  // for the tests that follow
}

TEST_F(ExtractorTest, TakesTheDefaultBatchThatFitsIntoMemory) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device; the CPU's default is 1";
  const auto extractor = Extractor::Load(Model(), {"cuda", 2});
  ASSERT_TRUE(extractor.ok()) << Message(extractor.status());
  const auto batch = [&](int64_t memory_bytes) {
    WindowOptions options = Window(64);
    options.memory_bytes = memory_bytes;
    const bool fits = (*extractor)->CheckWindow(options, memory_bytes).ok();
    EXPECT_EQ(fits, memory_bytes != 1) << memory_bytes;
    return (*extractor)->Resolved(options).batch;
  };
  EXPECT_EQ(batch(0), 4);
  EXPECT_EQ(batch(int64_t{1} << 30), 4);
  EXPECT_EQ(batch(100 << 20), 2);  // 45 MiB a window
  EXPECT_EQ(batch(1), 1);
}

TEST_F(ExtractorTest, RefusesFilesThatAreNoModelsAndDevicesThatAreNotThere) {
  WriteBytes(*folder_ / "text", "no model");
  EXPECT_EQ(Extractor::Load(*folder_ / "text", {"cpu", 2}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Extractor::Load(*folder_ / "absent", {"cpu", 2}).status().code(),
            absl::StatusCode::kNotFound);
  for (const char* device : {"cuda:99", "gpu", "cuda:", "cuda:1x", ""}) {
    const absl::Status status = InitializeLibTorch({device, 2}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << device;
    EXPECT_EQ(Message(status).find("device: "), 0u) << Message(status);
  }
  EXPECT_EQ(Message(InitializeLibTorch({"cpu", -1}).status()).find("threads: "), 0u);
}

}  // namespace
}  // namespace gvsl
