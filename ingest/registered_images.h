// Back from a stored volume to the DICOM files that it was made of.
#ifndef GVSL_INGEST_REGISTERED_IMAGES_H_
#define GVSL_INGEST_REGISTERED_IMAGES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gvsl/v1/volumes.pb.h"
#include "ingest/pseudonym.h"
#include "ingest/registration_object.h"
#include "ingest/series.h"

namespace gvsl {

struct FoundImages {
  RegisteredImages images;
  std::string file;        // of one of them
  std::string patient_id;  // with its issuer; empty where the files name none
};

// Finds the series that `volume` was made of: by the pseudonym among its tags, then by converting
// it again, which must give the same voxels on the same grid (Volume.content_sha256). So another
// study, or other files of the same one, are never taken for it. Memory is one volume.
//
// NOT_FOUND: no series has its pseudonym, as with another key; FAILED_PRECONDITION: the series
// gives other voxels, or no frame of reference; ConvertSeries' errors.
absl::StatusOr<FoundImages> FindImages(const v1::Volume& volume, const std::vector<Series>& all,
                                       const SeriesOptions& options, const Pseudonyms& pseudonyms);

}  // namespace gvsl

#endif  // GVSL_INGEST_REGISTERED_IMAGES_H_
