#include "model/augmentation.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "model/warp.h"

namespace gvsl {
namespace {

using at::Tensor;

constexpr double kPi = 3.14159265358979323846;
constexpr int64_t kControlSpacing = 16;  // voxels between the elastic field's control points
// White noise on a cubic B-spline lattice gives a field of this deviation: the mean over a cell of
// the sum of squared weights is 151/315 along each axis.
const double kSplineDeviation = std::pow(151.0 / 315.0, 1.5);

constexpr int64_t kCurvePoints = 1024;  // of an intensity curve
constexpr int64_t kMostBoxes = 5;
constexpr double kShuffledShare = 0.5;  // of the blocks of a shuffled image

enum Purpose : uint64_t { kShape = 1, kNoise = 2 };

std::array<std::array<double, 3>, 3> Product(const std::array<std::array<double, 3>, 3>& a,
                                             const std::array<std::array<double, 3>, 3>& b) {
  std::array<std::array<double, 3>, 3> c{};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) c[i][j] += a[i][k] * b[k][j];
    }
  }
  return c;
}

// [crop, controls]: the cubic B-spline weights of every control point at every voxel.
Tensor SplineBasis(int64_t crop, at::Device device) {
  const int64_t controls = ElasticControls(crop);
  Tensor basis = at::zeros({crop, controls}, at::kFloat);
  auto weights = basis.accessor<float, 2>();
  for (int64_t i = 0; i < crop; ++i) {
    const double place = static_cast<double>(i) / kControlSpacing;
    const int64_t cell = static_cast<int64_t>(place);
    const double t = place - static_cast<double>(cell), s = 1 - t;
    const double four[4] = {s * s * s / 6, (3 * t * t * t - 6 * t * t + 4) / 6,
                            (3 * s * s * s - 6 * s * s + 4) / 6, t * t * t / 6};
    for (int64_t k = 0; k < 4; ++k) weights[i][cell + k] = static_cast<float>(four[k]);
  }
  return basis.to(device);
}

// The generator of a device, set to a sample's own sequence.
at::Generator SeededGenerator(at::Device device, uint64_t key) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(key);
  return generator;
}

// A monotone cubic Bezier curve from (0, 0) to (1, 1), or falling from (0, 1) to (1, 0), as a table
// over equal steps of its abscissa.
Tensor DrawCurve(double inversion_probability, RandomStream& random) {
  const bool falling = random.Chance(inversion_probability);
  std::array<double, 2> px = {random.Uniform(), random.Uniform()};
  std::array<double, 2> py = {random.Uniform(), random.Uniform()};
  std::sort(px.begin(), px.end());
  std::sort(py.begin(), py.end());
  const auto bezier = [](const std::array<double, 2>& p, double t) {
    const double s = 1 - t;
    return 3 * s * s * t * p[0] + 3 * s * t * t * p[1] + t * t * t;
  };
  Tensor curve = at::empty({kCurvePoints}, at::kFloat);
  auto values = curve.accessor<float, 1>();
  for (int64_t i = 0; i < kCurvePoints; ++i) {
    const double x = static_cast<double>(i) / (kCurvePoints - 1);
    double low = 0, high = 1;  // the abscissa rises with t
    for (int halving = 0; halving < 30; ++halving) {
      const double t = (low + high) / 2;
      (bezier(px, t) < x ? low : high) = t;
    }
    const double y = bezier(py, low);
    values[i] = static_cast<float>(falling ? 1 - y : y);
  }
  return curve;
}

void BendIntensities(Tensor image, double inversion_probability, RandomStream& random) {
  const Tensor curve = DrawCurve(inversion_probability, random).to(image.device());
  const Tensor place = image.clamp(0, 1) * (kCurvePoints - 1);
  const Tensor below = place.floor().clamp_max(kCurvePoints - 2);
  const Tensor index = below.to(at::kLong);
  const Tensor low = curve.take(index), high = curve.take(index + 1);
  image.copy_(low + (high - low) * (place - below));
}

// Cuts the image [D, H, W] into equal blocks and shuffles the voxels within a random half of them,
// each block by a permutation of its own.
void ShuffleBlocks(Tensor image, RandomStream& random, at::Generator generator) {
  std::array<int64_t, 3> side, count, begin;
  Tensor part = image;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const int64_t length = image.size(axis);
    const int64_t largest = std::clamp<int64_t>(length / 8, 2, 8);
    side[axis] = std::min(length, 2 + random.Index(largest - 1));
    count[axis] = length / side[axis];
    begin[axis] = random.Index(length - count[axis] * side[axis] + 1);
    part = part.narrow(axis, begin[axis], count[axis] * side[axis]);
  }
  const Tensor blocks = part.view({count[0], side[0], count[1], side[1], count[2], side[2]})
                            .permute({0, 2, 4, 1, 3, 5});
  const Tensor voxels = blocks.reshape({count[0] * count[1] * count[2], -1});
  const Tensor order = at::rand(voxels.sizes(), generator, voxels.options()).argsort(int64_t{1});
  const Tensor chosen = at::rand({voxels.size(0), 1}, generator, voxels.options()) < kShuffledShare;
  const Tensor shuffled = at::where(chosen, voxels.gather(1, order), voxels);
  blocks.copy_(shuffled.view(blocks.sizes()));
}

// Paints boxes of a sixth to a third of each side over with uniform noise.
void PaintBoxes(Tensor image, RandomStream& random, at::Generator generator) {
  const int64_t boxes = 1 + random.Index(kMostBoxes);
  for (int64_t box = 0; box < boxes; ++box) {
    Tensor part = image;
    for (int64_t axis = 0; axis < 3; ++axis) {
      const int64_t length = image.size(axis);
      const int64_t least = std::max<int64_t>(1, length / 6), most = std::max(least, length / 3);
      const int64_t side = least + random.Index(most - least + 1);
      part = part.narrow(axis, random.Index(length - side + 1), side);
    }
    part.copy_(at::rand(part.sizes(), generator, part.options()));
  }
}

}  // namespace

int64_t ElasticControls(int64_t crop) { return (crop - 1) / kControlSpacing + 4; }

SpatialChange NoSpatialChange(int64_t crop) {
  const int64_t controls = ElasticControls(crop);
  return {{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}},
          std::vector<float>(static_cast<size_t>(3 * controls * controls * controls), 0.0f)};
}

SpatialChange DrawSpatialChange(const AugmentationOptions& options, int64_t crop,
                                RandomStream& random) {
  SpatialChange change = NoSpatialChange(crop);
  if (!random.Chance(options.spatial_probability)) return change;
  std::array<std::array<double, 3>, 3> linear = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  for (int axis = 0; axis < 3; ++axis) {
    const double angle = random.Uniform(-1, 1) * options.rotation_deg * kPi / 180;
    const int u = (axis + 1) % 3, v = (axis + 2) % 3;
    std::array<std::array<double, 3>, 3> turn = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    turn[u][u] = turn[v][v] = std::cos(angle);
    turn[u][v] = -std::sin(angle);
    turn[v][u] = std::sin(angle);
    linear = Product(turn, linear);
  }
  std::array<std::array<double, 3>, 3> stretch{}, shearing{};
  for (int i = 0; i < 3; ++i) {
    stretch[i][i] = 1 + random.Uniform(-1, 1) * options.scale;
    for (int j = 0; j < 3; ++j) {
      shearing[i][j] = i == j ? 1 : std::tan(random.Uniform(-1, 1) * options.shear_deg * kPi / 180);
    }
  }
  linear = Product(shearing, Product(stretch, linear));
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) change.matrix[i][j] = linear[i][j];
    change.matrix[i][3] = random.Uniform(-1, 1) * options.translation * static_cast<double>(crop);
  }
  const double deviation = options.elastic_voxels / std::sqrt(3.0) / kSplineDeviation;
  for (float& control : change.elastic) {
    control = static_cast<float>(random.Normal() * deviation);
  }
  return change;
}

Tensor SpatialPoints(const std::vector<SpatialChange>& changes, int64_t crop, int64_t margin,
                     const std::array<double, 3>& spacing_mm, at::Device device) {
  const int64_t samples = static_cast<int64_t>(changes.size()), controls = ElasticControls(crop);
  Tensor matrix = at::empty({samples, 3, 4}, at::kFloat);
  Tensor lattice = at::empty({samples, 3, controls, controls, controls}, at::kFloat);
  for (int64_t n = 0; n < samples; ++n) {
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t j = 0; j < 3; ++j) matrix[n][i][j] = changes[n].matrix[i][j];
      matrix[n][i][3] = changes[n].matrix[i][3] * spacing_mm[2 - i];
    }
    std::copy(changes[n].elastic.begin(), changes[n].elastic.end(),
              lattice.data_ptr<float>() + n * lattice.stride(0));
  }
  const Tensor basis = SplineBasis(crop, device);
  // Along x, then y, then z; the lattice is small, so that almost all the work is the last product.
  Tensor field = lattice.to(device).matmul(basis.t());  // [N, 3, g, g, W]
  field = basis.matmul(field);                          // [N, 3, g, H, W]
  field = basis.matmul(field.flatten(3)).view({samples, 3, crop, crop, crop});
  const Tensor grid = VoxelGrid({crop, crop, crop}, field.options());
  return TransformPoints(grid + field, matrix.to(device), {crop, crop, crop}, spacing_mm) +
         static_cast<double>(margin);
}

Tensor Distort(const Tensor& images, const AugmentationOptions& options,
               const std::vector<uint64_t>& keys) {
  const at::NoGradGuard no_grad;
  Tensor distorted = images.clone();
  for (int64_t n = 0; n < images.size(0); ++n) {
    RandomStream random({keys[static_cast<size_t>(n)], kShape});
    const at::Generator generator = SeededGenerator(
        images.device(), RandomStream({keys[static_cast<size_t>(n)], kNoise}).Bits());
    Tensor image = distorted[n][0];
    const bool shuffle = random.Chance(options.shuffling_probability);
    const bool bend = random.Chance(options.intensity_probability);
    const bool paint = random.Chance(options.inpainting_probability);
    if (shuffle) ShuffleBlocks(image, random, generator);
    if (bend) BendIntensities(image, options.inversion_probability, random);
    if (paint) PaintBoxes(image, random, generator);
  }
  return distorted;
}

}  // namespace gvsl
