#include "imaging/transform_file.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/nifti_file.h"
#include "imaging/output_file.h"
#include "imaging/parallel.h"

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

absl::Status WriteVectors(const Grid& grid, const VectorSource& source, VectorLayout layout,
                          const std::string& path) {
  auto compressed = IsCompressed(path);
  if (!compressed.ok()) return compressed.status();
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  absl::Status status = WriteNiftiVectors(grid, source, layout, *compressed, file);
  return status.ok() ? file.Commit() : status;
}

// What `vector` says of each voxel of a grid, by its index.
template <typename Vector>
VectorSource SourceOf(const Grid& grid, const ProceedFunction& proceed, const Vector& vector) {
  return [&grid, &proceed, &vector](int component, int64_t z, float* out) {
    ParallelFor(grid.size[1], 0, [&](int64_t begin, int64_t end) {
      for (int64_t y = begin; y < end; ++y) {
        for (int64_t x = 0; x < grid.size[0]; ++x) {
          const Vec3 index = {static_cast<double>(x), static_cast<double>(y),
                              static_cast<double>(z)};
          out[y * grid.size[0] + x] =
              static_cast<float>(vector(index)[static_cast<size_t>(component)]);
        }
      }
    });
    return proceed ? proceed() : absl::OkStatus();
  };
}

Vec3 Difference(const Vec3& a, const Vec3& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }

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
  const int64_t plane = field.grid.size[0] * field.grid.size[1];
  return WriteVectors(
      field.grid,
      [&](int component, int64_t z, float* out) {
        const float* slice = field.values_mm.data() + (component * field.grid.size[2] + z) * plane;
        std::copy(slice, slice + plane, out);
        return absl::OkStatus();
      },
      VectorLayout::kDisplacementField, path);
}

absl::StatusOr<DisplacementField> ReadDisplacementField(const std::string& path) {
  auto vectors = ReadNiftiVectors(path);
  if (!vectors.ok()) return InFile(path, vectors.status());
  return DisplacementField{vectors->grid, std::move(vectors->values)};
}

absl::Status WriteComposedField(const SpatialMap& map, const Grid& grid, const std::string& path,
                                const ProceedFunction& proceed) {
  const PointMapper mapper(map);
  const AffineMap to_physical = IndexToPhysicalMap(grid);
  const auto displacement_mm = [&](const Vec3& index) {
    const Vec3 point = to_physical.Apply(index);
    return Difference(mapper(point), point);
  };
  return WriteVectors(grid, SourceOf(grid, proceed, displacement_mm),
                      VectorLayout::kDisplacementField, path);
}

absl::Status WriteLearn2RegField(const SpatialMap& fixed_to_moving, const Grid& fixed,
                                 const Grid& moving, const std::string& path,
                                 const ProceedFunction& proceed) {
  if (fixed.size != moving.size) {
    return absl::InvalidArgumentError(
        "Learn2Reg's fields are for two volumes of the same size; resample the moving one first");
  }
  const PointMapper mapper(fixed_to_moving);
  const AffineMap to_physical = IndexToPhysicalMap(fixed), to_index = PhysicalToIndexMap(moving);
  const auto displacement = [&](const Vec3& index) {
    return Difference(to_index.Apply(mapper(to_physical.Apply(index))), index);
  };
  return WriteVectors(fixed, SourceOf(fixed, proceed, displacement), VectorLayout::kPlain, path);
}

}  // namespace gvsl
