// What gvsld runs with: flags over a textproto file over defaults.
#ifndef GVSL_SERVER_CONFIG_H_
#define GVSL_SERVER_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "gvsl/v1/server_config.pb.h"

namespace gvsl {

struct CommandLine {
  v1::ServerConfig config;  // complete: every default filled in
  std::string port_file;    // where to write the bound port; "" for nowhere
  int exit_code = -1;       // 0 or more: stop at once (help, version, bad usage was printed)
};

// Reads flags and, with --config, the file. Prints help and usage errors itself (exit_code).
// INVALID_ARGUMENT: what is wrong in which flag, or in the file with line and column.
absl::StatusOr<CommandLine> ReadCommandLine(int argc, char** argv);

// The file's content alone. INVALID_ARGUMENT with line, column and the unknown field's name.
absl::StatusOr<v1::ServerConfig> ParseConfig(const std::string& text);

// Bytes of memory that this process may use: the machine's, or less where a control group says so.
int64_t AvailableMemory();

}  // namespace gvsl

#endif  // GVSL_SERVER_CONFIG_H_
