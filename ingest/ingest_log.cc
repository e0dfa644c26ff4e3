#include "ingest/ingest_log.h"

#include <cstdio>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"

namespace gvsl {
namespace {

using nlohmann::json;

void Write(json line) {
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

}  // namespace

void LogEvent(const std::string& event, const std::string& error) {
  json line = {{"event", event}};
  if (!error.empty()) line["error"] = error;
  Write(std::move(line));
}

void LogServing(const std::string& ae_title, int port) {
  Write({{"event", "serving"}, {"aeTitle", ae_title}, {"port", port}});
}

void Log(const ScpEvent& event) {
  switch (event.kind) {
    case ScpEvent::Kind::kAccepted:
      return Write({{"event", "association"}, {"peer", event.peer}});
    case ScpEvent::Kind::kRejected:
      return Write({{"event", "rejected"}, {"peer", event.peer}});
    case ScpEvent::Kind::kInstance:
      return Write({{"event", event.status == 0 ? "instance" : "refused"},
                    {"peer", event.peer},
                    {"status", absl::StrFormat("%04X", event.status)},
                    {"bytes", event.bytes}});
  }
}

void Log(const CommitmentEvent& event) {
  json line = {{"event", event.what},
               {"peer", event.peer},
               {"committed", event.committed},
               {"failed", event.failed}};
  if (!event.error.empty()) line["error"] = event.error;
  Write(std::move(line));
}

void Log(const SpoolEvent& event) {
  json line = {{"event", event.what},
               {"series", event.series},
               {"instances", event.instances},
               {"volumes", event.volumes}};
  if (!event.error.empty()) {
    line["reason"] = event.reason;
    line["error"] = event.error;
  }
  Write(std::move(line));
}

}  // namespace gvsl
