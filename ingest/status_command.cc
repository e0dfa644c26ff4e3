#include "ingest/status_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "client/text_table.h"
#include "ingest/spool.h"

namespace gvsl {
namespace {

using nlohmann::json;

absl::Status ShowStatus(const std::string& directory, bool as_json) {
  const absl::StatusOr<std::vector<SpoolSeries>> all = Spool::ForReading(directory).List();
  if (!all.ok()) return all.status();
  const int64_t now_s = std::time(nullptr);
  if (as_json) {
    json list = json::array();
    for (const SpoolSeries& series : *all) {
      list.push_back({{"key", series.key},
                      {"state", SpoolStateName(series)},
                      {"instances", series.instances},
                      {"ageSeconds", now_s - series.last_arrival_s},
                      {"volumes", series.state.volumes},
                      {"verdicts", series.state.verdicts},
                      {"committed", series.is_committed},
                      {"error", series.state.error}});
    }
    std::puts(json{{"series", list}}.dump(2, ' ', false, json::error_handler_t::replace).c_str());
    return absl::OkStatus();
  }
  std::vector<std::vector<std::string>> rows = {
      {"SERIES", "STATE", "INSTANCES", "QUIET FOR", "VOLUMES", "VERDICTS", "LAST ERROR"}};
  for (const SpoolSeries& series : *all) {
    rows.push_back({series.key, SpoolStateName(series), absl::StrCat(series.instances),
                    absl::StrCat(now_s - series.last_arrival_s, " s"),
                    absl::StrCat(series.state.volumes.size()), series.state.verdicts,
                    series.state.error});
  }
  PrintTable(rows);
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App* app, Action* action) {
  struct Arguments {
    std::string spool;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app->add_subcommand("status", "Show the series in a spool");
  verb->add_option("--spool", arguments->spool, "the folder given to serve")->required();
  verb->add_flag("--json", arguments->json, "print one JSON document");
  verb->footer("Example:\n  gvsl-ingest status --spool /var/spool/gvsl");
  verb->callback([arguments, action] {
    *action = [arguments] { return ShowStatus(arguments->spool, arguments->json); };
  });
}

}  // namespace gvsl
