// Tables for a terminal.
#ifndef GVSL_CLIENT_TEXT_TABLE_H_
#define GVSL_CLIENT_TEXT_TABLE_H_

#include <string>
#include <vector>

namespace gvsl {

// Prints rows under a header, columns aligned; the first row is the header.
void PrintTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace gvsl

#endif  // GVSL_CLIENT_TEXT_TABLE_H_
