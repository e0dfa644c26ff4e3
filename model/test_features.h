// What the tests of feature extraction share: volumes, seeded models, dense features in memory.
#ifndef GVSL_MODEL_TEST_FEATURES_H_
#define GVSL_MODEL_TEST_FEATURES_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/extractor.h"
#include "model/model_file.h"
#include "model/test_files.h"

namespace gvsl {

// A CT of smooth shapes and noise, -200..2200 HU, int16.
inline Volume NoiseVolume(const std::array<int64_t, 3>& size, const Vec3& spacing_mm) {
  Grid grid;
  grid.size = size;
  grid.spacing_mm = spacing_mm;
  grid.origin_mm = {-20.5, 11.25, 7};
  Volume volume = *Volume::Allocate(grid, VoxelType::kInt16, VolumeKind::kImage);
  volume.set_modality("CT");
  int16_t* voxels = volume.mutable_voxels<int16_t>();
  uint32_t state = 12345;
  for (int64_t z = 0; z < size[2]; ++z) {
    for (int64_t y = 0; y < size[1]; ++y) {
      for (int64_t x = 0; x < size[0]; ++x) {
        state = state * 1664525u + 1013904223u;
        const double wave = std::sin(0.3 * static_cast<double>(x)) +
                            std::cos(0.2 * static_cast<double>(y) + 0.1 * static_cast<double>(z));
        *voxels++ = static_cast<int16_t>(1000 + 400 * wave + static_cast<double>(state >> 24));
      }
    }
  }
  return volume;
}

// A seeded model of the tiny size whose norms and biases are not those of an untrained one.
inline std::unique_ptr<Extractor> TinyExtractor(const std::string& path, ModelCard card,
                                                int threads = 2) {
  LoadedModel model;
  card.size = "tiny";
  card.widths = *WidthsOf("tiny");
  EXPECT_TRUE(CreateModelFile(card, 5, path).ok());
  model = LoadModel(path).value();
  for (auto& [name, tensor] : model.state) {
    if (tensor.dim() == 1) tensor = tensor + 0.1 * at::sin(at::arange(tensor.numel(), at::kFloat));
  }
  EXPECT_TRUE(SaveModel(model, path).ok());
  auto extractor = Extractor::Load(path, {"cpu", threads});
  EXPECT_TRUE(extractor.ok()) << Message(extractor.status());
  return *std::move(extractor);
}

// Dense features as they came: [slice][channel][row][column].
struct DenseField : public DenseSink {
  absl::Status Begin(const DenseHeader& begun) override {
    header = begun;
    return absl::OkStatus();
  }
  absl::Status Slice(int64_t z, const float* slice) override {
    EXPECT_EQ(z, slices++) << "slices come in order, each once";
    values.insert(values.end(), slice,
                  slice + header.channels * header.grid.size[0] * header.grid.size[1]);
    return slices == stop_at ? absl::UnavailableError("the client is gone") : absl::OkStatus();
  }
  float at(int64_t c, int64_t z, int64_t y, int64_t x) const {
    const auto& size = header.grid.size;
    return values[static_cast<size_t>(((z * header.channels + c) * size[1] + y) * size[0] + x)];
  }

  DenseHeader header;
  std::vector<float> values;
  int64_t slices = 0;
  int64_t stop_at = -1;
};

inline DenseField DenseOf(Extractor& extractor, const Volume& volume, const DenseOptions& options) {
  DenseField field;
  const absl::Status status = extractor.Dense(volume, options, nullptr, field);
  EXPECT_TRUE(status.ok()) << Message(status);
  EXPECT_EQ(field.slices, field.header.grid.size[2]);
  return field;
}

inline double WorstDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return 1e30;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= worst)) worst = difference;  // NaN stays
  }
  return worst;
}

}  // namespace gvsl

#endif  // GVSL_MODEL_TEST_FEATURES_H_
