// Commands outside the groups of stored things: status, health, phantoms, completion.
#include <google/protobuf/struct.pb.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "imaging/image_file.h"
#include "imaging/phantom.h"

namespace gvsl::cli {
namespace {

struct PhantomsOptions {
  int count = 1;
  uint64_t patient = 0;
  std::string size = "128,128,96", spacing = "2,2,2.5", output;
};

absl::Status MakePhantoms(const PhantomsOptions& options, Context& context) {
  const auto size = ParseTriple(options.size), spacing = ParseTriple(options.spacing);  // checked
  std::error_code error;
  std::filesystem::create_directories(options.output, error);
  if (error)
    return absl::PermissionDeniedError(absl::StrCat("-o: ", options.output, ": ", error.message()));
  std::vector<std::string> written;
  for (int i = 0; i < options.count; ++i) {
    if (context.client.cancelled()) return absl::CancelledError("interrupted");
    PhantomOptions phantom;
    phantom.patient = options.patient + static_cast<uint64_t>(i);
    for (size_t axis = 0; axis < 3; ++axis) {
      phantom.size[axis] = static_cast<int64_t>((*size)[axis]);
      phantom.spacing_mm[axis] = (*spacing)[axis];
    }
    auto made = MakePhantom(phantom);
    if (!made.ok()) return made.status();
    const std::string stem = absl::StrCat(options.output, "/patient", phantom.patient);
    for (const auto& [volume, path] : {std::pair{&made->image, stem + "_image.nii.gz"},
                                       std::pair{&made->labels, stem + "_labels.nii.gz"}}) {
      if (absl::Status status = WriteVolume(*volume, path); !status.ok()) return status;
      written.push_back(path);
    }
  }
  if (context.json) {
    google::protobuf::Struct document;
    auto* files = (*document.mutable_fields())["files"].mutable_list_value();
    for (const std::string& path : written) files->add_values()->set_string_value(path);
    PrintJson(document);
  } else {
    for (const std::string& path : written) std::printf("wrote %s\n", path.c_str());
  }
  return absl::OkStatus();
}

std::vector<std::string> WordsOf(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* sub : app.get_subcommands(nullptr)) words.push_back(sub->get_name());
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
    for (const std::string& name : option->get_snames()) words.push_back("-" + name);
  }
  return words;
}

// A case of the bash function for every command path: the words that may follow it. Files complete
// where a word does not begin with a dash.
std::string BashCompletion(const CLI::App& app) {
  std::string cases, groups;
  for (const CLI::App* group : app.get_subcommands(nullptr)) {
    absl::StrAppend(&groups, " ", group->get_name());
    absl::StrAppend(&cases, "    ", group->get_name(), ") words=\"",
                    absl::StrJoin(WordsOf(*group), " "), "\" ;;\n");
    for (const CLI::App* verb : group->get_subcommands(nullptr)) {
      absl::StrAppend(&cases, "    '", group->get_name(), " ", verb->get_name(), "') words=\"",
                      absl::StrJoin(WordsOf(*verb), " "), "\" ;;\n");
    }
  }
  return absl::StrCat(
      "# bash completion of gvsl: source <(gvsl completion bash)\n_gvsl() {\n"
      "  local current=\"${COMP_WORDS[COMP_CWORD]}\" path=\"\" words=\"\" word i groups=\"",
      groups,
      " \"\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n    word=\"${COMP_WORDS[i]}\"\n"
      "    [[ \"$word\" == -* ]] && continue\n    [[ \"$path\" == *' '* ]] && break\n"
      // Before the group come options of the program and their values.
      "    [[ -z \"$path\" && \"$groups\" != *\" $word \"* ]] && continue\n"
      "    path=\"${path:+$path }$word\"\n  done\n  case \"$path\" in\n    '') words=\"",
      absl::StrJoin(WordsOf(app), " "), "\" ;;\n", cases,
      "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  [[ \"$current\" == -* ]] || COMPREPLY+=($(compgen -f -- \"$current\"))\n}\n"
      "complete -o filenames -F _gvsl gvsl\n");
}

std::string FishCompletion(const CLI::App& app) {
  std::string text = "# fish completion of gvsl: gvsl completion fish | source\n";
  for (const CLI::App* group : app.get_subcommands(nullptr)) {
    absl::StrAppend(&text, "complete -c gvsl -n __fish_use_subcommand -a ", group->get_name(),
                    "\n");
    for (const CLI::App* verb : group->get_subcommands(nullptr)) {
      absl::StrAppend(&text, "complete -c gvsl -n '__fish_seen_subcommand_from ", group->get_name(),
                      "' -a ", verb->get_name(), "\n");
    }
  }
  return text;
}

std::string CompletionOf(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return BashCompletion(app);
  if (shell == "fish") return FishCompletion(app);
  return "autoload -U +X bashcompinit && bashcompinit\n" + BashCompletion(app);
}

}  // namespace

void AddServerCommands(CLI::App& app, Action& action) {
  CLI::App* status = AddVerb(app, "status", "Show how the server is", "gvsl status");
  status->callback([&action] {
    action = [](Context& context) -> absl::Status {
      auto answer = context.client.GetServerStatus();
      if (!answer.ok()) return answer.status();
      if (context.json) {
        PrintJson(*answer);
        return absl::OkStatus();
      }
      PrintTable(
          {{"version", absl::StrCat(answer->version(), ", LibTorch ", answer->libtorch_version())},
           {"device", absl::StrCat(answer->device(), ", ", answer->threads(), " threads")},
           {"uptime", absl::StrCat(answer->uptime().seconds(), " s")},
           {"volumes", absl::StrCat(answer->volume_count())},
           {"models", absl::StrCat(answer->model_count())},
           {"default model", answer->default_model().empty() ? "none" : answer->default_model()},
           {"stored", BytesText(answer->stored_bytes())},
           {"free", BytesText(answer->free_bytes())},
           {"queue", absl::StrCat(answer->queue_length(), " of ", answer->queue_capacity())},
           {"draining", answer->draining() ? "yes" : "no"}});
      return absl::OkStatus();
    };
  });
  CLI::App* health =
      AddVerb(app, "health", "Exit with 0 if the server serves (grpc.health.v1)", "gvsl health");
  health->callback([&action] {
    action = [](Context& context) -> absl::Status {
      absl::Status answer = context.client.CheckHealth();
      if (answer.ok()) std::puts(context.json ? "{\"status\": \"SERVING\"}" : "SERVING");
      return answer;
    };
  });
}

void AddPhantomsCommands(CLI::App& app, Action& action) {
  CLI::App* group =
      app.add_subcommand("phantoms", "Cardiac-CT-like test patients, made on this machine");
  group->require_subcommand(1);
  auto options = std::make_shared<PhantomsOptions>();
  CLI::App* verb =
      AddVerb(*group, "make", "Write images and exact labels of phantom patients as NIfTI",
              "gvsl phantoms make --count 3 -o phantoms");
  verb->add_option("--count", options->count, "patients (default 1)")->check(CLI::Range(1, 100000));
  verb->add_option("--patient", options->patient, "number of the first patient (default 0)")
      ->check(NotNegative());
  verb->add_option("--size", options->size, "voxels: columns,rows,slices (default 128,128,96)")
      ->check(Parses(ParseTriple));
  verb->add_option("--spacing", options->spacing, "voxel size in mm (default 2,2,2.5)")
      ->check(Parses(ParseTriple));
  verb->add_option("-o,--output", options->output, "folder to write to")->required();
  verb->callback([options, &action] {
    action = [options](Context& context) { return MakePhantoms(*options, context); };
  });
}

void AddCompletionCommand(CLI::App& app, Action& action) {
  auto shell = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(app, "completion", "Print a script that completes gvsl's commands",
                           "source <(gvsl completion bash)");
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->callback([shell, &app, &action] {
    action = [shell, &app](Context&) {
      std::fputs(CompletionOf(app, *shell).c_str(), stdout);
      return absl::OkStatus();
    };
  });
}

}  // namespace gvsl::cli
