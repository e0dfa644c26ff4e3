// Registrations as DICOM objects: Spatial Registration (PS3.3 A.39.1) and Deformable Spatial
// Registration (A.39.2). For .cc files: includes DCMTK.
#ifndef GVSL_INGEST_REGISTRATION_OBJECT_H_
#define GVSL_INGEST_REGISTRATION_OBJECT_H_

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmdata/dctk.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "imaging/spatial_map.h"

namespace gvsl {

// An instance with slices of a volume.
struct ReferencedImage {
  std::string sop_class_uid, sop_instance_uid;
  std::vector<int> frames;  // from 1; empty: all that it has
};

// The images that one volume was made of.
struct RegisteredImages {
  std::string study_instance_uid, series_instance_uid, frame_of_reference_uid;
  std::vector<ReferencedImage> images;  // at least one
};

struct RegistrationToWrite {
  RegisteredImages fixed, moving;
  std::string fixed_file;  // one of the fixed images: whose patient and study the object is of
  SpatialMap fixed_to_moving;
  std::string content_description;  // at most 64 bytes of ASCII, as all texts here
  std::string comment;              // which registration it is
  std::string software_version;
  int64_t create_time_s = 0;  // since 1970
};

// Fills `file` with the object of a registration. Its Registered RCS is the fixed images' frame of
// reference. The two kinds go opposite ways (PS3.17 O.1):
// - Without a displacement field it is a Spatial Registration, whose matrix takes points of the
//   moving images to the fixed ones (PS3.3 C.20.2.1.1): the inverse of the affine map.
// - With one it is a Deformable Spatial Registration, which takes points of the fixed images to the
//   moving ones (C.20.3.1.1): x + u(x) by the grid, then the affine map as the post-deformation
//   matrix. The grid has the field's lattice, with orthonormal axes of which the third is the cross
//   product of the first two, as the standard wants it; a lattice that is otherwise is sampled
//   anew.
// Both have a second item for the fixed images, which lie in the Registered RCS as they are. Points
// are LPS mm; vectors float32.
//
// The SOP Instance UID is a hash of all that the object holds: the same content is the same object.
// Vectors are streamed by way of a file in `folder`, which must outlive `file`: memory is a slice
// of them.
//
// INVALID_ARGUMENT: an affine map without an inverse, a field beyond 4 GiB of vectors;
// FAILED_PRECONDITION: no dictionary, or fixed_file cannot be read; an OutputFile's error.
absl::Status FillRegistrationObject(const RegistrationToWrite& registration,
                                    const std::string& folder, DcmFileFormat* file);

// The lattice that the object's grid has: `lattice` with orthonormal, right-handed axes. One that
// is left-handed has its slices turned round.
Grid RegistrationGrid(const Grid& lattice);

}  // namespace gvsl

#endif  // GVSL_INGEST_REGISTRATION_OBJECT_H_
