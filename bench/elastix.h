// What the registration benchmark and its peer share, and the peer: elastix and transformix
// (Debian's `elastix`) on a pair of files.
#ifndef GVSL_BENCH_ELASTIX_H_
#define GVSL_BENCH_ELASTIX_H_

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "imaging/image_file.h"
#include "imaging/spatial_map.h"

namespace gvsl {

[[noreturn]] inline void Fail(const std::string& message) {
  std::fprintf(stderr, "gvsl_registration_bench: %s\n", message.c_str());
  std::exit(1);
}

template <typename T>
T Checked(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(std::string(value.status().message()));
  return *std::move(value);
}

struct Case {
  std::string image, labels, landmarks;  // paths; the latter two may be empty
};
struct Pair {
  std::string name;
  Case fixed, moving;
};

inline Volume Read(const std::string& path, VolumeKind kind, const std::string& modality) {
  ReadOptions options;
  options.kind = kind;
  Volume volume = Checked(ReadVolume(path, options));
  volume.set_modality(modality);
  return volume;
}

inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline std::string WholeFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) Fail(path + " cannot be read");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline void Command(const std::string& command) {
  if (std::system((command + " > /dev/null 2>&1").c_str()) != 0) Fail(command + " failed");
}

// elastix and transformix on one pair, in a folder of its own.
class Elastix {
 public:
  Elastix(const std::string& parameters, bool rigid) : parameters_(parameters), rigid_(rigid) {
    std::string name = (std::filesystem::temp_directory_path() / "elastix.XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~Elastix() { std::filesystem::remove_all(folder_); }

  double Register(const Pair& pair) {
    const auto start = std::chrono::steady_clock::now();
    const std::string models =
        rigid_ ? absl::StrCat(" -p ", parameters_, "/rigid.txt")
               : absl::StrCat(" -p ", parameters_, "/affine.txt -p ", parameters_, "/bspline.txt");
    Command(absl::StrCat("elastix -f ", pair.fixed.image, " -m ", pair.moving.image, models,
                         " -out ", folder_));
    const double seconds = SecondsSince(start);
    // For labels: nearest neighbour, in a file that we read.
    std::string text = WholeFile(Transform());
    for (const auto& [key, value] : {std::pair{"FinalBSplineInterpolationOrder ", "0"},
                                     std::pair{"ResultImageFormat ", "\"nii\""}}) {
      const size_t at = text.find(key) + std::string(key).size();
      text.replace(at, text.find(')', at) - at, value);
    }
    std::ofstream(folder_ + "/labels.txt") << text;
    return seconds;
  }

  Volume Labels(const Pair& pair) {
    Command(absl::StrCat("transformix -in ", pair.moving.labels, " -tp ", folder_,
                         "/labels.txt -out ", folder_));
    return Read(folder_ + "/result.nii", VolumeKind::kLabels, "");
  }

  double FoldingPercent() {
    Command(absl::StrCat("transformix -jac all -tp ", folder_, "/labels.txt -out ", folder_));
    const Volume jacobian = Read(folder_ + "/spatialJacobian.nii", VolumeKind::kImage, "");
    int64_t folds = 0;
    for (int64_t i = 0; i < jacobian.voxel_count(); ++i) {
      folds += jacobian.voxels<float>()[i] <= 0 ? 1 : 0;
    }
    return 100 * static_cast<double>(folds) / static_cast<double>(jacobian.voxel_count());
  }

  Vec3 MapPoint(const Vec3& point) {
    std::ofstream(folder_ + "/points.txt")
        << "point\n1\n"
        << point[0] << ' ' << point[1] << ' ' << point[2] << '\n';
    Command(absl::StrCat("transformix -def ", folder_, "/points.txt -tp ", folder_,
                         "/labels.txt -out ", folder_));
    const std::string text = WholeFile(folder_ + "/outputpoints.txt");
    const std::string key = "OutputPoint = [ ";
    std::istringstream numbers(text.substr(text.find(key) + key.size()));
    Vec3 mapped;
    numbers >> mapped[0] >> mapped[1] >> mapped[2];
    return mapped;
  }

  // Of the Euler angles of a rigid fit, rotations about x, y and z in ITK's order Z X Y.
  Mat3 Rotation() {
    const std::string text = WholeFile(Transform());
    const std::string key = "(TransformParameters ";
    std::istringstream numbers(text.substr(text.find(key) + key.size()));
    double x, y, z;
    numbers >> x >> y >> z;
    const double cx = std::cos(x), sx = std::sin(x), cy = std::cos(y), sy = std::sin(y),
                 cz = std::cos(z), sz = std::sin(z);
    return Product({{{cz, -sz, 0}, {sz, cz, 0}, {0, 0, 1}}},
                   Product({{{1, 0, 0}, {0, cx, -sx}, {0, sx, cx}}},
                           {{{cy, 0, sy}, {0, 1, 0}, {-sy, 0, cy}}}));
  }

 private:
  std::string Transform() const {
    return folder_ + (rigid_ ? "/TransformParameters.0.txt" : "/TransformParameters.1.txt");
  }
  const std::string parameters_;
  const bool rigid_;
  std::string folder_;
};

}  // namespace gvsl

#endif  // GVSL_BENCH_ELASTIX_H_
