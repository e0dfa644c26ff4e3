// The kernels, written once with vector types and compiled for each processor family. The including
// file defines GVSL_LANES (floats a vector: 4, 8 or 16), GVSL_ROWS (rows of the product kernel, so
// that its sums fill the registers) and GVSL_TABLE (the table's name), and is compiled with that
// family's flags.
#include <algorithm>
#include <cstring>

#include "model/cpu_kernels.h"

namespace gvsl {
namespace {

constexpr int kLanes = GVSL_LANES;
constexpr int kRows = GVSL_ROWS;
typedef float Vec __attribute__((vector_size(GVSL_LANES * 4)));
typedef float UnalignedVec __attribute__((vector_size(GVSL_LANES * 4), aligned(4), may_alias));

inline Vec Load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
inline void Store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
inline Vec Max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec Leaky(Vec v) { return Max(v, v * 0.2f); }

// How a product reads a: [row][depth], or turned, [depth][row], and then adds to what c holds.
enum class Reads { kRows, kTurnedAndAdds };

// c[r][0..kVectors * kLanes) = sum over k of a[r][k] * b[k]; b is packed in blocks of 16 columns.
template <Reads kReads, int kCount, int kVectors>
inline void Product(const float* a, int64_t a_stride, const float* b, int64_t depth, float* c,
                    int64_t c_stride) {
  constexpr int kPerBlock = kChannelBlock / kLanes;
  constexpr bool kTurned = kReads == Reads::kTurnedAndAdds;
  Vec sum[kCount][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vec column[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      column[v] = Load(b + (v / kPerBlock) * depth * kChannelBlock + k * kChannelBlock +
                       (v % kPerBlock) * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kCount; ++r) {
      const float value = kTurned ? a[k * a_stride + r] : a[r * a_stride + k];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] += value * column[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + r * c_stride + v * kLanes;
      Store(to, kTurned ? Load(to) + sum[r][v] : sum[r][v]);
    }
  }
}

template <Reads kReads, int kVectors>
void ProductRows(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t depth,
                 float* c, int64_t c_stride) {
  int64_t r = 0;
  const auto step = [&](auto product, int count) {
    for (; r + count <= rows; r += count) {
      product(a + r * (kReads == Reads::kRows ? a_stride : 1), a_stride, b, depth, c + r * c_stride,
              c_stride);
    }
  };
  step(Product<kReads, kRows, kVectors>, kRows);
  step(Product<kReads, 4, kVectors>, 4);
  step(Product<kReads, 1, kVectors>, 1);
}

// c [rows][columns] = a [rows][depth] b, b packed [column block][depth][16].
template <Reads kReads = Reads::kRows>
void Multiply(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t depth,
              int64_t columns, float* c, int64_t c_stride) {
  constexpr int kOneBlock = kChannelBlock / kLanes;
  constexpr int kVectors = kOneBlock > 2 ? kOneBlock : 2;
  constexpr int64_t kColumns = kVectors * kLanes;
  int64_t column = 0;
  for (; column + kColumns <= columns; column += kColumns) {
    ProductRows<kReads, kVectors>(a, a_stride, rows, b + column * depth, depth, c + column,
                                  c_stride);
  }
  for (; column < columns; column += kChannelBlock) {
    ProductRows<kReads, kOneBlock>(a, a_stride, rows, b + column * depth, depth, c + column,
                                   c_stride);
  }
}

// One axis of the input transform: four values, `step` apart.
inline void TransformInputAxis(Vec* d, int step) {
  const Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
  d[0] = d0 - d2;
  d[step] = d1 + d2;
  d[2 * step] = d2 - d1;
  d[3 * step] = d1 - d3;
}

// The products of one tile, `from[point * point_stride]`, to 2^3 outputs of one vector of channels.
inline void TransformOutput(const float* from, int64_t point_stride, Vec out[8]) {
  Vec plane[2][16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const Vec m0 = Load(from + i * point_stride), m1 = Load(from + (16 + i) * point_stride);
    const Vec m2 = Load(from + (32 + i) * point_stride), m3 = Load(from + (48 + i) * point_stride);
    plane[0][i] = m0 + m1 + m2;
    plane[1][i] = m1 - m2 - m3;
  }
#pragma GCC unroll 2
  for (int z = 0; z < 2; ++z) {
    Vec line[2][4];
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) {
      const Vec* p = plane[z] + x;
      line[0][x] = p[0] + p[4] + p[8];
      line[1][x] = p[4] - p[8] - p[12];
    }
#pragma GCC unroll 2
    for (int y = 0; y < 2; ++y) {
      out[z * 4 + y * 2] = line[y][0] + line[y][1] + line[y][2];
      out[z * 4 + y * 2 + 1] = line[y][1] - line[y][2] - line[y][3];
    }
  }
}

struct TilePlace {
  int64_t z, y, x;  // of the first output voxel
};

TilePlace PlaceOf(const Extent& extent, int64_t tile) {
  const int64_t across = (extent.width + 1) / 2, down = (extent.height + 1) / 2;
  return {tile / (across * down) * 2, tile / across % down * 2, tile % across * 2};
}

// The 4x4 input lines (z, y) that a row of tiles reads; those outside the volume read zeros.
struct Lines {
  const float* start[16];
  int64_t step[16];  // from voxel to voxel
};

Lines LinesOf(const Convolution& conv, const TilePlace& place, const float* zeros) {
  const Extent& e = conv.extent;
  Lines lines;
  for (int i = 0; i < 16; ++i) {
    const int64_t z = place.z - 1 + i / 4, y = place.y - 1 + i % 4;
    const bool inside = z >= 0 && z < e.depth && y >= 0 && y < e.height;
    lines.start[i] = inside ? conv.input + (z * e.height + y) * e.width * conv.input_stride : zeros;
    lines.step[i] = inside ? conv.input_stride : 0;
  }
  return lines;
}

// The transform along z and y of what the lines hold at `x`, one vector of channels.
inline void TransformColumn(const Lines& lines, int64_t x, int64_t width, int64_t channel,
                            Vec column[16]) {
  if (x < 0 || x >= width) {
    for (int i = 0; i < 16; ++i) column[i] = Vec{};
    return;
  }
  Vec d[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) d[i] = Load(lines.start[i] + x * lines.step[i] + channel);
#pragma GCC unroll 4
  for (int z = 0; z < 4; ++z) TransformInputAxis(d + z * 4, 1);
#pragma GCC unroll 4
  for (int y = 0; y < 4; ++y) TransformInputAxis(d + y, 4);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) column[i] = d[i];
}

// Transforms the inputs of `tiles` tiles side by side, from `place` on. Neighbours share two of
// their four columns, which are transformed once. Tile t's point p goes to to[p * point_stride + t
// * tile_stride].
void GatherTiles(const Convolution& conv, const TilePlace& place, int64_t tiles, const float* zeros,
                 float* to, int64_t tile_stride, int64_t point_stride) {
  const Lines lines = LinesOf(conv, place, zeros);
  const int64_t width = conv.extent.width;
  for (int64_t c = 0; c < conv.in_channels; c += kLanes) {
    Vec columns[2][2][16];
    TransformColumn(lines, place.x - 1, width, c, columns[0][0]);
    TransformColumn(lines, place.x, width, c, columns[0][1]);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const auto& old = columns[tile % 2];
      auto& fresh = columns[(tile + 1) % 2];
      TransformColumn(lines, place.x + 2 * tile + 1, width, c, fresh[0]);
      TransformColumn(lines, place.x + 2 * tile + 2, width, c, fresh[1]);
      float* out = to + tile * tile_stride + c;
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        Vec d[4] = {old[0][i], old[1][i], fresh[0][i], fresh[1][i]};
        TransformInputAxis(d, 1);
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) Store(out + (i * 4 + x) * point_stride, d[x]);
      }
    }
  }
}

void ScatterTile(const Convolution& conv, const TilePlace& place, const float* from,
                 int64_t point_stride, float* sums) {
  const Extent& e = conv.extent;
  const int64_t channels = conv.out_channels;
  float* corner = conv.output + ((place.z * e.height + place.y) * e.width + place.x) * channels;
  const bool whole = place.z + 2 <= e.depth && place.y + 2 <= e.height && place.x + 2 <= e.width;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Vec out[8];
    TransformOutput(from + c, point_stride, out);
    const Vec bias = Load(conv.bias + c);
    Vec sum = Load(sums + c), square = Load(sums + channels + c);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const int64_t z = i / 4, y = i / 2 % 2, x = i % 2;
      if (!whole && (place.z + z >= e.depth || place.y + y >= e.height || place.x + x >= e.width)) {
        continue;
      }
      Store(corner + ((z * e.height + y) * e.width + x) * channels + c, out[i] + bias);
      sum += out[i];
      square += out[i] * out[i];
    }
    Store(sums + c, sum);
    Store(sums + channels + c, square);
  }
}

void WinogradTiles(const Convolution& conv, int64_t first, int64_t last, float* scratch,
                   float* sums) {
  const int64_t tiles = last - first, in = conv.in_channels, out = conv.out_channels;
  // The extra block keeps the 64 streams and the rows of a product out of the same cache sets.
  const int64_t row = in + kChannelBlock, in_point = tiles * row + kChannelBlock;
  const int64_t out_point = tiles * out + kChannelBlock;
  const float* zeros = scratch;
  float* transformed = scratch + in;
  float* products = transformed + kTilePoints * in_point;
  std::memset(sums, 0, sizeof(float) * 2 * out);
  const int64_t across = (conv.extent.width + 1) / 2;
  for (int64_t tile = 0; tile < tiles;) {
    const int64_t run = std::min(tiles - tile, across - (first + tile) % across);
    GatherTiles(conv, PlaceOf(conv.extent, first + tile), run, zeros, transformed + tile * row, row,
                in_point);
    tile += run;
  }
  for (int64_t point = 0; point < kTilePoints; ++point) {
    Multiply(transformed + point * in_point, row, tiles, conv.weights + point * in * out, in, out,
             products + point * out_point, out);
  }
  for (int64_t tile = 0; tile < tiles; ++tile) {
    ScatterTile(conv, PlaceOf(conv.extent, first + tile), products + tile * out, out_point, sums);
  }
}

// Where a WinogradGradient's scratch holds what.
struct GradientScratch {
  explicit GradientScratch(const WinogradGradient& task)
      : row(task.in_channels + kChannelBlock),
        input_point(task.block * row + kChannelBlock),
        gradient_point(task.block * task.out_channels + kChannelBlock),
        input(task.scratch + task.in_channels),
        gradient(input + kTilePoints * input_point) {}
  int64_t row, input_point, gradient_point;  // strides; padded as in WinogradTiles
  float *input, *gradient;                   // [point][tile][in], [point][out block][tile][16]
};

// One axis of the gradient's transform: two values, `step` apart, to four points, `to_step` apart.
inline void TransformGradientAxis(const Vec* d, int step, Vec* to, int to_step) {
  const Vec d0 = d[0], d1 = d[step];
  to[0] = d0;
  to[to_step] = d0 + d1;
  to[2 * to_step] = d0 - d1;
  to[3 * to_step] = -d1;
}

void GradientTile(const WinogradGradient& task, const TilePlace& place, float* to, int64_t tiles,
                  int64_t point_stride) {
  const Extent& e = task.extent;
  const int64_t channels = task.out_channels;
  const float* corner =
      task.gradient + ((place.z * e.height + place.y) * e.width + place.x) * channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Vec outputs[8], lines[16], planes[32];
    for (int i = 0; i < 8; ++i) {
      const int64_t z = i / 4, y = i / 2 % 2, x = i % 2;
      const bool inside = place.z + z < e.depth && place.y + y < e.height && place.x + x < e.width;
      outputs[i] =
          inside ? Load(corner + ((z * e.height + y) * e.width + x) * channels + c) : Vec{};
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) TransformGradientAxis(outputs + 2 * i, 1, lines + 4 * i, 1);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const int z = i / 4, x = i % 4;
      TransformGradientAxis(lines + z * 8 + x, 4, planes + z * 16 + x, 4);
    }
    float* out = to + c / kChannelBlock * tiles * kChannelBlock + c % kChannelBlock;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      Vec points[4];
      TransformGradientAxis(planes + i, 16, points, 1);
#pragma GCC unroll 4
      for (int z = 0; z < 4; ++z) Store(out + (z * 16 + i) * point_stride, points[z]);
    }
  }
}

void WinogradGradientTiles(const WinogradGradient& task, int64_t first, int64_t begin,
                           int64_t end) {
  const GradientScratch scratch(task);
  Convolution conv;
  conv.extent = task.extent;
  conv.in_channels = conv.input_stride = task.in_channels;
  conv.input = task.input;
  const int64_t across = (task.extent.width + 1) / 2;
  const int64_t tiles = std::min(task.block, task.extent.tiles() - first);
  for (int64_t tile = begin; tile < end;) {
    const int64_t run = std::min(end - tile, across - tile % across);
    GatherTiles(conv, PlaceOf(task.extent, tile), run, task.scratch,
                scratch.input + (tile - first) * scratch.row, scratch.row, scratch.input_point);
    for (int64_t i = 0; i < run; ++i, ++tile) {
      GradientTile(task, PlaceOf(task.extent, tile),
                   scratch.gradient + (tile - first) * kChannelBlock, tiles,
                   scratch.gradient_point);
    }
  }
}

void WinogradGradientPoints(const WinogradGradient& task, int64_t tiles, int64_t begin,
                            int64_t end) {
  const GradientScratch scratch(task);
  for (int64_t point = begin; point < end; ++point) {
    Multiply<Reads::kTurnedAndAdds>(
        scratch.input + point * scratch.input_point, scratch.row, task.in_channels,
        scratch.gradient + point * scratch.gradient_point, tiles, task.out_channels,
        task.sums + point * task.in_channels * task.out_channels, task.out_channels);
  }
}

// A run of voxels and a block of channels at a time: so much of each channel at once is read in a
// piece, and every line of the other side is touched once.
constexpr int64_t kVoxelRun = 256;

void ToChannelsLast(const float* from, int64_t channel_stride, int64_t voxels, int64_t channels,
                    int64_t padded, float* to) {
  for (int64_t begin = 0; begin < voxels; begin += kVoxelRun) {
    const int64_t end = std::min(voxels, begin + kVoxelRun);
    for (int64_t block = 0; block < padded; block += kChannelBlock) {
      const int64_t real = std::min(kChannelBlock, channels - block);
      const float* values = from + block * channel_stride;
      float* line = to + begin * padded + block;
      if (real == kChannelBlock) {
        for (int64_t i = begin; i < end; ++i, line += padded) {
          for (int64_t c = 0; c < kChannelBlock; ++c) line[c] = values[c * channel_stride + i];
        }
      } else {
        for (int64_t i = begin; i < end; ++i, line += padded) {
          for (int64_t c = 0; c < kChannelBlock; ++c) {
            line[c] = c < real ? values[c * channel_stride + i] : 0.0f;
          }
        }
      }
    }
  }
}

void ToPlanar(const float* from, int64_t voxels, int64_t channels, int64_t padded, float* to,
              int64_t channel_stride) {
  for (int64_t begin = 0; begin < voxels; begin += kVoxelRun) {
    const int64_t end = std::min(voxels, begin + kVoxelRun);
    for (int64_t block = 0; block < channels; block += kChannelBlock) {
      const int64_t real = std::min(kChannelBlock, channels - block);
      float* values = to + block * channel_stride;
      const float* line = from + begin * padded + block;
      // Lines of sixteen voxels, turned among the registers and the first cache.
      int64_t i = begin;
      for (; real == kChannelBlock && i + kChannelBlock <= end; i += kChannelBlock) {
        float turned[kChannelBlock][kChannelBlock];
        for (int64_t v = 0; v < kChannelBlock; ++v, line += padded) {
          for (int64_t c = 0; c < kChannelBlock; ++c) turned[c][v] = line[c];
        }
        for (int64_t c = 0; c < kChannelBlock; ++c) {
          std::memcpy(values + c * channel_stride + i, turned[c], sizeof(turned[c]));
        }
      }
      for (; i < end; ++i, line += padded) {
        for (int64_t c = 0; c < real; ++c) values[c * channel_stride + i] = line[c];
      }
    }
  }
}

void FirstLayer(const Convolution& conv, int64_t first, int64_t last, float* scratch, float* sums) {
  constexpr int64_t kTaps = 27;
  const Extent& e = conv.extent;
  const int64_t channels = conv.out_channels;
  std::memset(sums, 0, sizeof(float) * 2 * channels);
  for (int64_t row = first; row < last; ++row) {
    const int64_t z = row / e.height, y = row % e.height;
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const int64_t sz = z + tap / 9 - 1, sy = y + tap / 3 % 3 - 1, shift = tap % 3 - 1;
      const bool inside = sz >= 0 && sz < e.depth && sy >= 0 && sy < e.height;
      const float* line = conv.input + (sz * e.height + sy) * e.width;
      for (int64_t x = 0; x < e.width; ++x) {
        const int64_t sx = x + shift;
        scratch[x * kTaps + tap] = inside && sx >= 0 && sx < e.width ? line[sx] : 0.0f;
      }
    }
    float* output = conv.output + row * e.width * channels;
    Multiply(scratch, kTaps, e.width, conv.weights, kTaps, channels, output, channels);
    for (int64_t c = 0; c < channels; c += kLanes) {
      const Vec bias = Load(conv.bias + c);
      Vec sum = Load(sums + c), square = Load(sums + channels + c);
      for (int64_t x = 0; x < e.width; ++x) {
        float* at = output + x * channels + c;
        const Vec value = Load(at);
        Store(at, value + bias);
        sum += value;
        square += value * value;
      }
      Store(sums + c, sum);
      Store(sums + channels + c, square);
    }
  }
}

void Normalise(const float* from, int64_t voxels, int64_t channels, const float* scale,
               const float* shift, float* to, int64_t to_stride) {
  for (int64_t i = 0; i < voxels; ++i) {
    for (int64_t c = 0; c < channels; c += kLanes) {
      const Vec value = Load(from + i * channels + c) * Load(scale + c) + Load(shift + c);
      Store(to + i * to_stride + c, Leaky(value));
    }
  }
}

void NormalisePlanar(const float* from, int64_t voxels, int64_t channels, int64_t real_channels,
                     const float* scale, const float* shift, float* to, int64_t channel_stride) {
  constexpr int64_t kRun = 64;  // voxels whose channels fit into the first cache
  for (int64_t begin = 0; begin < voxels; begin += kRun) {
    const int64_t end = std::min(voxels, begin + kRun);
    for (int64_t c = 0; c < real_channels; ++c) {
      float* out = to + c * channel_stride;
      for (int64_t i = begin; i < end; ++i) {
        const float value = from[i * channels + c] * scale[c] + shift[c];
        out[i] = std::max(value, value * 0.2f);
      }
    }
  }
}

void MaxPool(const float* from, int64_t from_stride, Extent extent, int64_t channels, int64_t first,
             int64_t last, float* to) {
  const int64_t height = extent.height / 2, width = extent.width / 2;
  const int64_t y_step = extent.width * from_stride, z_step = extent.height * y_step;
  for (int64_t row = first; row < last; ++row) {
    const float* line = from + row / height * 2 * z_step + row % height * 2 * y_step;
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        const float* p = line + 2 * x * from_stride + c;
        const auto pair = [&](int64_t at) { return Max(Load(p + at), Load(p + at + from_stride)); };
        const Vec largest =
            Max(Max(pair(0), pair(y_step)), Max(pair(z_step), pair(z_step + y_step)));
        Store(to + (row * width + x) * channels + c, largest);
      }
    }
  }
}

// Where output index `o` of a doubled axis of `length` reads, corners aligned.
struct Between {
  int64_t low, high;
  float high_weight;
};
Between ReadAt(int64_t o, int64_t length) {
  const float step = static_cast<float>(length - 1) / static_cast<float>(2 * length - 1);
  const float at = step * static_cast<float>(o);
  const int64_t low = std::min(static_cast<int64_t>(at), length - 1);
  return {low, std::min(low + 1, length - 1), at - static_cast<float>(low)};
}

void Upsample(const float* from, Extent extent, int64_t channels, int64_t first, int64_t last,
              float* scratch, float* to, int64_t to_stride) {
  const int64_t line_size = extent.width * channels;
  for (int64_t row = first; row < last; ++row) {
    const Between z = ReadAt(row / (2 * extent.height), extent.depth);
    const Between y = ReadAt(row % (2 * extent.height), extent.height);
    const auto line = [&](int64_t k, int64_t j) {
      return from + (k * extent.height + j) * line_size;
    };
    const float *p00 = line(z.low, y.low), *p01 = line(z.low, y.high);
    const float *p10 = line(z.high, y.low), *p11 = line(z.high, y.high);
    const float w11 = z.high_weight * y.high_weight, w10 = z.high_weight * (1 - y.high_weight);
    const float w01 = (1 - z.high_weight) * y.high_weight;
    const float w00 = (1 - z.high_weight) * (1 - y.high_weight);
    for (int64_t i = 0; i < line_size; i += kLanes) {
      Store(scratch + i,
            Load(p00 + i) * w00 + Load(p01 + i) * w01 + Load(p10 + i) * w10 + Load(p11 + i) * w11);
    }
    for (int64_t o = 0; o < 2 * extent.width; ++o) {
      const Between x = ReadAt(o, extent.width);
      const float *low = scratch + x.low * channels, *high = scratch + x.high * channels;
      float* out = to + (row * 2 * extent.width + o) * to_stride;
      for (int64_t c = 0; c < channels; c += kLanes) {
        Store(out + c, Load(low + c) * (1 - x.high_weight) + Load(high + c) * x.high_weight);
      }
    }
  }
}

// sums[o][i][k] += the products of kOut gradient rows with kIn input rows at three shifts, over
// `rows` rows. A product takes less than one load: rows of both stay in registers for all their
// partners.
template <int kOut, int kIn>
inline void AccumulateRows(const float* const gradient[kOut], const float* const input[kIn],
                           int64_t gradient_step, int64_t input_step, int64_t rows, int64_t width,
                           float* const sums[kOut][kIn]) {
  Vec sum[kOut][kIn][3];
#pragma GCC unroll 2
  for (int o = 0; o < kOut; ++o) {
#pragma GCC unroll 2
    for (int i = 0; i < kIn; ++i) {
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) sum[o][i][k] = Load(sums[o][i] + k * kGradientRow);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t x = 0; x < width; x += kLanes) {
      Vec g[kOut];
#pragma GCC unroll 2
      for (int o = 0; o < kOut; ++o) g[o] = Load(gradient[o] + row * gradient_step + x);
#pragma GCC unroll 2
      for (int i = 0; i < kIn; ++i) {
#pragma GCC unroll 3
        for (int k = 0; k < 3; ++k) {
          const Vec value = Load(input[i] + row * input_step + x + k);
#pragma GCC unroll 2
          for (int o = 0; o < kOut; ++o) sum[o][i][k] += g[o] * value;
        }
      }
    }
  }
#pragma GCC unroll 2
  for (int o = 0; o < kOut; ++o) {
#pragma GCC unroll 2
    for (int i = 0; i < kIn; ++i) {
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) Store(sums[o][i] + k * kGradientRow, sum[o][i][k]);
    }
  }
}

// One group of output and input channels over some rows of a slice, all nine lines of taps.
template <int kOut, int kIn>
void AccumulateGroup(const WeightGradient& task, int64_t out, int64_t in, int64_t z, int64_t y,
                     int64_t rows, float* scratch) {
  const int64_t input_row = task.stride + 2;
  const int64_t input_slice = (task.extent.height + 2) * input_row;
  const int64_t input_channel = (task.extent.depth + 2) * input_slice;
  const float* gradient[kOut];
  for (int o = 0; o < kOut; ++o) {
    gradient[o] = task.gradient +
                  (((out + o) * task.extent.depth + z) * task.extent.height + y) * task.stride;
  }
  for (int line = 0; line < 9; ++line) {
    const float* input[kIn];
    float* sums[kOut][kIn];
    for (int i = 0; i < kIn; ++i) {
      input[i] = task.input + (in + i) * input_channel + (z + line / 3) * input_slice +
                 (y + line % 3) * input_row;
      for (int o = 0; o < kOut; ++o) {
        sums[o][i] =
            scratch + (((out + o) * task.in_channels + in + i) * 27 + line * 3) * kGradientRow;
      }
    }
    AccumulateRows<kOut, kIn>(gradient, input, task.stride, input_row, rows, task.stride, sums);
  }
}

void WeightGradients(const WeightGradient& task, int64_t first, int64_t last, float* scratch,
                     float* sums) {
  constexpr int64_t kRowsAtOnce = 8;  // their input and gradient stay in the second-level cache
  const int64_t values = task.in_channels * task.out_channels * 27;
  std::fill(scratch, scratch + values * kGradientRow, 0.0f);
  for (int64_t z = first; z < last; ++z) {
    for (int64_t y = 0; y < task.extent.height; y += kRowsAtOnce) {
      const int64_t rows = std::min(kRowsAtOnce, task.extent.height - y);
      for (int64_t out = 0; out < task.out_channels; out += 2) {
        for (int64_t in = 0; in < task.in_channels; in += 2) {
          const bool two_out = out + 1 < task.out_channels, two_in = in + 1 < task.in_channels;
          if (two_out && two_in) {
            AccumulateGroup<2, 2>(task, out, in, z, y, rows, scratch);
          } else if (two_out) {
            AccumulateGroup<2, 1>(task, out, in, z, y, rows, scratch);
          } else if (two_in) {
            AccumulateGroup<1, 2>(task, out, in, z, y, rows, scratch);
          } else {
            AccumulateGroup<1, 1>(task, out, in, z, y, rows, scratch);
          }
        }
      }
    }
  }
  for (int64_t value = 0; value < values; ++value) {
    float sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += scratch[value * kGradientRow + lane];
    sums[value] += sum;
  }
}

}  // namespace

extern const CpuKernels GVSL_TABLE;
const CpuKernels GVSL_TABLE = {GVSL_NAME,
                               WinogradTiles,
                               FirstLayer,
                               Normalise,
                               NormalisePlanar,
                               MaxPool,
                               Upsample,
                               WeightGradients,
                               WinogradGradientTiles,
                               WinogradGradientPoints,
                               ToChannelsLast,
                               ToPlanar};

}  // namespace gvsl
