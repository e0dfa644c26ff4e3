#include "server/config.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

class Errors : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (first.empty())
      first = absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  std::string first;
};

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " must lie in ", low, " to ", high));
}

absl::Status FillDefaults(v1::ServerConfig& config) {
  if (config.data_dir().empty()) {
    return absl::InvalidArgumentError(
        "data_dir: say where to keep volumes and models: --data_dir DIR");
  }
  if (config.listen().empty()) config.set_listen("127.0.0.1:8500");
  if (config.device().empty()) config.set_device("auto");
  if (config.queue_capacity() == 0) config.set_queue_capacity(64);
  if (config.drain_timeout_s() == 0) config.set_drain_timeout_s(30);
  if (config.upload_expiry_h() == 0) config.set_upload_expiry_h(24);
  if (config.concurrent_jobs() == 0) config.set_concurrent_jobs(1);
  if (!config.has_job_restarts()) config.set_job_restarts(5);
  if (config.memory_limit_mib() == 0)
    config.set_memory_limit_mib(std::max<int64_t>((AvailableMemory() >> 20) * 3 / 4, 64));
  if (config.exact_search_up_to() == 0) config.set_exact_search_up_to(20000);
  if (config.search_effort() == 0) config.set_search_effort(128);
  auto& weights = *config.mutable_rerank_weights();
  if (!weights.has_ncc()) weights.set_ncc(1);
  if (!weights.has_features()) weights.set_features(1);
  if (!weights.has_deformation()) weights.set_deformation(1);
  if (config.search_memory_mib() == 0)
    config.set_search_memory_mib(std::max<int64_t>(config.memory_limit_mib() / 4, 1));
  for (const auto& status :
       {CheckRange("threads", config.threads(), 0, 1024),
        CheckRange("queue_capacity", config.queue_capacity(), 1, 1000),
        CheckRange("memory_limit_mib", config.memory_limit_mib(), 64, int64_t{1} << 30),
        CheckRange("drain_timeout_s", config.drain_timeout_s(), 1, 3600),
        CheckRange("upload_expiry_h", config.upload_expiry_h(), 1, 8760),
        CheckRange("concurrent_jobs", config.concurrent_jobs(), 1, 64),
        CheckRange("job_restarts", config.job_restarts(), 0, 1000),
        CheckRange("job_cache_mib", config.job_cache_mib(), 0, int64_t{1} << 40),
        CheckRange("exact_search_up_to", config.exact_search_up_to(), 1, int64_t{1} << 30),
        CheckRange("search_effort", config.search_effort(), 1, 10000),
        CheckRange("search_memory_mib", config.search_memory_mib(), 1, int64_t{1} << 30)}) {
    if (!status.ok()) return status;
  }
  const size_t colon = config.listen().rfind(':');
  const std::string port = colon == std::string::npos ? "" : config.listen().substr(colon + 1);
  if (colon == 0 || port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("listen: \"", config.listen().substr(0, 100),
                                                   "\" is no HOST:PORT, such as 127.0.0.1:8500"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ServerConfig> ParseConfig(const std::string& text) {
  v1::ServerConfig config;
  Errors errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (!parser.ParseFromString(text, &config)) return absl::InvalidArgumentError(errors.first);
  return config;
}

int64_t AvailableMemory() {
  int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  // Control groups, version 2 and 1; "max" reads as nothing.
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) memory = std::min(memory, limit);
  }
  return memory;
}

absl::StatusOr<CommandLine> ReadCommandLine(int argc, char** argv) {
  CLI::App app(
      "gvsld: the GVSL server. Keeps volumes and models, and extracts features over gRPC.");
  app.footer("Example:\n  gvsld --data_dir /var/lib/gvsl --listen 127.0.0.1:8500 --device auto");
  CommandLine line;
  v1::ServerConfig flags;
  std::string file, data_dir, listen, device, trainer;
  int threads = 0, queue_capacity = 0, drain_timeout_s = 0, concurrent_jobs = 0;
  int64_t memory_limit_mib = 0;
  bool auto_embed = false;
  app.set_version_flag("--version", GVSL_VERSION);
  app.add_option(
      "--config", file,
      "configuration in protobuf text format (proto/gvsl/v1/server_config.proto); flags win");
  app.add_option("--data_dir", data_dir, "folder of all state; made when it is not there");
  app.add_option("--listen", listen, "HOST:PORT; port 0 takes a free one (default 127.0.0.1:8500)");
  app.add_option("--device", device, "auto, cpu or cuda:N (default auto)");
  app.add_option("--threads", threads, "CPU threads of the network (default: all cores)");
  app.add_option("--queue_capacity", queue_capacity,
                 "requests that may wait for the network (default 64)");
  app.add_option("--memory_limit_mib", memory_limit_mib,
                 "MiB one request may take (default: 3/4 of the memory)");
  app.add_option("--drain_timeout_s", drain_timeout_s,
                 "seconds that calls get to finish after SIGTERM (default 30)");
  app.add_option("--trainer", trainer,
                 "program that runs a job (default: gvsl-trainer beside gvsld)");
  app.add_option("--concurrent_jobs", concurrent_jobs,
                 "jobs that run at the same time (default 1)");
  app.add_flag("--auto_embed", auto_embed,
               "embed every volume for search, by the default model and in the background");
  app.add_option("--port_file", line.port_file, "file to write the bound port to");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    line.exit_code = app.exit(error) == 0 ? 0 : 2;
    return line;
  }
  if (!file.empty()) {
    std::ifstream in(file);
    in.peek();  // a folder opens, and fails here
    if (!in.is_open() || in.bad())
      return absl::NotFoundError(absl::StrCat("--config: cannot read ", file));
    std::stringstream text;
    text << in.rdbuf();
    auto parsed = ParseConfig(text.str());
    if (!parsed.ok())
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": ", std::string(parsed.status().message())));
    line.config = *std::move(parsed);
  }
  if (!data_dir.empty()) line.config.set_data_dir(data_dir);
  if (!listen.empty()) line.config.set_listen(listen);
  if (!device.empty()) line.config.set_device(device);
  if (app.count("--threads") > 0) line.config.set_threads(threads);
  if (app.count("--queue_capacity") > 0) line.config.set_queue_capacity(queue_capacity);
  if (app.count("--memory_limit_mib") > 0) line.config.set_memory_limit_mib(memory_limit_mib);
  if (app.count("--drain_timeout_s") > 0) line.config.set_drain_timeout_s(drain_timeout_s);
  if (!trainer.empty()) line.config.set_trainer(trainer);
  if (app.count("--concurrent_jobs") > 0) line.config.set_concurrent_jobs(concurrent_jobs);
  if (auto_embed) line.config.set_auto_embed(true);
  if (absl::Status status = FillDefaults(line.config); !status.ok()) return status;
  return line;
}

}  // namespace gvsl
