#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/feature_file.h"
#include "client/points_file.h"
#include "client/progress.h"
#include "client/wire.h"
#include "imaging/output_file.h"

namespace gvsl::cli {
namespace {

struct FeatureOptions : ImportOptions {
  std::string model;
  int window = 0;
  std::optional<double> overlap;
  std::string blending, precision;
  int batch = 0;
  int levels = 0;  // of verbs that give dense features
};

void AddFeatureOptions(CLI::App* verb, FeatureOptions& options) {
  verb->add_option("--model", options.model, "models/{id} (default: the server's default model)");
  verb->add_option("--window", options.window,
                   "side of the sliding window in voxels, a multiple of 16");
  verb->add_option("--overlap", options.overlap,
                   "share that windows overlap, 0 to 0.75 (default 0.25)");
  verb->add_option("--blending", options.blending, "gaussian or constant (default gaussian)")
      ->check(CLI::IsMember({"gaussian", "constant"}));
  verb->add_option("--precision", options.precision,
                   "float32 or bfloat16, on a GPU (default float32)")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  verb->add_option("--batch", options.batch,
                   "windows computed at once (default 1 on a CPU, 4 on a GPU)");
  verb->add_option("--modality", options.modality,
                   "modality of files that are uploaded first, such as CT or MR");
}

void AddLevels(CLI::App* verb, FeatureOptions& options) {
  verb->add_option("--levels", options.levels,
                   "levels of the decoder, 1 to 4: more channels, coarser ones behind (default 1)");
}

void FillWindow(const FeatureOptions& options, v1::WindowOptions* window) {
  window->set_window(options.window);
  if (options.overlap) window->set_overlap(*options.overlap);
  if (options.blending == "constant") window->set_blending(v1::WindowOptions::CONSTANT);
  if (options.precision == "bfloat16") window->set_precision(v1::WindowOptions::BFLOAT16);
  window->set_batch(options.batch);
  window->set_levels(options.levels);
}

// Adds the answer of one call of several; all must come from one model.
template <typename Response>
absl::Status Append(const Response& answer, Response* all) {
  if (all->has_model() && answer.model().fingerprint() != all->model().fingerprint()) {
    return absl::AbortedError("the default model was changed meanwhile; name one with --model");
  }
  all->MergeFrom(answer);
  return absl::OkStatus();
}

template <typename Values>
double Norm(const Values& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

void AddGlobal(CLI::App& group, Action& action) {
  struct Options : FeatureOptions {
    std::vector<std::string> volumes;
    std::string output;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "global", "One vector a volume, into a NumPy array [volumes, channels]",
              "gvsl features global volumes/3f2a ct.nii.gz -o global.npy");
  verb->add_option("VOLUME", options->volumes, "stored names or files (uploaded first)")
      ->required();
  verb->add_option("-o,--output", options->output,
                   ".npy file to write (default: none, a summary is printed)")
      ->check(EndsIn({".npy"}));
  AddFeatureOptions(verb, *options);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::ExtractGlobalResponse all;
      std::vector<std::string> names;
      for (const std::string& volume : options->volumes) {
        auto name = NameOfVolume(context, volume, *options);
        if (!name.ok()) return name.status();
        // A wrong name is told before minutes of work are done for the right ones.
        if (auto stored = context.client.GetVolume(*name); !stored.ok()) return stored.status();
        names.push_back(*name);
      }
      {
        // A call a volume: the server takes a turn on its device for each in any case.
        ProgressBar bar("extracting", "volumes");
        for (const std::string& name : names) {
          bar.Update(all.features_size(), static_cast<int64_t>(names.size()));
          v1::ExtractGlobalRequest request;
          request.set_model(options->model);
          FillWindow(*options, request.mutable_window());
          request.add_volumes(name);
          auto answer = context.client.ExtractGlobal(request);
          if (!answer.ok()) return answer.status();
          if (absl::Status status = Append(*answer, &all); !status.ok()) return status;
        }
      }
      if (!options->output.empty()) {
        const int64_t channels = all.features(0).values_size();
        std::string file = NpyHeader("<f4", {all.features_size(), channels});
        for (const auto& feature : all.features()) {
          file.append(reinterpret_cast<const char*>(feature.values().data()),
                      sizeof(float) * static_cast<size_t>(channels));
        }
        if (absl::Status status = WriteWholeFile(options->output, file); !status.ok())
          return status;
      }
      if (context.json) {
        PrintJson(all);
        return absl::OkStatus();
      }
      std::vector<std::vector<std::string>> rows = {{"VOLUME", "CHANNELS", "NORM", "FIRST VALUES"}};
      for (const auto& feature : all.features()) {
        std::string values;
        for (int i = 0; i < std::min(4, feature.values_size()); ++i)
          absl::StrAppendFormat(&values, "%.4f ", feature.values(i));
        rows.push_back({feature.volume(), absl::StrCat(feature.values_size()),
                        absl::StrFormat("%.4f", Norm(feature.values())), values});
      }
      PrintTable(rows);
      if (!options->output.empty()) std::printf("wrote %s\n", options->output.c_str());
      return absl::OkStatus();
    };
  });
}

// One stream to the file and the picture.
class Both final : public DenseReceiver {
 public:
  Both(DenseReceiver* file, DenseReceiver* picture) : file_(file), picture_(picture) {}
  absl::Status Begin(const v1::ExtractDenseResponse::Header& header) override {
    absl::Status status = file_ == nullptr ? absl::OkStatus() : file_->Begin(header);
    return status.ok() && picture_ != nullptr ? picture_->Begin(header) : status;
  }
  absl::Status Slice(int64_t z, const char* data) override {
    absl::Status status = file_ == nullptr ? absl::OkStatus() : file_->Slice(z, data);
    return status.ok() && picture_ != nullptr ? picture_->Slice(z, data) : status;
  }

 private:
  DenseReceiver* file_;
  DenseReceiver* picture_;
};

void AddDense(CLI::App& group, Action& action) {
  struct Options : FeatureOptions {
    std::string volume, output, picture, roi, space = "model";
    int stride = 0;
    bool half = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "dense",
              "A vector at every voxel, into .npy [channels, slices, rows, columns] or 4D NIfTI",
              "gvsl features dense ct.nii.gz --modality CT -o dense.npy --pca dense.png");
  verb->add_option("VOLUME", options->volume, "stored name or file (uploaded first)")->required();
  verb->add_option("-o,--output", options->output, ".npy, .nii or .nii.gz file to write")
      ->required()
      ->check(EndsIn({".npy", ".nii", ".nii.gz"}));
  verb->add_option("--preview,--pca", options->picture,
                   "PNG to write: the three main directions as colours");
  verb->add_option("--space", options->space,
                   "model (the card's orientation and spacing) or volume (the volume's grid)")
      ->check(CLI::IsMember({"model", "volume"}));
  verb->add_option("--roi", options->roi,
                   "region i0:i1,j0:j1,k0:k1 in voxels of that space, ends exclusive")
      ->check(Parses(ParseRegion));
  verb->add_option("--stride", options->stride, "keep every n-th voxel along each axis");
  verb->add_flag("--half", options->half, "float16 instead of float32 (.npy alone)");
  AddFeatureOptions(verb, *options);
  AddLevels(verb, *options);
  verb->callback([options, &action] {
    if (options->half && !EndsIn({".npy"})(options->output).empty())
      throw CLI::ValidationError("--half: NIfTI has no half precision; write a .npy");
    action = [options](Context& context) -> absl::Status {
      v1::ExtractDenseRequest request;
      if (!options->roi.empty()) {
        auto region = ParseRegion(options->roi);
        if (!region.ok()) return region.status();
        request.mutable_roi()->mutable_begin()->Add(region->begin.begin(), region->begin.end());
        request.mutable_roi()->mutable_end()->Add(region->end.begin(), region->end.end());
      }
      auto file = DenseFileWriter::Make(options->output);
      if (!file.ok()) return file.status();
      auto name = NameOfVolume(context, options->volume, *options);
      if (!name.ok()) return name.status();
      request.set_volume(*name);
      request.set_model(options->model);
      request.set_space(options->space == "volume" ? v1::ExtractDenseRequest::VOLUME
                                                   : v1::ExtractDenseRequest::MODEL);
      request.set_stride(options->stride);
      request.set_type(options->half ? v1::FLOAT16 : v1::FLOAT32);
      FillWindow(*options, request.mutable_window());
      DensePicture picture;
      Both both(file->get(), options->picture.empty() ? nullptr : &picture);
      absl::StatusOr<v1::ExtractDenseResponse::Header> header = absl::UnknownError("");
      {
        ProgressBar bar("extracting");
        header = context.client.ExtractDense(
            request, both, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
      }
      if (!header.ok()) return header.status();
      if (absl::Status status = (*file)->Finish(); !status.ok()) return status;
      if (!options->picture.empty()) {
        auto png = picture.Png();
        if (!png.ok()) return png.status();
        if (absl::Status status = WriteWholeFile(options->picture, *png); !status.ok())
          return status;
      }
      if (context.json) {
        PrintJson(*header);
        return absl::OkStatus();
      }
      const auto& size = header->grid().size();
      std::printf("wrote %s: %d channels of %lld x %lld x %lld voxels, %s\n",
                  options->output.c_str(), header->channels(), static_cast<long long>(size[0]),
                  static_cast<long long>(size[1]), static_cast<long long>(size[2]),
                  BytesText(header->total_bytes()).c_str());
      if (!options->picture.empty()) std::printf("wrote %s\n", options->picture.c_str());
      return absl::OkStatus();
    };
  });
}

// The points' numbers, neighbours after each other: each call of several then needs few windows.
std::vector<size_t> ByPlace(const std::vector<Vec3>& points) {
  constexpr double kCellMm = 64;
  const auto cell = [&](size_t i) {
    const Vec3& p = points[i];
    return std::array<double, 3>{std::floor(p[2] / kCellMm), std::floor(p[1] / kCellMm),
                                 std::floor(p[0] / kCellMm)};
  };
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return cell(a) < cell(b); });
  return order;
}

void AddSample(CLI::App& group, Action& action) {
  struct Options : FeatureOptions {
    std::string volume, points, output;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "sample", "Dense features at points (CSV of x,y,z in mm, LPS)",
              "gvsl features sample volumes/3f2a --points landmarks.csv -o features.csv");
  verb->add_option("VOLUME", options->volume, "stored name or file (uploaded first)")->required();
  verb->add_option("--points", options->points, "CSV file of points")->required();
  verb->add_option("-o,--output", options->output, "CSV file to write (default: standard output)");
  AddFeatureOptions(verb, *options);
  AddLevels(verb, *options);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto points = ReadPoints(options->points);
      if (!points.ok()) return points.status();
      auto name = NameOfVolume(context, options->volume, *options);
      if (!name.ok()) return name.status();
      auto model =
          context.client.GetModel(options->model.empty() ? "models/default" : options->model);
      if (!model.ok()) return model.status();
      v1::SampleFeaturesResponse all;  // in `order`
      const std::vector<size_t> order = ByPlace(*points);
      const size_t batch = static_cast<size_t>(std::min<int64_t>(
          kMostPoints,
          VectorsInAnswer(DenseChannels(*model, options->levels), kSampleOverheadBytes)));
      {
        ProgressBar bar("extracting", "points");
        for (size_t first = 0; first < points->size(); first += batch) {
          bar.Update(static_cast<int64_t>(first), static_cast<int64_t>(points->size()));
          v1::SampleFeaturesRequest request;
          request.set_volume(*name);
          request.set_model(options->model);
          FillWindow(*options, request.mutable_window());
          for (size_t i = first; i < std::min(points->size(), first + batch); ++i) {
            const Vec3& place = (*points)[order[i]];
            auto* point = request.add_points();
            point->set_x_mm(place[0]);
            point->set_y_mm(place[1]);
            point->set_z_mm(place[2]);
          }
          auto answer = context.client.SampleFeatures(request);
          if (!answer.ok()) return answer.status();
          if (answer->samples_size() != request.points_size()) {
            return absl::InternalError(absl::StrCat("the server answered ", answer->samples_size(),
                                                    " samples of ", request.points_size()));
          }
          if (absl::Status status = Append(*answer, &all); !status.ok()) return status;
        }
      }
      google::protobuf::RepeatedPtrField<v1::SampleFeaturesResponse::Sample> samples;
      for (size_t i = 0; i < order.size(); ++i) samples.Add();
      for (int i = 0; i < samples.size(); ++i) {
        samples[static_cast<int>(order[static_cast<size_t>(i)])].Swap(all.mutable_samples(i));
      }
      all.mutable_samples()->Swap(&samples);
      std::string csv = "x_mm,y_mm,z_mm,out_of_view";
      int channels = 0;
      for (const auto& sample : all.samples()) channels = std::max(channels, sample.values_size());
      for (int c = 0; c < channels; ++c) absl::StrAppend(&csv, ",f", c);
      csv += '\n';
      for (int i = 0; i < all.samples_size(); ++i) {
        const Vec3& point = (*points)[static_cast<size_t>(i)];
        absl::StrAppendFormat(&csv, "%.6g,%.6g,%.6g,%d", point[0], point[1], point[2],
                              all.samples(i).out_of_view());
        for (int c = 0; c < channels; ++c) {
          if (c < all.samples(i).values_size())
            absl::StrAppendFormat(&csv, ",%.9g", all.samples(i).values(c));
          else
            csv += ',';
        }
        csv += '\n';
      }
      if (!options->output.empty()) {
        if (absl::Status status = WriteWholeFile(options->output, csv); !status.ok()) return status;
      }
      if (context.json) {
        PrintJson(all);
      } else if (options->output.empty()) {
        std::fputs(csv.c_str(), stdout);
      } else {
        std::printf("wrote %s\n", options->output.c_str());
      }
      return absl::OkStatus();
    };
  });
}

void AddPool(CLI::App& group, Action& action) {
  struct Options : FeatureOptions {
    std::string volume, labels, output;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "pool", "Mean and standard deviation of the dense features over each label",
              "gvsl features pool ct.nii.gz --labels organs.nii.gz -o organs.csv");
  verb->add_option("VOLUME", options->volume, "stored name or file (uploaded first)")->required();
  verb->add_option("--labels", options->labels, "label map: stored name or file (uploaded first)")
      ->required();
  verb->add_option("-o,--output", options->output,
                   "CSV file to write: label, voxels, means, deviations");
  AddFeatureOptions(verb, *options);
  AddLevels(verb, *options);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto name = NameOfVolume(context, options->volume, *options);
      if (!name.ok()) return name.status();
      ImportOptions as_labels;
      as_labels.kind = "labels";
      auto labels = NameOfVolume(context, options->labels, as_labels);
      if (!labels.ok()) return labels.status();
      v1::PoolFeaturesRequest request;
      request.set_volume(*name);
      request.set_labels(*labels);
      request.set_model(options->model);
      FillWindow(*options, request.mutable_window());
      auto answer = context.client.PoolFeatures(request);
      if (!answer.ok()) return answer.status();
      if (!options->output.empty()) {
        std::string csv = "label,voxels";
        const int channels = answer->labels_size() > 0 ? answer->labels(0).mean_size() : 0;
        for (int c = 0; c < channels; ++c) absl::StrAppend(&csv, ",mean", c);
        for (int c = 0; c < channels; ++c) absl::StrAppend(&csv, ",sd", c);
        csv += '\n';
        for (const auto& label : answer->labels()) {
          absl::StrAppend(&csv, label.label(), ",", label.voxel_count());
          for (float value : label.mean()) absl::StrAppendFormat(&csv, ",%.9g", value);
          for (float value : label.standard_deviation())
            absl::StrAppendFormat(&csv, ",%.9g", value);
          csv += '\n';
        }
        if (absl::Status status = WriteWholeFile(options->output, csv); !status.ok()) return status;
      }
      if (context.json) {
        PrintJson(*answer);
        return absl::OkStatus();
      }
      std::vector<std::vector<std::string>> rows = {
          {"LABEL", "VOXELS", "FIRST MEANS (STANDARD DEVIATIONS)"}};
      for (const auto& label : answer->labels()) {
        std::string values;
        for (int c = 0; c < std::min(3, label.mean_size()); ++c) {
          absl::StrAppendFormat(&values, "%.3f (%.3f)  ", label.mean(c),
                                label.standard_deviation(c));
        }
        rows.push_back({absl::StrCat(label.label()), absl::StrCat(label.voxel_count()), values});
      }
      PrintTable(rows);
      if (!options->output.empty()) std::printf("wrote %s\n", options->output.c_str());
      return absl::OkStatus();
    };
  });
}

}  // namespace

void AddFeaturesCommands(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("features", "What the network sees in volumes");
  group->require_subcommand(1);
  AddGlobal(*group, action);
  AddDense(*group, action);
  AddSample(*group, action);
  AddPool(*group, action);
}

}  // namespace gvsl::cli
