#include "client/points_file.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr size_t kMostQuoted = 60;  // characters of the user's text in a message

std::string Trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// The number that all of `text` spells. std::from_chars: the user's locale plays no part.
template <typename T>
bool ParseNumber(const std::string& text, T* value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, *value);
  return !text.empty() && result.ec == std::errc() && result.ptr == end;
}

bool ParsePoint(const std::string& line, Vec3* point) {
  std::istringstream cells(line);
  std::string cell;
  for (double& coordinate : *point) {
    if (!std::getline(cells, cell, ',') || !ParseNumber(Trimmed(cell), &coordinate) ||
        !std::isfinite(coordinate)) {
      return false;
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<Vec3>> ParsePoints(const std::string& text, const std::string& source) {
  std::vector<Vec3> points;
  std::istringstream lines(text);
  std::string raw;
  bool first = true;
  for (int number = 1; std::getline(lines, raw); ++number) {
    const std::string line = Trimmed(raw);
    if (line.empty() || line[0] == '#') continue;
    const bool heading = first && std::isalpha(static_cast<unsigned char>(line[0]));
    first = false;
    if (heading) continue;
    Vec3 point;
    if (!ParsePoint(line, &point)) {
      return absl::InvalidArgumentError(absl::StrCat(
          source, ": line ", number, ": \"", line.substr(0, kMostQuoted), "\" is not x,y,z in mm"));
    }
    points.push_back(point);
  }
  if (points.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": holds no point (x,y,z in mm, LPS)"));
  }
  return points;
}

absl::StatusOr<std::vector<Vec3>> ReadPoints(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  file.peek();  // a folder opens, and fails here
  text << file.rdbuf();
  if (!file.is_open() || file.bad()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path.substr(0, 200)));
  }
  return ParsePoints(text.str(), path);
}

absl::StatusOr<Region> ParseRegion(const std::string& text) {
  Region region;
  std::istringstream ranges(text);
  std::string range;
  bool good = std::count(text.begin(), text.end(), ',') == 2;
  for (int axis = 0; good && axis < 3; ++axis) {
    std::getline(ranges, range, ',');
    const size_t colon = std::min(range.find(':'), range.size());
    good = colon < range.size() && ParseNumber(range.substr(0, colon), &region.begin[axis]) &&
           ParseNumber(range.substr(colon + 1), &region.end[axis]) && region.begin[axis] >= 0 &&
           region.begin[axis] < region.end[axis];
  }
  if (good) return region;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text.substr(0, kMostQuoted),
                   "\" is not i0:i1,j0:j1,k0:k1 (columns, rows, slices; ends exclusive)"));
}

}  // namespace gvsl
