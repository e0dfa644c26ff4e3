#include <google/protobuf/util/time_util.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/progress.h"
#include "imaging/image_file.h"
#include "imaging/output_file.h"

namespace gvsl::cli {
namespace {

std::string SizeText(const v1::Grid& grid) {
  return grid.size_size() == 3
             ? absl::StrCat(grid.size(0), " x ", grid.size(1), " x ", grid.size(2))
             : "";
}

std::string SpacingText(const v1::Grid& grid) {
  return grid.spacing_mm_size() == 3 ? absl::StrFormat("%.4g x %.4g x %.4g", grid.spacing_mm(0),
                                                       grid.spacing_mm(1), grid.spacing_mm(2))
                                     : "";
}

void PrintVolumes(Context& context, const std::vector<v1::Volume>& volumes) {
  if (context.json) {
    v1::ListVolumesResponse list;
    for (const v1::Volume& volume : volumes) *list.add_volumes() = volume;
    return PrintJson(list);
  }
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "DISPLAY NAME", "MODALITY", "KIND", "VOXELS", "SPACING MM"}};
  for (const v1::Volume& volume : volumes) {
    rows.push_back({volume.name(), volume.display_name(), volume.modality(),
                    v1::Volume::Kind_Name(volume.kind()), SizeText(volume.grid()),
                    SpacingText(volume.grid())});
  }
  PrintTable(rows);
}

void PrintVolume(Context& context, const v1::Volume& volume) {
  if (context.json) return PrintJson(volume);
  std::string tags;
  for (const std::string& tag : volume.tags())
    absl::StrAppend(&tags, tags.empty() ? "" : ", ", tag);
  const auto& origin = volume.grid().origin_mm();
  PrintTable(
      {{"name", volume.name()},
       {"display name", volume.display_name()},
       {"kind", v1::Volume::Kind_Name(volume.kind())},
       {"modality", volume.modality()},
       {"tags", tags},
       {"voxels", absl::StrCat(SizeText(volume.grid()), " ",
                               v1::Volume::VoxelType_Name(volume.voxel_type()))},
       {"spacing mm", SpacingText(volume.grid())},
       {"origin mm (LPS)", absl::StrFormat("%.4g, %.4g, %.4g", origin[0], origin[1], origin[2])},
       {"values", absl::StrFormat("%g to %g", volume.min_value(), volume.max_value())},
       {"size", BytesText(volume.voxel_bytes())},
       {"created", google::protobuf::util::TimeUtil::ToString(volume.create_time())},
       {"content SHA-256", volume.content_sha256()}});
}

void AddImport(CLI::App& group, Action& action) {
  struct Options : ImportOptions {
    std::vector<std::string> paths;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "import", "Upload NIfTI (.nii, .nii.gz) and MetaImage (.mha, .mhd) files",
              "gvsl volumes import --modality CT --tag trial-7 ct1.nii.gz ct2.nii.gz");
  verb->add_option("PATH", options->paths, "files")->required();
  AddImportOptions(verb, *options);
  verb->add_option("--name", options->name,
                   "display name (default: the file's name); never a patient's");
  verb->add_option("--tag", options->tags, "word to filter by; may be given several times")
      ->take_all()
      ->allow_extra_args(false);  // the words after a tag are paths
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      std::vector<v1::Volume> volumes;
      absl::Status first;
      for (const std::string& path : options->paths) {
        auto volume = ImportPath(context, path, *options);
        if (!volume.ok() && options->paths.size() == 1) return volume.status();
        if (!volume.ok()) {
          // The others go on; nothing of them is lost.
          std::fprintf(stderr, "gvsl: %s\n", std::string(volume.status().message()).c_str());
          if (first.ok()) first = volume.status();
          if (volume.status().code() == absl::StatusCode::kCancelled ||
              volume.status().code() == absl::StatusCode::kUnavailable) {
            break;
          }
          continue;
        }
        volumes.push_back(*std::move(volume));
      }
      PrintVolumes(context, volumes);
      if (first.ok()) return first;
      return absl::Status(first.code(),
                          absl::StrCat(volumes.size(), " of ", options->paths.size(),
                                       " files imported; the others are named above"));
    };
  });
}

void AddList(CLI::App& group, Action& action) {
  struct Options {
    std::string filter, order_by;
    int64_t limit = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "list", "List stored volumes, newest first",
                           "gvsl volumes list --filter 'modality = \"CT\" AND tags:\"trial-7\"'");
  verb->add_option("--filter", options->filter,
                   "comparisons of display_name, modality, kind, content_sha256, create_time and "
                   "tags, joined by AND");
  verb->add_option("--order-by", options->order_by,
                   "create_time or display_name, with desc behind it to turn it round");
  verb->add_option("--limit", options->limit, "at most this many (default 0: all)")
      ->check(NotNegative());
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::ListVolumesRequest request;
      request.set_filter(options->filter);
      request.set_order_by(options->order_by);
      auto volumes = context.client.ListVolumes(request, options->limit);
      if (volumes.ok()) PrintVolumes(context, *volumes);
      return volumes.status();
    };
  });
}

void AddShow(CLI::App& group, Action& action) {
  auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(group, "show", "Show one volume", "gvsl volumes show volumes/3f2a");
  verb->add_option("VOLUME", *name, "stored name")->required();
  verb->callback([name, &action] {
    action = [name](Context& context) -> absl::Status {
      auto volume = context.client.GetVolume(*name);
      if (volume.ok()) PrintVolume(context, *volume);
      return volume.status();
    };
  });
}

void AddDownload(CLI::App& group, Action& action) {
  struct Options {
    std::string name, output;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "download", "Write a volume to a NIfTI or MetaImage file",
                           "gvsl volumes download volumes/3f2a -o ct.nii.gz");
  verb->add_option("VOLUME", options->name, "stored name")->required();
  verb->add_option("-o,--output", options->output, "file to write; an older one is replaced")
      ->required()
      ->check(EndsIn({".nii", ".nii.gz", ".mha", ".mhd"}));
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      // A folder that is not there is told before the voxels come.
      if (const OutputFile probe(options->output); !probe.status().ok()) return probe.status();
      auto record = context.client.GetVolume(options->name);
      if (!record.ok()) return record.status();
      absl::StatusOr<Volume> volume = absl::UnknownError("");
      {
        ProgressBar bar("downloading");
        volume = context.client.Download(
            options->name, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
      }
      if (!volume.ok()) return volume.status();
      if (absl::Status status = WriteVolume(*volume, options->output); !status.ok()) return status;
      if (context.json) {
        PrintJson(*record);
      } else {
        std::printf("wrote %s\n", options->output.c_str());
      }
      return absl::OkStatus();
    };
  });
}

void AddPreview(CLI::App& group, Action& action) {
  struct Options : ImportOptions {
    std::string name, output;
    std::vector<double> window;
    int edge = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "preview", "Write a PNG of the three central planes",
                           "gvsl volumes preview volumes/3f2a -o ct.png --window -200 300");
  verb->add_option("VOLUME", options->name, "stored name, or a file (uploaded first)")->required();
  verb->add_option("-o,--output", options->output, "PNG file to write")
      ->required()
      ->check(EndsIn({".png"}));
  verb->add_option("--window", options->window,
                   "voxel values shown black and white (default: by percentiles)")
      ->expected(2);
  verb->add_option("--edge", options->edge,
                   "longest side of a plane in pixels, 16 to 512 (default 256)");
  AddImportOptions(verb, *options);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto name = NameOfVolume(context, options->name, *options);
      if (!name.ok()) return name.status();
      v1::PreviewVolumeRequest request;
      request.set_name(*name);
      request.set_max_edge(options->edge);
      if (options->window.size() == 2) {
        request.set_window_min(options->window[0]);
        request.set_window_max(options->window[1]);
      }
      auto png = context.client.PreviewVolume(request);
      if (!png.ok()) return png.status();
      if (absl::Status status = WriteWholeFile(options->output, *png); !status.ok()) return status;
      if (context.json) {
        std::puts("{}");
      } else {
        std::printf("wrote %s\n", options->output.c_str());
      }
      return absl::OkStatus();
    };
  });
}

void AddUpdate(CLI::App& group, Action& action) {
  struct Options {
    std::string volume, name, modality;
    std::vector<std::string> tags;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "update", "Change display name, modality or tags",
                           "gvsl volumes update volumes/3f2a --modality CT --tag abdomen");
  verb->add_option("VOLUME", options->volume, "stored name")->required();
  CLI::Option* name = verb->add_option("--name", options->name, "new display name");
  CLI::Option* modality = verb->add_option("--modality", options->modality, "new modality");
  CLI::Option* tags =
      verb->add_option("--tag", options->tags, "all tags from now on; may be given several times")
          ->take_all()
          ->allow_extra_args(false);  // the words after a tag are paths
  verb->callback([options, name, modality, tags, &action] {
    const bool has_name = name->count() > 0, has_modality = modality->count() > 0,
               has_tags = tags->count() > 0;
    if (!has_name && !has_modality && !has_tags)
      throw CLI::ValidationError("nothing to change: give --name, --modality or --tag");
    action = [=](Context& context) -> absl::Status {
      v1::UpdateVolumeRequest request;
      request.mutable_volume()->set_name(options->volume);
      request.mutable_volume()->set_display_name(options->name);
      request.mutable_volume()->set_modality(options->modality);
      request.mutable_volume()->mutable_tags()->Assign(options->tags.begin(), options->tags.end());
      if (has_name) request.mutable_update_mask()->add_paths("display_name");
      if (has_modality) request.mutable_update_mask()->add_paths("modality");
      if (has_tags) request.mutable_update_mask()->add_paths("tags");
      auto volume = context.client.UpdateVolume(request);
      if (volume.ok()) PrintVolume(context, *volume);
      return volume.status();
    };
  });
}

void AddDelete(CLI::App& group, Action& action) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* verb = AddVerb(group, "delete", "Delete volumes", "gvsl volumes delete volumes/3f2a");
  verb->add_option("VOLUME", *names, "stored names")->required();
  verb->callback([names, &action] {
    action = [names](Context& context) -> absl::Status {
      for (const std::string& name : *names) {
        if (absl::Status status = context.client.DeleteVolume(name); !status.ok()) return status;
        if (!context.json) std::printf("deleted %s\n", name.c_str());
      }
      if (context.json) std::puts("{}");
      return absl::OkStatus();
    };
  });
}

}  // namespace

void AddVolumesCommands(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("volumes", "Images and label maps stored on the server");
  group->require_subcommand(1);
  AddImport(*group, action);
  AddList(*group, action);
  AddShow(*group, action);
  AddDownload(*group, action);
  AddPreview(*group, action);
  AddUpdate(*group, action);
  AddDelete(*group, action);
}

}  // namespace gvsl::cli
