#include "ingest/serve_command.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/client.h"
#include "client/text_table.h"
#include "ingest/dicom_logging.h"
#include "ingest/spool_worker.h"
#include "ingest/storage_scp.h"

namespace gvsl {
namespace {

using nlohmann::json;

constexpr int kDrainSeconds = 30;
constexpr std::chrono::milliseconds kLookEvery{500};

struct ServeArguments {
  StorageScpOptions scp;
  SpoolWorkerOptions worker;
  ClientOptions client;
  std::string spool, key_file;
};

// One JSON object a line on standard error.
void Log(json line) {
  static std::mutex mutex;
  char time[32];
  const std::time_t now = std::time(nullptr);
  std::tm utc;
  std::strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  line["time"] = time;
  const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  const std::lock_guard<std::mutex> lock(mutex);
  std::fputs(text.c_str(), stderr);
}

void LogScp(const ScpEvent& event) {
  json line = {{"event", event.what}, {"peer", event.peer}};
  if (event.status != 0) line["status"] = event.status;
  Log(std::move(line));
}

void LogSpool(const SpoolEvent& event) {
  json line = {{"event", event.what},
               {"series", event.series},
               {"instances", event.instances},
               {"volumes", event.volumes}};
  if (!event.error.empty()) line["error"] = event.error;
  Log(std::move(line));
}

int64_t Now() { return static_cast<int64_t>(std::time(nullptr)); }

absl::Status Serve(const ServeArguments& arguments) {
  SilenceDicomLog();
  // Before any thread is made, so that the signals reach the one that waits for them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  // An object beyond the limit fails as on a full disk.
  signal(SIGXFSZ, SIG_IGN);
  const auto limit = static_cast<rlim_t>(arguments.scp.max_object_bytes);
  const rlimit file_size{limit, limit};
  setrlimit(RLIMIT_FSIZE, &file_size);

  const absl::StatusOr<Pseudonyms> pseudonyms = Pseudonyms::FromKeyFile(arguments.key_file);
  if (!pseudonyms.ok()) return pseudonyms.status();
  absl::StatusOr<std::unique_ptr<Spool>> spool = Spool::Open(arguments.spool);
  if (!spool.ok()) return spool.status();
  Client client(arguments.client);
  StorageScp scp(arguments.scp, **spool, LogScp);
  SpoolWorker worker(arguments.worker, **spool, *pseudonyms, client, LogSpool);

  std::atomic<bool> stopping{false};
  std::thread uploads([&] {
    while (!stopping) {
      if (absl::Status status = worker.RunOnce(Now()); !status.ok()) {
        Log({{"event", "spool_unreadable"}, {"error", std::string(status.message())}});
      }
      std::this_thread::sleep_for(kLookEvery);
    }
  });
  std::thread([&scp, &client, &stopping, &uploads, signals] {
    int received = 0;
    sigwait(&signals, &received);
    Log({{"event", "draining"}});
    scp.Drain(kDrainSeconds);
    stopping = true;
    client.CancelAll();
    uploads.join();
    Log({{"event", "stopped"}});
    // DCMTK's pool waits in accept; all that matters is on the disk.
    _exit(0);
  }).detach();
  Log({{"event", "serving"}, {"aeTitle", arguments.scp.ae_title}, {"port", arguments.scp.port}});
  const absl::Status ended = scp.Run();
  // Only failures come here: nothing is under way yet that would have to be waited for.
  std::fprintf(stderr, "gvsl-ingest: %s\n", std::string(ended.message()).c_str());
  _exit(1);
}

absl::Status ShowStatus(const std::string& directory, bool as_json) {
  const absl::StatusOr<std::vector<SpoolSeries>> all = Spool::ForReading(directory).List();
  if (!all.ok()) return all.status();
  const auto state = [](const SpoolSeries& series) {
    return series.is_done()             ? "uploaded"
           : series.is_set_aside()      ? "set aside"
           : series.state.error.empty() ? "waiting"
                                        : "retrying";
  };
  if (as_json) {
    json list = json::array();
    for (const SpoolSeries& series : *all) {
      list.push_back({{"key", series.key},
                      {"state", state(series)},
                      {"instances", series.instances},
                      {"ageSeconds", Now() - series.last_arrival_s},
                      {"volumes", series.state.volumes},
                      {"verdicts", series.state.verdicts},
                      {"error", series.state.error}});
    }
    std::puts(json{{"series", list}}.dump(2, ' ', false, json::error_handler_t::replace).c_str());
    return absl::OkStatus();
  }
  std::vector<std::vector<std::string>> rows = {
      {"SERIES", "STATE", "INSTANCES", "QUIET FOR", "VOLUMES", "VERDICTS", "LAST ERROR"}};
  for (const SpoolSeries& series : *all) {
    rows.push_back({series.key, state(series), absl::StrCat(series.instances),
                    absl::StrCat(Now() - series.last_arrival_s, " s"),
                    absl::StrCat(series.state.volumes.size()), series.state.verdicts,
                    series.state.error});
  }
  PrintTable(rows);
  return absl::OkStatus();
}

}  // namespace

void AddServeCommand(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<ServeArguments>();
  arguments->key_file = DefaultKeyFile();
  CLI::App* verb =
      app->add_subcommand("serve", "Receive DICOM by C-STORE, and upload each complete series");
  StorageScpOptions& scp = arguments->scp;
  SpoolWorkerOptions& worker = arguments->worker;
  verb->add_option("--spool", arguments->spool, "folder for what is received, made if absent")
      ->required();
  verb->add_option("--ae_title", scp.ae_title, "called AE title; no other is answered")
      ->check(CLI::Validator(
          [](std::string& title) {
            return title.empty() || title.size() > 16 ? "an AE title has 1 to 16 characters" : "";
          },
          "TITLE"))
      ->capture_default_str();
  verb->add_option("--port", scp.port)->check(CLI::Range(1, 65535))->capture_default_str();
  verb->add_option("--allow_host", scp.allowed_hosts,
                   "IP address that may send besides loopback; may be given several times");
  verb->add_option("--allow_ae_title", scp.allowed_ae_titles,
                   "calling AE title that is accepted (default: all of an allowed host)");
  verb->add_option("--max_associations", scp.max_associations, "at a time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  verb->add_option("--max_object_bytes", scp.max_object_bytes)
      ->check(CLI::Range(int64_t{1} << 20, int64_t{1} << 40))
      ->capture_default_str();
  verb->add_option("--min_free_bytes", scp.min_free_bytes,
                   "with less on the spool's disk, senders are told to come back")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50))
      ->capture_default_str();
  verb->add_option("--quiet_seconds", worker.quiet_s,
                   "a series is complete when nothing came for so long")
      ->check(CLI::Range(int64_t{1}, int64_t{86400}))
      ->capture_default_str();
  verb->add_option("--keep_seconds", worker.keep_s,
                   "how long uploaded instances stay, so that late slices make a new revision")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32))
      ->capture_default_str();
  verb->add_option("--tag", worker.import.tags, "word to filter by; of every volume");
  verb->add_flag("--split_at_gaps", worker.import.series.split_at_gaps,
                 "where slices are missing, make a volume of each side");
  verb->add_option("--server", arguments->client.server, "HOST:PORT of gvsld")
      ->envname("GVSL_SERVER")
      ->capture_default_str();
  verb->add_option("--key_file", arguments->key_file,
                   "key of the pseudonyms, made if absent: keep it, and keep it secret")
      ->capture_default_str();
  verb->footer(
      "Success is answered when the instance is safe on the disk. SIGTERM drains: associations\n"
      "under way may end, what is spooled goes on at the next start.\n\n"
      "Example:\n"
      "  gvsl-ingest serve --ae_title GVSL --port 11112 --spool /var/spool/gvsl \\\n"
      "    --allow_host 10.0.0.7");
  verb->callback([arguments, action] { *action = [arguments] { return Serve(*arguments); }; });
}

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
