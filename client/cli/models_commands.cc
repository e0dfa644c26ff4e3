#include <google/protobuf/util/time_util.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/progress.h"

namespace gvsl::cli {
namespace {

// Preprocessing that a file without a card, or a new model, gets.
struct CardOptions {
  std::string orientation, spacing, geometry, provenance;
  double ct_shift = 0, ct_low = 0, ct_high = 0;
  int crop = 0;
};

void AddCardOptions(CLI::App* verb, CardOptions& options) {
  verb->add_option("--orientation", options.orientation,
                   "axis codes of the network's input (default LPS)");
  verb->add_option("--spacing", options.spacing,
                   "voxel size of the network's input in mm (default 1,1,1)")
      ->check(Parses(ParseTriple));
  verb->add_option("--geometry", options.geometry, "official or corrected spatial transformers")
      ->check(CLI::IsMember({"official", "corrected"}));
  verb->add_option("--ct-shift", options.ct_shift,
                   "added to CT voxels before the window (default 0)");
  verb->add_option("--ct-low", options.ct_low, "CT value that becomes 0 (default 0)");
  verb->add_option("--ct-high", options.ct_high, "CT value that becomes 1 (default 2048)");
  verb->add_option("--crop", options.crop,
                   "side of the default window in voxels, a multiple of 16 (default 128)");
  verb->add_option("--provenance", options.provenance, "where the weights come from");
}

absl::Status FillCard(const CardOptions& options, v1::ModelCard* card) {
  card->set_orientation(options.orientation);
  card->set_geometry(options.geometry);
  card->set_crop(options.crop);
  card->set_provenance(options.provenance);
  if (!options.spacing.empty()) {
    auto spacing = ParseTriple(options.spacing);
    if (!spacing.ok()) return spacing.status();
    card->mutable_spacing_mm()->Add(spacing->begin(), spacing->end());
  }
  if (options.ct_shift != 0 || options.ct_low != 0 || options.ct_high != 0) {
    auto* ct = card->mutable_ct();
    ct->set_method(v1::ModelCard::Intensity::WINDOW);
    ct->set_shift(options.ct_shift);
    ct->set_low(options.ct_low);
    ct->set_high(options.ct_high != 0 ? options.ct_high : 2048);
  }
  return absl::OkStatus();
}

std::string SpacingText(const v1::ModelCard& card) {
  return card.spacing_mm_size() == 3 ? absl::StrFormat("%.4g x %.4g x %.4g", card.spacing_mm(0),
                                                       card.spacing_mm(1), card.spacing_mm(2))
                                     : "";
}

void PrintModels(Context& context, const std::vector<v1::Model>& models) {
  if (context.json) {
    v1::ListModelsResponse list;
    for (const v1::Model& model : models) *list.add_models() = model;
    return PrintJson(list);
  }
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "DISPLAY NAME", "SIZE", "VALUES", "GLOBAL", "DENSE", "SPACING MM", "DEFAULT"}};
  for (const v1::Model& model : models) {
    rows.push_back({model.name(), model.display_name(), model.card().size(),
                    absl::StrCat(model.parameter_count()), absl::StrCat(model.global_channels()),
                    absl::StrCat(model.dense_channels()), SpacingText(model.card()),
                    model.is_default() ? "yes" : ""});
  }
  PrintTable(rows);
}

void PrintModel(Context& context, const v1::Model& model) {
  if (context.json) return PrintJson(model);
  const v1::ModelCard& card = model.card();
  PrintTable(
      {{"name", model.name()},
       {"display name", model.display_name()},
       {"size", absl::StrCat(card.size(), ", ", model.parameter_count(), " values")},
       {"geometry", card.geometry()},
       {"input", absl::StrCat(card.orientation(), ", ", SpacingText(card), " mm")},
       {"registration heads", card.has_heads() ? "yes" : "random (the file held the U-Net alone)"},
       {"features",
        absl::StrCat(model.global_channels(), " global, ", model.dense_channels(), " dense")},
       {"default", model.is_default() ? "yes" : "no"},
       {"provenance", card.provenance()},
       {"created", google::protobuf::util::TimeUtil::ToString(model.create_time())},
       {"fingerprint", model.identity().fingerprint()}});
}

// A verb on one model by its name.
void AddNamed(CLI::App& group, Action& action, const std::string& verb_name,
              const std::string& what, const std::string& example,
              std::function<absl::Status(Context&, const std::string&)> work) {
  auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(group, verb_name, what, example);
  verb->add_option("MODEL", *name, "stored name, or models/default")->required();
  verb->callback([name, work, &action] {
    action = [name, work](Context& context) { return work(context, *name); };
  });
}

void AddImport(CLI::App& group, Action& action) {
  struct Options : CardOptions {
    std::string path, name;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "import", "Import the official code's .pth, or a .safetensors of GVSL",
              "gvsl models import GVSL.pth --name official --ct-shift 1024");
  verb->add_option("FILE", options->path, "model file")->required();
  verb->add_option("--name", options->name, "display name (default: the file's name)");
  AddCardOptions(verb, *options);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::ImportModelRequest::Header header;
      header.set_display_name(options->name.empty()
                                  ? std::filesystem::path(options->path).filename().string()
                                  : options->name);
      if (absl::Status status = FillCard(*options, header.mutable_card()); !status.ok())
        return status;
      absl::StatusOr<v1::Model> model = absl::UnknownError("");
      {
        ProgressBar bar("uploading " + header.display_name().substr(0, 40));
        model = context.client.ImportModel(
            options->path, header,
            [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
      }
      if (model.ok()) PrintModel(context, *model);
      return model.status();
    };
  });
}

void AddCreate(CLI::App& group, Action& action) {
  struct Options : CardOptions {
    std::string name, size = "base";
    uint64_t seed = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "create", "Make an untrained network with seeded random weights",
                           "gvsl models create --size tiny --seed 1");
  verb->add_option("--size", options->size, "base, small or tiny (default base)")
      ->check(CLI::IsMember({"base", "small", "tiny"}));
  verb->add_option("--seed", options->seed, "same seed, same weights (default 0)")
      ->check(NotNegative());
  verb->add_option("--name", options->name, "display name");
  AddCardOptions(verb, *options);
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::CreateModelRequest request;
      request.set_display_name(options->name.empty()
                                   ? absl::StrCat("untrained-", options->size, "-", options->seed)
                                   : options->name);
      request.set_size(options->size);
      request.set_seed(options->seed);
      if (absl::Status status = FillCard(*options, request.mutable_card()); !status.ok())
        return status;
      auto model = context.client.CreateModel(request);
      if (model.ok()) PrintModel(context, *model);
      return model.status();
    };
  });
}

void AddExport(CLI::App& group, Action& action) {
  struct Options {
    std::string name, output, format;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "export", "Write a model to a .safetensors or .pth file",
                           "gvsl models export models/default -o weights.pth");
  verb->add_option("MODEL", options->name, "stored name, or models/default")->required();
  verb->add_option("-o,--output", options->output,
                   "file to write; .pth gives the official code's format")
      ->required()
      ->check(EndsIn({".safetensors", ".pth"}));
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::ExportModelRequest request;
      request.set_name(options->name);
      request.set_format(std::filesystem::path(options->output).extension() == ".pth"
                             ? v1::ExportModelRequest::PTH
                             : v1::ExportModelRequest::SAFETENSORS);
      absl::StatusOr<v1::Model> model = absl::UnknownError("");
      {
        ProgressBar bar("downloading");
        model = context.client.ExportModel(
            request, options->output,
            [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
      }
      if (!model.ok()) return model.status();
      if (context.json) {
        PrintJson(*model);
      } else {
        std::printf("wrote %s\n", options->output.c_str());
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace

void AddModelsCommands(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("models", "Networks stored on the server");
  group->require_subcommand(1);
  AddImport(*group, action);
  AddCreate(*group, action);
  CLI::App* list = AddVerb(*group, "list", "List models, newest first", "gvsl models list");
  list->callback([&action] {
    action = [](Context& context) -> absl::Status {
      auto models = context.client.ListModels();
      if (models.ok()) PrintModels(context, *models);
      return models.status();
    };
  });
  AddNamed(*group, action, "show", "Show one model with its card",
           "gvsl models show models/default",
           [](Context& context, const std::string& name) -> absl::Status {
             auto model = context.client.GetModel(name);
             if (model.ok()) PrintModel(context, *model);
             return model.status();
           });
  AddExport(*group, action);
  AddNamed(*group, action, "set-default", "Make a model the one that requests without a model mean",
           "gvsl models set-default models/3f2a",
           [](Context& context, const std::string& name) -> absl::Status {
             auto model = context.client.SetDefaultModel(name);
             if (model.ok()) PrintModel(context, *model);
             return model.status();
           });
  AddNamed(*group, action, "delete", "Delete a model", "gvsl models delete models/3f2a",
           [](Context& context, const std::string& name) -> absl::Status {
             absl::Status status = context.client.DeleteModel(name);
             if (status.ok())
               std::printf("%s",
                           context.json ? "{}\n" : absl::StrCat("deleted ", name, "\n").c_str());
             return status;
           });
}

}  // namespace gvsl::cli
