// Phantoms: a family of cardiac-CT-like anatomies with one topology, for tests, demos and
// benchmarks.
//
// Every patient is a smooth, invertible deformation of one analytic anatomy: seven heart structures
// (as in MM-WHS), lungs, spine, ribs and thin coronary-like vessels. The labels are exact, and so
// is the map between any two patients.
#ifndef GVSL_IMAGING_PHANTOM_H_
#define GVSL_IMAGING_PHANTOM_H_

#include <cstdint>

#include "imaging/volume.h"

namespace gvsl {

// Label values of a phantom; 1..7 are MM-WHS's whole-heart structures.
enum class PhantomLabel : uint8_t {
  kBackground = 0,
  kMyocardium = 1,
  kLeftAtrium = 2,
  kLeftVentricle = 3,
  kRightAtrium = 4,
  kRightVentricle = 5,
  kAscendingAorta = 6,
  kPulmonaryArtery = 7,
  kLung = 8,
  kSpine = 9,
  kRib = 10,
  kCoronary = 11,
  kSoftTissue = 12,
};

struct PhantomOptions {
  uint64_t patient = 0;  // seed of the anatomy: shape, contrast, noise and pose follow from it
  std::array<int64_t, 3> size = {128, 128, 96};
  Vec3 spacing_mm = {2.0, 2.0, 2.5};
  double shape_variation = 1;  // 0: the mean anatomy; 1: typical differences between patients
  double noise_hu = 15;        // standard deviation
  bool vary_pose = true;       // rotation up to 8 degrees, translation up to 10 mm
};

struct Phantom {
  Volume image;   // int16, HU, modality CT
  Volume labels;  // uint8, PhantomLabel
};

// Deterministic: the same options give the same voxels on every machine.
// INVALID_ARGUMENT for a grid that ValidateGrid refuses, shape_variation outside 0..3, noise_hu
// outside 0..500.
absl::StatusOr<Phantom> MakePhantom(const PhantomOptions& options);

// Where the point `point_mm` (LPS) of patient `from` lies in patient `to`: the exact anatomical map
// (through the mean anatomy; the inverse part is solved to 1e-6 mm). Only patient, shape_variation
// and vary_pose of the options matter; a shape_variation outside 0..3 is clamped.
Vec3 MapBetweenPhantoms(const PhantomOptions& from, const PhantomOptions& to, const Vec3& point_mm);

}  // namespace gvsl

#endif  // GVSL_IMAGING_PHANTOM_H_
