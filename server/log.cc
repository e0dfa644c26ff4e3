#include "server/log.h"

#include <cstdio>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace gvsl {
namespace {

void Log(char level, const std::string& message) {
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::fprintf(stderr, "%s %c %s\n", time.c_str(), level, message.c_str());
}

}  // namespace

void LogInfo(const std::string& message) { Log('I', message); }
void LogError(const std::string& message) { Log('E', message); }

}  // namespace gvsl
