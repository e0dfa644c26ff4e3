// What the tests of series share: folders of DICOM files made into volumes, and NIfTI references.
#ifndef GVSL_INGEST_SERIES_TESTING_H_
#define GVSL_INGEST_SERIES_TESTING_H_

#include <gtest/gtest.h>
#include <nifti2_io.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "imaging/testing.h"
#include "ingest/dicom_logging.h"
#include "ingest/series.h"

namespace gvsl {

// The public images; empty where they are not there.
inline std::string DicomDataFolder() {
  const char* set = std::getenv("GVSL_TEST_DATA");
  const std::string folder = std::string(set != nullptr ? set : GVSL_TEST_DATA_DEFAULT) + "/dicom";
  return std::filesystem::is_directory(folder) ? folder : "";
}

// Everything that came of some files.
struct Converted {
  std::vector<SeriesVolume> volumes;
  Ledger ledger;

  int Count(Verdict verdict) const {
    return static_cast<int>(std::count_if(
        ledger.begin(), ledger.end(), [&](const auto& entry) { return entry.verdict == verdict; }));
  }
  // Of the file of this name.
  LedgerEntry Of(const std::string& name) const {
    for (const LedgerEntry& entry : ledger) {
      if (std::filesystem::path(entry.path).filename() == name) return entry;
    }
    ADD_FAILURE() << name << " is not in the ledger";
    return {};
  }
};

inline Converted ConvertFiles(const std::vector<std::string>& paths, SeriesOptions options = {}) {
  SilenceDicomLog();
  options.threads = 2;
  std::vector<DicomInstance> instances;
  for (const std::string& path : paths) instances.push_back(ReadDicomInstance(path));
  Converted converted;
  for (const Series& series : GroupBySeries(std::move(instances))) {
    absl::StatusOr<Ledger> ledger = ConvertSeries(series, options, [&](SeriesVolume volume) {
      converted.volumes.push_back(std::move(volume));
      return absl::OkStatus();
    });
    EXPECT_TRUE(ledger.ok()) << ledger.status();
    if (ledger.ok()) {
      converted.ledger.insert(converted.ledger.end(), ledger->begin(), ledger->end());
    }
  }
  EXPECT_EQ(converted.ledger.size(), paths.size()) << "an instance was lost";
  return converted;
}

inline std::vector<std::string> FilesOf(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

inline Converted ConvertFolder(const std::string& folder, const SeriesOptions& options = {}) {
  return ConvertFiles(FilesOf(folder), options);
}

inline double ValueAt(const Volume& volume, int64_t index) {
  return VisitVoxelType(volume.type(), [&](auto tag) {
    return static_cast<double>(volume.voxels<decltype(tag)>()[index]);
  });
}

// A NIfTI file as another converter wrote it, up to 4D; its affine is kept in RAS.
struct NiftiReference {
  int64_t size[4] = {1, 1, 1, 1};
  double index_to_ras[3][4] = {};
  std::vector<double> values;
};

inline NiftiReference ReadReference(const std::string& path) {
  NiftiReference reference;
  nifti_image* image = nifti_image_read(path.c_str(), 1);
  EXPECT_NE(image, nullptr) << path;
  if (image == nullptr) return reference;
  for (int axis = 0; axis < 4 && axis < image->ndim; ++axis) {
    reference.size[axis] = std::max<int64_t>(1, image->dim[axis + 1]);
  }
  const nifti_dmat44& affine = image->sform_code > 0 ? image->sto_xyz : image->qto_xyz;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 4; ++c) reference.index_to_ras[r][c] = affine.m[r][c];
  }
  const bool scaled = image->scl_slope != 0 && std::isfinite(image->scl_slope);
  reference.values.resize(static_cast<size_t>(image->nvox));
  for (size_t i = 0; i < reference.values.size(); ++i) {
    double value = 0;
    switch (image->datatype) {
      case NIFTI_TYPE_INT16:
        value = static_cast<int16_t*>(image->data)[i];
        break;
      case NIFTI_TYPE_UINT16:
        value = static_cast<uint16_t*>(image->data)[i];
        break;
      case NIFTI_TYPE_FLOAT32:
        value = static_cast<float*>(image->data)[i];
        break;
      default:
        ADD_FAILURE() << path << ": datatype " << image->datatype;
    }
    reference.values[i] = scaled ? image->scl_slope * value + image->scl_inter : value;
  }
  nifti_image_free(image);
  return reference;
}

// Every voxel of the volume lies on a voxel of the reference's time point (within
// `tolerance_mm` at the corners: the converters write their affines in single precision), and has
// its value within `tolerance`. The axes may be flipped or swapped.
inline void ExpectSameImage(const Volume& volume, const NiftiReference& reference, int64_t time,
                            double tolerance_mm, double tolerance) {
  const Grid& grid = volume.grid();
  Grid other;
  double ras_to_lps[3] = {-1, -1, 1};
  for (int r = 0; r < 3; ++r) {
    other.origin_mm[r] = ras_to_lps[r] * reference.index_to_ras[r][3];
    for (int c = 0; c < 3; ++c) {
      other.direction[r][c] = ras_to_lps[r] * reference.index_to_ras[r][c];
    }
  }
  for (int c = 0; c < 3; ++c) {
    other.size[c] = reference.size[c];
    double length = 0;
    for (int r = 0; r < 3; ++r) length += other.direction[r][c] * other.direction[r][c];
    other.spacing_mm[c] = std::sqrt(length);
    for (int r = 0; r < 3; ++r) other.direction[r][c] /= other.spacing_mm[c];
  }
  ASSERT_EQ(grid.voxel_count(), other.voxel_count());
  const auto place = [&](int64_t x, int64_t y, int64_t z, std::array<int64_t, 3>* index) {
    const Vec3 point = grid.IndexToPhysical(
        {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)});
    const Vec3 exact = other.PhysicalToIndex(point);
    Vec3 rounded;
    for (int i = 0; i < 3; ++i) {
      (*index)[i] = std::llround(exact[i]);
      rounded[i] = static_cast<double>((*index)[i]);
    }
    const Vec3 back = other.IndexToPhysical(rounded);
    double distance = 0;
    for (int i = 0; i < 3; ++i) distance += (point[i] - back[i]) * (point[i] - back[i]);
    return std::sqrt(distance);
  };
  int64_t wrong = 0, voxel = 0;
  for (int64_t z = 0; z < grid.size[2]; ++z) {
    for (int64_t y = 0; y < grid.size[1]; ++y) {
      for (int64_t x = 0; x < grid.size[0]; ++x, ++voxel) {
        std::array<int64_t, 3> index;
        const double distance = place(x, y, z, &index);
        ASSERT_LE(distance, tolerance_mm) << "voxel " << x << "," << y << "," << z;
        for (int i = 0; i < 3; ++i) {
          ASSERT_GE(index[i], 0);
          ASSERT_LT(index[i], other.size[i]);
        }
        const size_t at = static_cast<size_t>(
            ((time * other.size[2] + index[2]) * other.size[1] + index[1]) * other.size[0] +
            index[0]);
        if (std::abs(ValueAt(volume, voxel) - reference.values.at(at)) > tolerance) ++wrong;
      }
    }
  }
  EXPECT_EQ(wrong, 0) << "of " << voxel << " voxels differ";
}

}  // namespace gvsl

#endif  // GVSL_INGEST_SERIES_TESTING_H_
