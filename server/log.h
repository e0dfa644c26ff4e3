// One line of text a happening, on standard error: time, level, message. No patient's data ever.
#ifndef GVSL_SERVER_LOG_H_
#define GVSL_SERVER_LOG_H_

#include <string>

namespace gvsl {

void LogInfo(const std::string& message);
void LogError(const std::string& message);

}  // namespace gvsl

#endif  // GVSL_SERVER_LOG_H_
