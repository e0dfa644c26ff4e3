// Siemens mosaics: a whole volume as the tiles of one image, laid out row by row.
#ifndef GVSL_INGEST_SIEMENS_MOSAIC_H_
#define GVSL_INGEST_SIEMENS_MOSAIC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ingest/dicom_instance.h"

class DcmItem;

namespace gvsl {

// The values of one field of a Siemens CSA header (versions "SV10" and before), as text; empty when
// the field is absent or the header is damaged. Layout: nipy.org/nibabel/dicom/siemens_csa.html.
std::vector<std::string> CsaValues(const uint8_t* header, size_t size, const std::string& field);

// Replaces the one frame of a mosaic by its tiles. ImagePositionPatient of a mosaic is the corner
// of an image as large as the mosaic around the centre of its first slice; it is moved to the first
// tile's corner. The tiles follow each other along the CSA header's SliceNormalVector,
// SpacingBetweenSlices apart. FAILED_PRECONDITION where the header lacks what this needs.
absl::Status SplitMosaic(DcmItem& dataset, DicomInstance& instance);

}  // namespace gvsl

#endif  // GVSL_INGEST_SIEMENS_MOSAIC_H_
