#include "imaging/transform_file.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/nifti_file.h"
#include "imaging/output_file.h"

namespace gvsl {
namespace {

constexpr size_t kMostFileBytes = 1 << 16;  // of a .tfm

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(ShownPath(path), ": ", std::string(status.message())));
}

absl::StatusOr<bool> IsCompressed(const std::string& path) {
  const auto ends = [&](const std::string& with) {
    return path.size() > with.size() &&
           path.compare(path.size() - with.size(), with.size(), with) == 0;
  };
  if (ends(".nii.gz")) return true;
  if (ends(".nii")) return false;
  return absl::InvalidArgumentError(
      absl::StrCat(ShownPath(path), ": a field is written as .nii or .nii.gz"));
}

absl::Status WriteVectors(const NiftiVectors& vectors, VectorLayout layout,
                          const std::string& path) {
  auto compressed = IsCompressed(path);
  if (!compressed.ok()) return compressed.status();
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  absl::Status status = WriteNiftiVectors(vectors, layout, *compressed, file);
  return status.ok() ? file.Commit() : status;
}

// Shortest form that reads back to the same double.
std::string Exact(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

// `count` numbers behind "KEY:" in a line. False for another number of them, or no finite number.
bool NumbersOf(const std::string& line, size_t count, std::vector<double>& numbers) {
  std::istringstream words(line.substr(line.find(':') + 1));
  numbers.clear();
  std::string word;
  while (words >> word) {
    char* end = nullptr;
    numbers.push_back(std::strtod(word.c_str(), &end));
    if (*end != '\0' || !std::isfinite(numbers.back())) return false;
  }
  return numbers.size() == count;
}

bool Begins(const std::string& line, const std::string& with) { return line.rfind(with, 0) == 0; }

}  // namespace

std::string AffineToItkText(const AffineMap& affine) {
  std::string text =
      "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
      "Parameters:";
  for (const Vec3& row : affine.matrix) {
    for (double value : row) absl::StrAppend(&text, " ", Exact(value));
  }
  for (double value : affine.translation_mm) absl::StrAppend(&text, " ", Exact(value));
  return text + "\nFixedParameters: 0 0 0\n";
}

absl::Status WriteItkAffine(const AffineMap& affine, const std::string& path) {
  return WriteWholeFile(path, AffineToItkText(affine));
}

absl::StatusOr<AffineMap> ReadItkAffine(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(ShownPath(path), ": no such file"));
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(ShownPath(path), ": ", what));
  };
  std::string text(kMostFileBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  std::istringstream lines(text);
  std::string line;
  std::vector<double> parameters, centre;
  bool known = false;
  for (int number = 1; std::getline(lines, line); ++number) {
    const std::string here = absl::StrCat("line ", number, ": ");
    if (Begins(line, "Transform:")) {
      if (known) return wrong(here + "a second transform; one affine transform a file is read");
      known = Begins(line, "Transform: AffineTransform_") ||
              Begins(line, "Transform: MatrixOffsetTransformBase_");
      if (!known) {
        return wrong(here + "only AffineTransform and MatrixOffsetTransformBase are read, not " +
                     line.substr(0, 80));
      }
    } else if (Begins(line, "Parameters:")) {
      if (!NumbersOf(line, 12, parameters)) return wrong(here + "12 finite numbers are needed");
    } else if (Begins(line, "FixedParameters:")) {
      if (!NumbersOf(line, 3, centre)) return wrong(here + "3 finite numbers are needed");
    }
  }
  if (!known || parameters.empty() || centre.empty()) {
    return wrong("no ITK transform file with Transform, Parameters and FixedParameters");
  }
  // matrix (x - centre) + translation + centre.
  AffineMap affine;
  for (size_t r = 0; r < 3; ++r) {
    affine.translation_mm[r] = parameters[9 + r] + centre[r];
    for (size_t c = 0; c < 3; ++c) {
      affine.matrix[r][c] = parameters[3 * r + c];
      affine.translation_mm[r] -= affine.matrix[r][c] * centre[c];
    }
  }
  return affine;
}

absl::Status WriteDisplacementField(const DisplacementField& field, const std::string& path) {
  if (field.empty()) {
    return absl::InvalidArgumentError("the map has no displacement field; its affine part is all");
  }
  return WriteVectors({field.grid, field.values_mm}, VectorLayout::kDisplacementField, path);
}

absl::StatusOr<DisplacementField> ReadDisplacementField(const std::string& path) {
  auto vectors = ReadNiftiVectors(path);
  if (!vectors.ok()) return InFile(path, vectors.status());
  return DisplacementField{vectors->grid, std::move(vectors->values)};
}

DisplacementField ComposedField(const SpatialMap& map, const Grid& grid) {
  const PointMapper mapper(map);
  const int64_t voxels = grid.voxel_count();
  DisplacementField field;
  field.grid = grid;
  field.values_mm.resize(static_cast<size_t>(3 * voxels));
  for (int64_t i = 0; i < voxels; ++i) {
    const Vec3 point =
        grid.IndexToPhysical({static_cast<double>(i % grid.size[0]),
                              static_cast<double>(i / grid.size[0] % grid.size[1]),
                              static_cast<double>(i / (grid.size[0] * grid.size[1]))});
    const Vec3 end = mapper(point);
    for (int c = 0; c < 3; ++c) {
      field.values_mm[static_cast<size_t>(c * voxels + i)] = static_cast<float>(end[c] - point[c]);
    }
  }
  return field;
}

absl::Status WriteLearn2RegField(const SpatialMap& fixed_to_moving, const Grid& fixed,
                                 const Grid& moving, const std::string& path) {
  if (fixed.size != moving.size) {
    return absl::InvalidArgumentError(
        "Learn2Reg's fields are for two volumes of the same size; resample the moving one first");
  }
  const PointMapper mapper(fixed_to_moving);
  const AffineMap to_physical = IndexToPhysicalMap(fixed), to_index = PhysicalToIndexMap(moving);
  const int64_t voxels = fixed.voxel_count();
  NiftiVectors vectors;
  vectors.grid = fixed;
  vectors.values.resize(static_cast<size_t>(3 * voxels));
  for (int64_t i = 0; i < voxels; ++i) {
    const Vec3 index = {static_cast<double>(i % fixed.size[0]),
                        static_cast<double>(i / fixed.size[0] % fixed.size[1]),
                        static_cast<double>(i / (fixed.size[0] * fixed.size[1]))};
    const Vec3 end = to_index.Apply(mapper(to_physical.Apply(index)));
    for (int c = 0; c < 3; ++c) {
      vectors.values[static_cast<size_t>(c * voxels + i)] = static_cast<float>(end[c] - index[c]);
    }
  }
  return WriteVectors(vectors, VectorLayout::kPlain, path);
}

}  // namespace gvsl
