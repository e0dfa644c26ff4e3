// Extractor: features of volumes by one loaded model on one device.
//
//   auto extractor = Extractor::Load("model.safetensors", {"cpu", 2});
//   auto global = (*extractor)->Global(volume, {}, never_cancelled);
//
// No LibTorch type appears here. Not thread-safe: one call at a time (the server's engine sees to
// that).
#ifndef GVSL_MODEL_EXTRACTOR_H_
#define GVSL_MODEL_EXTRACTOR_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "imaging/volume.h"
#include "model/model_file.h"
#include "model/registration.h"

namespace gvsl {

struct DeviceOptions {
  std::string device = "auto";  // auto, cpu, cuda:N
  int threads = 0;              // of the CPU; 0: all cores
};

// Sets up LibTorch for the process: the CPU threads of LibTorch, OpenBLAS and ParallelFor, float32
// without TensorFloat-32, and malloc kept from mapping and unmapping every large tensor
// (docs/performance.md). Extractor::Load does it, too; the last call holds. Returns the device that
// "auto" means. INVALID_ARGUMENT for a device that is not there.
absl::StatusOr<std::string> InitializeLibTorch(const DeviceOptions& options);
std::string LibTorchVersion();

struct WindowOptions {
  int64_t window = 0;     // side in voxels, a multiple of 16; 0: the card's crop, 128 without one
  double overlap = 0.25;  // 0..0.75
  bool gaussian = true;   // else constant weights
  int64_t batch = 0;      // windows a pass; 0: 1 on the CPU; up to 4, as fit, on CUDA
  int64_t levels = 1;     // of the decoder that make the dense features, 1..4, the last first
  bool half_precision = false;  // bf16 on CUDA; ignored on the CPU
  int64_t memory_bytes = 0;     // the default batch is one that fits into it; 0: not looked at
};

struct DenseOptions {
  WindowOptions window;
  bool volume_space = false;  // on the volume's own grid instead of the model's
  std::array<int64_t, 3> roi_begin = {0, 0, 0};
  std::array<int64_t, 3> roi_end = {0, 0, 0};  // all 0: everything
  int64_t stride = 1;
  int64_t memory_bytes = 0;  // RESOURCE_EXHAUSTED if slab and pass need more; 0: not looked at
};

// Asked between windows: true stops the work with CANCELLED.
using CancelFunction = std::function<bool()>;

struct DenseHeader {
  Grid grid;  // of the answer: region and stride applied
  int64_t channels = 0;
};

// Receives dense features slice by slice, in order. A status that is not OK stops the work.
class DenseSink {
 public:
  virtual ~DenseSink() = default;
  virtual absl::Status Begin(const DenseHeader& header) = 0;
  // One slice `[channel][row][column]`, float32.
  virtual absl::Status Slice(int64_t z, const float* values) = 0;
};

struct PointFeature {
  bool out_of_view = false;
  std::vector<float> values;  // [dense_channels(levels)]; empty if out of view
};

// Where a point of one volume lies in another, by dense features.
struct PointMatch {
  bool found = false;         // false where the point lies outside its own volume
  Vec3 point_mm = {0, 0, 0};  // in the other volume
  double score = 0;           // mean cosine of the coarse and of the fine features, -1..1
  // From the point to where the same search leads back; nothing where the match lies so near the
  // border that no features of it are known.
  std::optional<double> cycle_distance_mm;
};

struct LabelFeature {
  int32_t label = 0;
  int64_t voxel_count = 0;
  std::vector<float> mean;                // [dense_channels(levels)]
  std::vector<float> standard_deviation;  // population
};

class Extractor {
 public:
  // INVALID_ARGUMENT for a file that is no model of ours, or a device that is not there.
  static absl::StatusOr<std::unique_ptr<Extractor>> Load(const std::string& safetensors_path,
                                                         const DeviceOptions& options);
  ~Extractor();

  const ModelInfo& info() const;
  // Of the model as loaded: its tensors, and the weights that each engine has prepared from them so
  // far, on the host or the device. Grows when half precision is first asked for.
  int64_t memory_bytes() const;

  // The options with every default filled in, as the methods below use them.
  WindowOptions Resolved(const WindowOptions& options) const;

  // OK if the options make sense and a pass of this window fits into `memory_bytes` (0: not looked
  // at). INVALID_ARGUMENT names the field; RESOURCE_EXHAUSTED tells the largest window that fits.
  absl::Status CheckWindow(const WindowOptions& options, int64_t memory_bytes) const;

  // [global_channels]: the bottleneck averaged over each window, windows weighted by the share of
  // them that the volume fills. Padded voxels outside the volume are zero, as in training.
  absl::StatusOr<std::vector<float>> Global(const Volume& volume, const WindowOptions& options,
                                            const CancelFunction& cancelled);

  // Memory: one slab of window depth (all rows and columns of the region) and one pass; never the
  // volume.
  absl::Status Dense(const Volume& volume, const DenseOptions& options,
                     const CancelFunction& cancelled, DenseSink& sink);

  // Dense features at LPS points in mm; only windows that hold points are computed.
  absl::StatusOr<std::vector<PointFeature>> Sample(const Volume& volume,
                                                   const std::vector<Vec3>& points_mm,
                                                   const WindowOptions& options,
                                                   const CancelFunction& cancelled);

  // Statistics over the labels of `labels` (kLabels; any grid), brought to the model's grid by
  // nearest neighbour. Ascending labels, background left out. INVALID_ARGUMENT, before any window
  // is computed, if it holds none or more than `max_labels`. Memory and its limit as Dense.
  absl::StatusOr<std::vector<LabelFeature>> Pool(const Volume& volume, const Volume& labels,
                                                 const WindowOptions& options,
                                                 const CancelFunction& cancelled,
                                                 int64_t memory_bytes = 0,
                                                 int64_t max_labels = 4096);

  // Register (model/registration.h) with this model's card, and its network where the options ask
  // for it, which is read from the file when first needed and then stays.
  absl::StatusOr<Registration> Register(const RegistrationInput& input,
                                        const RegistrationOptions& options,
                                        const RegistrationWatch& watch);

  // Where points of fixed space lie in the moving volume: the most similar place of the whole, on a
  // lattice so coarse that one pass sees all of a volume, then of its surroundings at the card's
  // spacing (as Yan et al., SAM, IEEE TMI 2022, with this network's features at two resolutions).
  // Memory: the coarse features of both volumes, and a pass. INVALID_ARGUMENT as Register.
  absl::StatusOr<std::vector<PointMatch>> MatchPoints(const Volume& fixed, const Volume& moving,
                                                      const std::vector<Vec3>& points_mm,
                                                      const WindowOptions& options,
                                                      const CancelFunction& cancelled);

 private:
  Extractor();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gvsl

#endif  // GVSL_MODEL_EXTRACTOR_H_
