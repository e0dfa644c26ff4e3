// SampleAt of model/warp.h: trilinear interpolation with its gradients.
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>

#include "model/warp.h"

namespace gvsl {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kChunk = 256;  // points whose cells are held at a time

// The eight voxels around each point of a chunk, and their weights; offset and weight of one
// outside are 0.
template <typename T>
struct Cells {
  int64_t offset[8][kChunk];
  T weight[8][kChunk];
  T fraction[3][kChunk];  // of the upper neighbour, along z, y, x
  bool inside[3][2][kChunk];
  // Of the lower and the upper neighbour on an axis.
  int64_t axis_offset[3][2][kChunk];
  T axis_weight[3][2][kChunk];
};

// One simple loop an axis and a corner. As one loop over points, g++ 12.2 with -O1 and -O2 (not
// -O3) made weights and offsets of 0 of it (its -fivopts).
template <typename T>
void FindCells(const T* const points[3], const int64_t size[3], int64_t count, Cells<T>& cells) {
  const int64_t strides[3] = {size[1] * size[2], size[2], 1};
  for (int axis = 0; axis < 3; ++axis) {
    const T length = static_cast<T>(size[axis]);
    const int64_t stride = strides[axis];
    for (int64_t i = 0; i < count; ++i) {
      const T place = points[axis][i];
      // False for NaN as well, whose place no integer has.
      const bool near = place > -1 && place < length;
      const T below = near ? std::floor(place) : T(0);
      const int64_t low = static_cast<int64_t>(below);
      const T fraction = near ? place - below : T(0);
      const bool low_inside = near && place >= 0, high_inside = near && place < length - 1;
      cells.fraction[axis][i] = fraction;
      cells.inside[axis][0][i] = low_inside;
      cells.inside[axis][1][i] = high_inside;
      cells.axis_offset[axis][0][i] = low_inside ? low * stride : 0;
      cells.axis_offset[axis][1][i] = high_inside ? (low + 1) * stride : 0;
      cells.axis_weight[axis][0][i] = low_inside ? 1 - fraction : T(0);
      cells.axis_weight[axis][1][i] = high_inside ? fraction : T(0);
    }
  }
  for (int corner = 0; corner < 8; ++corner) {
    const int z = corner >> 2, y = corner >> 1 & 1, x = corner & 1;
    for (int64_t i = 0; i < count; ++i) {
      cells.offset[corner][i] =
          cells.axis_offset[0][z][i] + cells.axis_offset[1][y][i] + cells.axis_offset[2][x][i];
      cells.weight[corner][i] =
          cells.axis_weight[0][z][i] * cells.axis_weight[1][y][i] * cells.axis_weight[2][x][i];
    }
  }
}

// What the kernels see of the two tensors.
struct Shape {
  int64_t batch, channels, voxels, points;
  int64_t size[3];
};

Shape ShapeOf(const Tensor& image, const Tensor& points) {
  return {image.size(0),
          image.size(1),
          image.size(2) * image.size(3) * image.size(4),
          points.size(2) * points.size(3) * points.size(4),
          {image.size(2), image.size(3), image.size(4)}};
}

// Calls body(sample, first point, number of points, cells) over all points of all samples.
template <typename T, typename Body>
void ForEachChunk(const Shape& shape, const T* points, const Body& body) {
  const int64_t chunks = (shape.points + kChunk - 1) / kChunk;
  at::parallel_for(0, shape.batch * chunks, 4, [&](int64_t begin, int64_t end) {
    auto cells = std::make_unique<Cells<T>>();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = i / chunks, first = i % chunks * kChunk;
      const int64_t count = std::min(kChunk, shape.points - first);
      const T* row = points + sample * 3 * shape.points + first;
      const T* const axes[3] = {row, row + shape.points, row + 2 * shape.points};
      FindCells<T>(axes, shape.size, count, *cells);
      body(sample, first, count, *cells);
    }
  });
}

template <typename T>
void Sample(const Shape& shape, const T* image, const T* points, T* out) {
  ForEachChunk<T>(shape, points, [&](int64_t n, int64_t first, int64_t count, const Cells<T>& c) {
    for (int64_t channel = 0; channel < shape.channels; ++channel) {
      const T* in = image + (n * shape.channels + channel) * shape.voxels;
      T* to = out + (n * shape.channels + channel) * shape.points + first;
      for (int64_t i = 0; i < count; ++i) {
        T sum = c.weight[0][i] * in[c.offset[0][i]];
        for (int k = 1; k < 8; ++k) sum += c.weight[k][i] * in[c.offset[k][i]];
        to[i] = sum;
      }
    }
  });
}

template <typename T>
void PointGradient(const Shape& shape, const T* image, const T* points, const T* grad, T* out) {
  ForEachChunk<T>(shape, points, [&](int64_t n, int64_t first, int64_t count, const Cells<T>& c) {
    T sums[3][kChunk] = {};
    for (int64_t channel = 0; channel < shape.channels; ++channel) {
      const T* in = image + (n * shape.channels + channel) * shape.voxels;
      const T* upstream = grad + (n * shape.channels + channel) * shape.points + first;
      for (int64_t i = 0; i < count; ++i) {
        T value[8];
        for (int k = 0; k < 8; ++k) {
          const bool inside =
              c.inside[0][k >> 2][i] && c.inside[1][k >> 1 & 1][i] && c.inside[2][k & 1][i];
          value[k] = inside ? in[c.offset[k][i]] : T(0);
        }
        const T z = c.fraction[0][i], y = c.fraction[1][i], x = c.fraction[2][i];
        const auto mix = [](T low, T high, T share) { return low + (high - low) * share; };
        const T along_z = mix(mix(value[4] - value[0], value[5] - value[1], x),
                              mix(value[6] - value[2], value[7] - value[3], x), y);
        const T along_y = mix(mix(value[2] - value[0], value[3] - value[1], x),
                              mix(value[6] - value[4], value[7] - value[5], x), z);
        const T along_x = mix(mix(value[1] - value[0], value[3] - value[2], y),
                              mix(value[5] - value[4], value[7] - value[6], y), z);
        sums[0][i] += upstream[i] * along_z;
        sums[1][i] += upstream[i] * along_y;
        sums[2][i] += upstream[i] * along_x;
      }
    }
    for (int axis = 0; axis < 3; ++axis) {
      T* to = out + (n * 3 + axis) * shape.points + first;
      std::copy(sums[axis], sums[axis] + count, to);
    }
  });
}

// Each thread scatters into planes of its own, so that sums do not depend on the number of threads.
template <typename T>
void ImageGradient(const Shape& shape, const T* points, const T* grad, T* out) {
  const int64_t share = std::max<int64_t>(1, shape.batch * shape.channels / at::get_num_threads());
  at::parallel_for(0, shape.batch * shape.channels, share, [&](int64_t begin, int64_t end) {
    auto cells = std::make_unique<Cells<T>>();
    while (begin < end) {
      const int64_t n = begin / shape.channels;
      const int64_t stop = std::min(end, (n + 1) * shape.channels);
      const T* row = points + n * 3 * shape.points;
      for (int64_t first = 0; first < shape.points; first += kChunk) {
        const int64_t count = std::min(kChunk, shape.points - first);
        const T* const axes[3] = {row + first, row + shape.points + first,
                                  row + 2 * shape.points + first};
        FindCells<T>(axes, shape.size, count, *cells);
        for (int64_t plane = begin; plane < stop; ++plane) {
          const T* upstream = grad + plane * shape.points + first;
          T* to = out + plane * shape.voxels;
          for (int64_t i = 0; i < count; ++i) {
            for (int k = 0; k < 8; ++k) {
              to[cells->offset[k][i]] += cells->weight[k][i] * upstream[i];
            }
          }
        }
      }
      begin = stop;
    }
  });
}

class TrilinearSample : public torch::autograd::Function<TrilinearSample> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& image_in, const Tensor& points_in) {
    const Tensor image = image_in.contiguous(), points = points_in.contiguous();
    context->save_for_backward({image, points});
    const Shape shape = ShapeOf(image, points);
    Tensor out =
        at::empty({shape.batch, shape.channels, points.size(2), points.size(3), points.size(4)},
                  image.options());
    AT_DISPATCH_FLOATING_TYPES(image.scalar_type(), "SampleAt", [&] {
      Sample<scalar_t>(shape, image.data_ptr<scalar_t>(), points.data_ptr<scalar_t>(),
                       out.data_ptr<scalar_t>());
    });
    return out;
  }

  static tensor_list backward(AutogradContext* context, tensor_list upstream) {
    const auto saved = context->get_saved_variables();
    const Tensor &image = saved[0], &points = saved[1], grad = upstream[0].contiguous();
    const Shape shape = ShapeOf(image, points);
    Tensor image_grad, points_grad;
    AT_DISPATCH_FLOATING_TYPES(image.scalar_type(), "SampleAt gradient", [&] {
      if (context->needs_input_grad(0)) {
        image_grad = at::zeros_like(image);
        ImageGradient<scalar_t>(shape, points.data_ptr<scalar_t>(), grad.data_ptr<scalar_t>(),
                                image_grad.data_ptr<scalar_t>());
      }
      if (context->needs_input_grad(1)) {
        points_grad = at::empty_like(points);
        PointGradient<scalar_t>(shape, image.data_ptr<scalar_t>(), points.data_ptr<scalar_t>(),
                                grad.data_ptr<scalar_t>(), points_grad.data_ptr<scalar_t>());
      }
    });
    return {image_grad, points_grad};
  }
};

// LibTorch's sampler, which wants (x, y, z) from -1 to 1 between the outermost voxel centres.
Tensor GridSample(const Tensor& image, const Tensor& points) {
  std::vector<Tensor> axes;
  for (int64_t axis = 2; axis >= 0; --axis) {
    const double last = std::max<double>(1, static_cast<double>(image.size(axis + 2) - 1));
    axes.push_back(points.select(1, axis) * (2 / last) - 1);
  }
  return at::grid_sampler(image, at::stack(axes, 4), /*trilinear*/ 0, /*zeros*/ 0,
                          /*align_corners=*/true);
}

}  // namespace

Tensor SampleAt(const Tensor& image, const Tensor& points) {
  // Places of half precision would be off by up to half a voxel.
  const auto type = image.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor where =
      points.expand({image.size(0), 3, points.size(2), points.size(3), points.size(4)}).to(type);
  if (!image.device().is_cpu()) {
    return GridSample(image.to(type), where).to(image.scalar_type());
  }
  return TrilinearSample::apply(image.to(type), where).to(image.scalar_type());
}

}  // namespace gvsl
