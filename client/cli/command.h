// What the commands of `gvsl` share. A group of verbs is one file: Add...Commands puts them into
// the parser, and the verb that the user chose leaves its work in `action`.
#ifndef GVSL_CLIENT_CLI_COMMAND_H_
#define GVSL_CLIENT_CLI_COMMAND_H_

#include <google/protobuf/message.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/text_table.h"

namespace gvsl::cli {

struct Context {
  Client& client;
  bool json;  // one JSON document on standard output instead of text
  // Set by commands whose output has no end in sight: with `json`, one document a line.
  bool json_lines = false;
};

using Action = std::function<absl::Status(Context&)>;

void AddVolumesCommands(CLI::App& app, Action& action);
void AddModelsCommands(CLI::App& app, Action& action);
void AddFeaturesCommands(CLI::App& app, Action& action);
void AddRegistrationCommands(CLI::App& app, Action& action);  // register, match, transfer, ...
void AddSimilarityCommands(CLI::App& app, Action& action);    // search, embeddings
void AddJobsCommands(CLI::App& app, Action& action);
void AddServerCommands(CLI::App& app, Action& action);    // status, health
void AddPhantomsCommands(CLI::App& app, Action& action);  // made on this machine, no server
void AddCompletionCommand(CLI::App& app, Action& action);

// Accepts numbers from 0 on. An unsigned option alone would take -1 for a large number.
CLI::Validator NotNegative();

// Adds a verb whose help ends in an example.
CLI::App* AddVerb(CLI::App& group, const std::string& name, const std::string& what,
                  const std::string& example);

// How a path becomes a volume of the server; the words are those of `volumes import`.
struct ImportOptions {
  std::string kind = "image";  // or labels
  std::string modality;
  std::string name;  // display name; the file's name without one
  std::vector<std::string> tags;
};
void AddImportOptions(CLI::App* verb, ImportOptions& options);
absl::StatusOr<v1::Volume> ImportPath(Context& context, const std::string& path,
                                      const ImportOptions& options);
// The stored name of `volumes/...`, or of a file, which is uploaded first.
absl::StatusOr<std::string> NameOfVolume(Context& context, const std::string& name_or_path,
                                         const ImportOptions& options);

// Three comma-separated numbers.
absl::StatusOr<std::vector<double>> ParseTriple(const std::string& text);
// A check of an option's text that makes a wrong one bad usage: `parse` returns a StatusOr.
template <typename Parse>
std::function<std::string(const std::string&)> Parses(Parse parse) {
  return [parse](const std::string& text) {
    return std::string(parse(text).status().message());  // empty when it is good
  };
}
// A check that a file's name ends in one of these.
std::function<std::string(const std::string&)> EndsIn(std::vector<std::string> endings);

// Prints a message in its JSON form, fields that are zero included.
void PrintJson(const google::protobuf::Message& message);
// The same on one line.
void PrintJsonLine(const google::protobuf::Message& message);
// Prints a failure as google.rpc.Status in its JSON form, the reason in an ErrorInfo.
void PrintJsonError(const absl::Status& status, bool line);
// "12.3 MiB"
std::string BytesText(int64_t bytes);

}  // namespace gvsl::cli

#endif  // GVSL_CLIENT_CLI_COMMAND_H_
