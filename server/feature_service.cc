#include "server/feature_service.h"

#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "server/dense_stream.h"
#include "server/engine_call.h"
#include "server/streams.h"

namespace gvsl {
namespace {

absl::StatusOr<WindowOptions> WindowFrom(const v1::WindowOptions& message, int64_t memory_bytes) {
  WindowOptions options;
  options.memory_bytes = memory_bytes;
  options.window = message.window();
  if (message.has_overlap()) options.overlap = message.overlap();
  if (message.blending() < v1::WindowOptions::BLENDING_UNSPECIFIED ||
      message.blending() > v1::WindowOptions::CONSTANT) {
    return absl::InvalidArgumentError("window.blending: GAUSSIAN or CONSTANT");
  }
  options.gaussian = message.blending() != v1::WindowOptions::CONSTANT;
  if (message.precision() < v1::WindowOptions::PRECISION_UNSPECIFIED ||
      message.precision() > v1::WindowOptions::BFLOAT16) {
    return absl::InvalidArgumentError("window.precision: FLOAT32 or BFLOAT16");
  }
  options.half_precision = message.precision() == v1::WindowOptions::BFLOAT16;
  options.batch = message.batch();
  options.levels = message.levels() == 0 ? 1 : message.levels();
  if (options.levels < 1 || options.levels > kDecoderLevels) {
    return absl::InvalidArgumentError(
        absl::StrCat("window.levels: ", options.levels, " must lie in 1 to ", kDecoderLevels));
  }
  return options;
}

v1::WindowOptions ToProto(const WindowOptions& options) {
  v1::WindowOptions message;
  message.set_window(static_cast<int32_t>(options.window));
  message.set_overlap(options.overlap);
  message.set_blending(options.gaussian ? v1::WindowOptions::GAUSSIAN
                                        : v1::WindowOptions::CONSTANT);
  message.set_precision(options.half_precision ? v1::WindowOptions::BFLOAT16
                                               : v1::WindowOptions::FLOAT32);
  message.set_batch(static_cast<int32_t>(options.batch));
  message.set_levels(static_cast<int32_t>(options.levels));
  return message;
}

// INVALID_ARGUMENT when `count` vectors do not fit into one message.
absl::Status CheckAnswer(const char* field, int64_t count, int64_t channels,
                         int64_t overhead_bytes) {
  const int64_t most = VectorsInAnswer(channels, overhead_bytes);
  if (count <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", count, " vectors of ", channels,
                   " channels are more than one answer holds; at most ", most, " a call"));
}

absl::Status Global(ServerState& state, const v1::ExtractGlobalRequest& request,
                    const CancelFunction& cancelled, v1::ExtractGlobalResponse* response) {
  if (request.volumes_size() < 1 || request.volumes_size() > kMostVolumes) {
    return absl::InvalidArgumentError(absl::StrCat("volumes: ", request.volumes_size(),
                                                   " names; 1 to ", kMostVolumes, " a call"));
  }
  if (request.window().levels() != 0) {
    return absl::InvalidArgumentError(
        "window.levels: global vectors come from the bottleneck, not the decoder; leave it unset");
  }
  auto options = WindowFrom(request.window(), state.memory_bytes());
  if (!options.ok()) return options.status();
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  std::vector<StoredVolume> volumes;
  for (int i = 0; i < request.volumes_size(); ++i) {
    auto stored = VolumeOf(state, request.volumes(i), absl::StrCat("volumes[", i, "]"), false);
    if (!stored.ok()) return stored.status();
    volumes.push_back(*std::move(stored));
  }
  if (absl::Status status = CheckAnswer("volumes", request.volumes_size(),
                                        model->model.global_channels(), kGlobalOverheadBytes);
      !status.ok()) {
    return status;
  }
  *response->mutable_model() = model->model.identity();
  // A turn on the device a volume: a long list does not keep others from theirs.
  for (const StoredVolume& stored : volumes) {
    auto volume = state.MapVolume(stored);
    if (!volume.ok()) return volume.status();
    const bool admitted = response->features_size() > 0;
    const auto extract = [&](Extractor& extractor) -> absl::Status {
      auto values = extractor.Global(*volume, *options, cancelled);
      if (!values.ok()) return values.status();
      *response->mutable_window() = ToProto(extractor.Resolved(*options));
      response->mutable_window()->clear_levels();
      auto* feature = response->add_features();
      feature->set_volume(stored.volume.name());
      feature->mutable_values()->Add(values->begin(), values->end());
      return absl::OkStatus();
    };
    absl::Status status = OnEngine(state, *model, *options, cancelled, extract, admitted);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<DenseOptions> DenseFrom(const v1::ExtractDenseRequest& request,
                                       int64_t memory_bytes) {
  DenseOptions options;
  auto window = WindowFrom(request.window(), memory_bytes);
  if (!window.ok()) return window.status();
  options.window = *window;
  options.memory_bytes = memory_bytes;
  if (request.space() < v1::ExtractDenseRequest::SPACE_UNSPECIFIED ||
      request.space() > v1::ExtractDenseRequest::VOLUME) {
    return absl::InvalidArgumentError("space: MODEL or VOLUME");
  }
  options.volume_space = request.space() == v1::ExtractDenseRequest::VOLUME;
  if (request.stride() < 0) return absl::InvalidArgumentError("stride: negative");
  options.stride = request.stride() == 0 ? 1 : request.stride();
  if (request.type() < v1::FEATURE_TYPE_UNSPECIFIED || request.type() > v1::FLOAT16) {
    return absl::InvalidArgumentError("type: FLOAT32 or FLOAT16");
  }
  if (request.has_roi()) {
    if (request.roi().begin_size() != 3 || request.roi().end_size() != 3) {
      return absl::InvalidArgumentError("roi: begin and end need three values each");
    }
    for (int i = 0; i < 3; ++i) {
      options.roi_begin[i] = request.roi().begin(i);
      options.roi_end[i] = request.roi().end(i);
      if (options.roi_begin[i] < 0 || options.roi_end[i] <= options.roi_begin[i]) {
        return absl::InvalidArgumentError(absl::StrCat("roi: [", options.roi_begin[i], ", ",
                                                       options.roi_end[i], ") on axis ", i,
                                                       " is empty or begins below 0"));
      }
    }
  }
  return options;
}

absl::Status Dense(ServerState& state, const v1::ExtractDenseRequest& request,
                   const CancelFunction& cancelled,
                   StreamWriter<v1::ExtractDenseResponse>& stream) {
  auto options = DenseFrom(request, state.memory_bytes());
  if (!options.ok()) return options.status();
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  auto stored = VolumeOf(state, request.volume(), "volume", false);
  if (!stored.ok()) return stored.status();
  auto volume = state.MapVolume(*stored);
  if (!volume.ok()) return volume.status();
  v1::ExtractDenseResponse::Header header;
  header.set_type(request.type() == v1::FLOAT16 ? v1::FLOAT16 : v1::FLOAT32);
  *header.mutable_model() = model->model.identity();
  DenseStream sink(stream, header);
  absl::Status status =
      OnEngine(state, *model, options->window, cancelled, [&](Extractor& extractor) {
        stream.HoldDevice();
        sink.set_window(ToProto(extractor.Resolved(options->window)));
        return extractor.Dense(*volume, *options, cancelled, sink);
      });
  stream.ReleaseDevice();
  return status.ok() ? sink.Finish() : status;
}

absl::Status Sample(ServerState& state, const v1::SampleFeaturesRequest& request,
                    const CancelFunction& cancelled, v1::SampleFeaturesResponse* response) {
  if (request.points_size() < 1 || request.points_size() > kMostPoints) {
    return absl::InvalidArgumentError(
        absl::StrCat("points: ", request.points_size(), " points; 1 to ", kMostPoints, " a call"));
  }
  std::vector<Vec3> points;
  for (int i = 0; i < request.points_size(); ++i) {
    const auto& point = request.points(i);
    if (!std::isfinite(point.x_mm()) || !std::isfinite(point.y_mm()) ||
        !std::isfinite(point.z_mm())) {
      return absl::InvalidArgumentError(absl::StrCat("points[", i, "]: not a finite position"));
    }
    points.push_back({point.x_mm(), point.y_mm(), point.z_mm()});
  }
  auto options = WindowFrom(request.window(), state.memory_bytes());
  if (!options.ok()) return options.status();
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  if (absl::Status status =
          CheckAnswer("points", request.points_size(), DenseChannels(model->model, options->levels),
                      kSampleOverheadBytes);
      !status.ok()) {
    return status;
  }
  auto stored = VolumeOf(state, request.volume(), "volume", false);
  if (!stored.ok()) return stored.status();
  auto volume = state.MapVolume(*stored);
  if (!volume.ok()) return volume.status();
  *response->mutable_model() = model->model.identity();
  return OnEngine(state, *model, *options, cancelled, [&](Extractor& extractor) -> absl::Status {
    auto samples = extractor.Sample(*volume, points, *options, cancelled);
    if (!samples.ok()) return samples.status();
    *response->mutable_window() = ToProto(extractor.Resolved(*options));
    for (const PointFeature& feature : *samples) {
      auto* sample = response->add_samples();
      sample->set_out_of_view(feature.out_of_view);
      sample->mutable_values()->Add(feature.values.begin(), feature.values.end());
    }
    return absl::OkStatus();
  });
}

absl::Status Pool(ServerState& state, const v1::PoolFeaturesRequest& request,
                  const CancelFunction& cancelled, v1::PoolFeaturesResponse* response) {
  auto options = WindowFrom(request.window(), state.memory_bytes());
  if (!options.ok()) return options.status();
  auto model = ModelOf(state, request.model());
  if (!model.ok()) return model.status();
  auto stored = VolumeOf(state, request.volume(), "volume", false);
  if (!stored.ok()) return stored.status();
  auto stored_labels = VolumeOf(state, request.labels(), "labels", true);
  if (!stored_labels.ok()) return stored_labels.status();
  auto volume = state.MapVolume(*stored);
  if (!volume.ok()) return volume.status();
  auto labels = state.MapVolume(*stored_labels);
  if (!labels.ok()) return labels.status();
  *response->mutable_model() = model->model.identity();
  return OnEngine(state, *model, *options, cancelled, [&](Extractor& extractor) -> absl::Status {
    auto pooled = extractor.Pool(
        *volume, *labels, *options, cancelled, state.memory_bytes(),
        VectorsInAnswer(2 * DenseChannels(model->model, options->levels), kLabelOverheadBytes));
    if (!pooled.ok()) return pooled.status();
    *response->mutable_window() = ToProto(extractor.Resolved(*options));
    for (const LabelFeature& feature : *pooled) {
      auto* label = response->add_labels();
      label->set_label(feature.label);
      label->set_voxel_count(feature.voxel_count);
      label->mutable_mean()->Add(feature.mean.begin(), feature.mean.end());
      label->mutable_standard_deviation()->Add(feature.standard_deviation.begin(),
                                               feature.standard_deviation.end());
    }
    return absl::OkStatus();
  });
}

}  // namespace

grpc::ServerUnaryReactor* FeatureServiceImpl::ExtractGlobal(grpc::CallbackServerContext* context,
                                                            const v1::ExtractGlobalRequest* request,
                                                            v1::ExtractGlobalResponse* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return Global(state_, *request, CancelledBy(context), response);
  });
}

grpc::ServerWriteReactor<v1::ExtractDenseResponse>* FeatureServiceImpl::ExtractDense(
    grpc::CallbackServerContext* context, const v1::ExtractDenseRequest* request) {
  using Writer = StreamWriter<v1::ExtractDenseResponse>;
  return Writer::Start(context, state_.calls, [this, context, request = *request](Writer& stream) {
    return Dense(state_, request, CancelledBy(context), stream);
  });
}

grpc::ServerUnaryReactor* FeatureServiceImpl::SampleFeatures(
    grpc::CallbackServerContext* context, const v1::SampleFeaturesRequest* request,
    v1::SampleFeaturesResponse* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return Sample(state_, *request, CancelledBy(context), response);
  });
}

grpc::ServerUnaryReactor* FeatureServiceImpl::PoolFeatures(grpc::CallbackServerContext* context,
                                                           const v1::PoolFeaturesRequest* request,
                                                           v1::PoolFeaturesResponse* response) {
  return HandleUnary(context, state_.calls, [this, context, request, response] {
    return Pool(state_, *request, CancelledBy(context), response);
  });
}

}  // namespace gvsl
